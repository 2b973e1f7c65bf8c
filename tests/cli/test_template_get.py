"""`shic template get`: meshes by name, from a server that the test starts in place of the public copy."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trimesh

from shic_cli.parts import meshes

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the copy's files, which holds the mesh `ball`."""
    folder = tmp_path / "copy"
    folder.mkdir()
    trimesh.creation.icosphere(subdivisions=2).export(folder / "Ball.glb")
    digest = hashlib.sha256((folder / "Ball.glb").read_bytes()).hexdigest()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    source = meshes.Source("its maker", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setitem(meshes.MESHES, "ball", meshes.Animal("Ball.glb", digest, "--front +z", source))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield folder
    server.shutdown()
    server.server_close()


def test_a_mesh_is_fetched_by_its_name_and_the_next_line_makes_the_template(copy: Path, shic: Run) -> None:
    status, _, err = shic("template", "get", "ball")
    assert status == 0 and "wrote ball.glb: CC0 1.0, by its maker" in err, err
    line = re.findall(r"next: shic (.*)", err)[0]
    assert line == "template prep ball.glb --front +z"
    assert shic(*line.split(), "--vertices", "0", "--eigenvectors", "8", "--device", "cpu")[0] == 0
    status, _, err = shic("template", "get", "ball")
    assert status == 1 and "ball.glb: is there already" in err


def test_what_is_not_the_known_file_is_refused_and_nothing_is_left(copy: Path, shic: Run) -> None:
    (copy / "Ball.glb").write_bytes(b"another")
    status, _, err = shic("template", "get", "ball", "-o", "b.glb")
    assert status == 1 and "is not the file that is known" in err and not list(Path().glob("*b.glb"))
    (copy / "Ball.glb").unlink()
    status, _, err = shic("template", "get", "ball")
    assert status == 1 and "does not answer" in err and len(err.strip().splitlines()) == 2
    status, _, err = shic("template", "get")
    assert status == 2 and "name the mesh to fetch\n  there are: horse, donkey" in err
    status, _, err = shic("template", "get", "hrose")
    assert status == 2 and "did you mean horse?" in err


def test_every_mesh_has_its_address_and_the_help_and_the_page_name_it(shic: Run) -> None:
    out = " ".join(shic("template", "get", "--help")[1].split())
    page = (ROOT / "docs/how-to/meshes.md").read_text("utf-8")
    for name, animal in meshes.MESHES.items():
        assert re.fullmatch(r"[0-9a-f]{64}", animal.digest) and animal.address.endswith(f"/{animal.file}")
        assert re.search(rf"\b{name}\b", out) and f"`{name}`" in page, name
    assert len({animal.digest for animal in meshes.MESHES.values()}) == len(meshes.MESHES)
