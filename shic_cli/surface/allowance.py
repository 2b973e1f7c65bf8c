"""How much a mesh file may hold: memory in proportion to the file, whatever numbers stand in it."""

from __future__ import annotations

MOST = 20_000_000  # vertices, and faces
SPARE = 1_000_000  # of each, whatever the file's size; compressed ones take about a byte and a half


class Allowance:
    """What a file of `size` bytes may still describe: SPARE and one a byte of vertices and of faces, MOST at
    most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.left: dict[str, int] = dict.fromkeys(("vertices", "faces"), min(MOST, SPARE + size))

    def take(self, count: int, what: str = "vertices") -> None:
        """Count `count` more of `what`, before there is memory for them; ValueError if they are too many."""
        self.left[what] -= count
        if count < 0 or self.left[what] < 0:
            most = min(MOST, SPARE + self.size)
            raise ValueError(f"over {most} {what}, more than is read of a file of {self.size} bytes")
