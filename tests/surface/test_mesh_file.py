"""OBJ and PLY files as people have them, and sizes that no file may claim."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

from shic_cli.base.errors import InputError
from shic_cli.surface.mesh import clean
from shic_cli.surface.mesh_file import read_mesh

TEXT = "# häuschen\nv 0 0 0\nv 1.5 0 0\nv 0 2.25 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"
VERTS = [[0, 0, 0], [1.5, 0, 0], [0, 2.25, 0], [0, 0, 1]]
WRITTEN = {
    "a byte order mark": b"\xef\xbb\xbf" + TEXT.split("\n", 1)[1].encode(),
    "UTF-16, little end first": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16, big end first": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "another encoding": TEXT.encode("latin-1"),
    "old Mac line ends": TEXT.replace("\n", "\r").encode(),
    "Windows line ends": TEXT.replace("\n", "\r\n").encode(),
    "lines that go on": TEXT.replace("f 1 3 2", "f 1 \\\n 3\\\r\n 2")
    .replace("v 1.5 0", "v 1.5\\\n0")
    .encode(),
    "decimal commas": TEXT.replace(".", ",").encode(),
    "tabs and blanks": TEXT.replace(" ", "\t  ").replace("v", "  v").encode(),
    "colours after the places": TEXT.replace("0 0 0\n", "0 0 0 0.5 0.5 0.5\n").encode(),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_obj_however_it_is_written(tmp_path: Path, how: str) -> None:
    (tmp_path / "x.obj").write_bytes(WRITTEN[how])
    found = clean(read_mesh(tmp_path / "x.obj"))
    np.testing.assert_array_equal(found.verts, VERTS)
    assert len(found.faces) == 4


@pytest.mark.parametrize("line", ["v 1,2,3", "v 1,000.5 0 0", "v 1.5,2.5,3.5"])
def test_numbers_parted_by_commas_are_refused_by_name(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.obj").write_text(f"{line}\n{TEXT}")
    with pytest.raises(InputError, match="numbers parted by commas, as in: v 1"):
        read_mesh(tmp_path / "x.obj")


def test_many_groups_and_materials_are_one_mesh_in_time(tmp_path: Path) -> None:
    shape = trimesh.creation.icosphere(2)
    lines = [f"v {x} {y} {z}" for x, y, z in shape.vertices]
    for i in range(30_000):
        a, b, c = shape.faces[i % 320] + 1
        lines += [f"g {i}", f"usemtl m{i}", f"f {a} {b} {c}"]
    (tmp_path / "x.obj").write_text("\n".join(lines))
    begun = time.process_time()
    assert len(read_mesh(tmp_path / "x.obj").faces) == 30_000
    assert time.process_time() - begun < 5  # 0.2 where it is measured


STRIPS = """ply
format ascii 1.0
element vertex 6
property float x
property float y
property float z
element tristrips {}
property list int int vertex_indices
end_header
0 0 0
1 0 0
0 1 0
1 1 0
0 2 0
1 2 0
{}
"""


@pytest.mark.parametrize("rows", ["8 0 1 2 3 -1 2 3 4", "5 0 1 2 2 3", "6 0 1 2 3 4 5"])
def test_ply_triangle_strips_are_triangles_with_one_winding(tmp_path: Path, rows: str) -> None:
    (tmp_path / "x.ply").write_text(STRIPS.format(1, rows))
    found = read_mesh(tmp_path / "x.ply")
    a, b, c = found.verts[found.faces].swapaxes(0, 1)
    expected = {"8": 3, "5": 1, "6": 4}[rows[0]]  # a vertex named twice only turns the strip over
    up = np.cross(b - a, c - a)[:, 2]
    np.testing.assert_array_equal(up, np.ones(expected))


def test_binary_ply_strips(tmp_path: Path) -> None:
    head = STRIPS.split("0 0 0")[0].format(1).replace("ascii", "binary_little_endian")
    places = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0], [1, 2, 0]], "<f4")
    strip = np.array([6, 0, 1, 2, 3, 4, 5], "<i4")
    (tmp_path / "x.ply").write_bytes(head.encode() + places.tobytes() + strip.tobytes())
    assert len(read_mesh(tmp_path / "x.ply").faces) == 4


def box(size: tuple[float, float, float], middle: tuple[float, float, float]) -> trimesh.Trimesh:
    return trimesh.creation.box(size).apply_translation(middle)


@pytest.mark.parametrize(
    "radius, loud", [(0.2, False), (0.5, True)]
)  # 4 % and 20 % of the surface; of the faces a half
def test_what_is_dropped_is_said_by_faces_and_surface(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, radius: float, loud: bool
) -> None:
    large = trimesh.creation.icosphere(3)
    small = trimesh.creation.icosphere(0, radius=radius).apply_translation([3, 0, 0])
    trimesh.util.concatenate([small, large]).export(tmp_path / "two.ply")
    with caplog.at_level(logging.INFO, "shic"):
        clean(read_mesh(tmp_path / "two.ply"), "two.ply")
    said = next(record for record in caplog.records if "kept the largest" in record.message)
    share = 100 * small.area / (small.area + large.area)
    assert f"20 faces, 1.5 % of the faces, {share:.1f} % of the surface" in said.message
    assert (said.levelno == logging.WARNING) == loud


def test_many_faces_of_little_surface_are_a_warning_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = trimesh.creation.icosphere(3, radius=0.01).apply_translation([3, 0, 0])
    trimesh.util.concatenate([small, trimesh.creation.icosphere(2)]).export(tmp_path / "two.ply")
    clean(read_mesh(tmp_path / "two.ply"), "two.ply")
    assert "80.0 % of the faces, 0.0 % of the surface" in caplog.text
