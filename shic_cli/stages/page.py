"""The parts of a page: an HTML file that holds photos, maps, mesh and scripts, and asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from shic_cli import __version__
from shic_cli.base.errors import InputError
from shic_cli.files.checks import check_indices
from shic_cli.files.items import Item
from shic_cli.files.layouts import Surface
from shic_cli.files.photos import decode
from shic_cli.stages.match import Paths

PAGES = Path(__file__).parent / "pages"
QUALITY = 82  # of the photos' JPEG
SHARED = ("three.min.js", "codec.js", "surface.js", "mesh.js", "photos.js", "marks.js")


def packed(arrays: Iterable[np.ndarray]) -> str:
    """The bytes of `arrays`, one after the other and little-endian, compressed (zlib) and in base64."""
    data = b"".join(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays)
    return base64.b64encode(zlib.compress(data, 9)).decode()


def sides(surface: Surface) -> np.ndarray:
    """On which side of the mirror plane each vertex lies, i1 `(K,)`: 1 left (of an axis x, the animal's own),
    -1 right, 0 on the plane."""
    across = surface.verts - surface.verts[surface.mirror]
    axis = np.abs(across).mean(0).argmax()
    return np.sign(np.where(np.abs(across[:, axis]) > 1e-3, across[:, axis], 0)).astype(np.int8)


def surface_data(surface: Surface) -> dict[str, Any]:
    """The mesh as the page's script reads it; `scale` takes lengths of edges to the 228 scale."""
    return {
        "vertices": len(surface.verts),
        "faces": len(surface.faces),
        "scale": float(Paths(surface.verts, surface.faces).scale),
        "data": packed(
            [
                surface.verts.astype("f4"),
                surface.faces.astype("u4"),
                surface.mirror.astype("u4"),
                surface.colors.astype("u1"),
                sides(surface),
            ]
        ),
    }


def shown_size(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """The height and width that a photo of `shape` is shown at, its longer side at most `side` pixels."""
    shrink = max(max(shape) / side, 1.0)
    return max(1, round(shape[0] / shrink)), max(1, round(shape[1] / shrink))


def shown_pixels(shape: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows `(h, 1)` and columns `(1, w)` of the photo's pixels that the shown ones stand for.

    The value at a shown pixel is the file's own at that pixel.
    """
    rows, columns = (
        ((np.arange(n) + 0.5) * of / n).astype(int) for n, of in zip(size, shape[:2], strict=True)
    )
    return rows[:, None], columns[None]


def jpeg(rgb: np.ndarray, size: tuple[int, int]) -> bytes:
    """The photo `(H, W, 3)` uint8 as a JPEG of `size`, height and width."""
    if rgb.shape[:2] != size:
        rgb = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", rgb[..., ::-1].copy(), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def map_data(item: Item, size: tuple[int, int]) -> str:
    """A map as the page's script reads it: vertex + 1 (0 for none) as u4, the score as f2, and the
    uncertainty, if there is one, as f2, all at the shown pixels, each byte's plane apart, which compresses
    best."""
    at = shown_pixels(item.vertex.shape, size)
    values = [(item.vertex[at] + 1).astype("<u4"), item.score[at].astype("<f2")]
    if "uncertainty" in item.arrays:
        values.append(item.uncertainty[at].astype("<f2"))
    return packed(value.reshape(-1, 1).view("u1").T for value in values)


def photo_data(
    items: Sequence[Item | None], where: Sequence[str], surface: Surface, side: int
) -> tuple[dict, dict]:
    """What the page lists of a photo, and what it loads when the photo comes in sight, from the photo's item
    in each maps file (None: it has none). InputError if an item can't be used."""
    first = next(item for item in items if item is not None)
    rgb, _ = decode(first.encoded.tobytes(), first.name)
    size, left = shown_size(rgb.shape[:2], side), sides(surface)
    layers, maps = [], []
    for item, path in zip(items, where, strict=True):
        if item is None:
            layers.append(None)
            maps.append(None)
            continue
        if item.vertex.shape != rgb.shape[:2]:
            raise InputError(
                f"{path}: {item.name}: the map and the image differ in size", "make the maps file again"
            )
        check_indices(item.vertex, len(surface.verts), f"{path}: {item.name}: vertex", lowest=-1)
        layers.append(_figures(item, left))
        maps.append(map_data(item, size))
    listed = {"name": first.name, "shape": rgb.shape[:2], "size": size, "layers": layers}
    return listed, {"jpeg": base64.b64encode(jpeg(rgb, size)).decode(), "maps": maps}


def _figures(item: Item, left: np.ndarray) -> dict[str, Any]:
    """How many pixels of a map have a vertex, their mean score and uncertainty, and the share of them on the
    left of the template, of those on a side."""
    inside = item.vertex >= 0
    side = left[item.vertex[inside]]
    on_a_side = int((side != 0).sum())
    return {
        "pixels": int(inside.sum()),
        "score": mean_of(item, "score"),
        "unsure": mean_of(item, "uncertainty"),
        "left": float((side > 0).sum() / on_a_side) if on_a_side else None,
    }


def mean_of(item: Item, name: str) -> float | None:
    """The mean of the map's values `name` over the pixels with a vertex; None where there are none."""
    values, inside = item.arrays.get(name), item.vertex >= 0
    return float(values[inside].astype(np.float32).mean()) if values is not None and inside.any() else None


def script_json(value: Any) -> str:
    """`value` as JSON that can stand in a script element: no text in it can end the element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def write_page(
    stream: IO[str], kind: str, title: str, bodies: Iterable[dict], data: Callable[[], dict], *, served: bool
) -> None:
    """Write the page `kind` (view or annotate) with a photo a body; `data` is asked for when all have come.

    A page that is `served` may ask its own server, another one nobody."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    style = (PAGES / "page.css").read_text(encoding="utf-8")
    code = "\n".join((PAGES / name).read_text(encoding="utf-8") for name in (*SHARED, f"{kind}.js"))
    parts = environment.get_template(f"{kind}.html").stream(
        title=title,
        version=__version__,
        policy=_policy(style, code, served),
        style=Markup(style),
        code=Markup(code),
        bodies=(Markup(script_json(body)) for body in bodies),
        data=lambda: Markup(script_json(data())),
    )
    stream.writelines(parts)


def _policy(style: str, code: str, served: bool) -> str:
    """A content security policy: nothing runs in the page but its own script and style, by their hashes."""
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("style", style), ("script", code))
    }
    rules = [
        "default-src 'none'",
        "img-src blob: data:",
        f"style-src 'sha256-{hashes['style']}'",
        f"script-src 'sha256-{hashes['script']}'",
        f"connect-src {chr(39)}{'self' if served else 'none'}{chr(39)}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(rules)
