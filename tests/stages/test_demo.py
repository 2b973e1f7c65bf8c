"""The demo's animal and its example: a sound mesh, poses that keep it together, and annotations that say what
the photos show.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from shic_cli.base.errors import ShicError
from shic_cli.base.result_settings import DemoConfig
from shic_cli.files.annotations import read_annotations
from shic_cli.files.layouts import Template
from shic_cli.files.masks import read_mask
from shic_cli.files.photos import decode
from shic_cli.stages import demo
from shic_cli.stages.demo_animal import BONES, Animal, bone_motions


@pytest.fixture(scope="module")
def animal() -> Animal:
    return Animal.make(2000)


def test_the_animal_is_one_watertight_body(animal: Animal) -> None:
    mesh = trimesh.Trimesh(animal.verts, animal.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.body_count == 1
    assert mesh.volume > 0  # faces look outward
    assert 1500 <= len(animal.verts) <= 2500
    assert np.ptp(animal.verts, axis=0).max() == pytest.approx(1, abs=1e-5)
    assert np.ptp(animal.verts, axis=0).argmax() == 2  # longest from snout to tail


def test_the_animal_is_made_alike_on_both_sides(animal: Animal) -> None:
    mirrored = animal.verts * np.float32([-1, 1, 1])
    away = np.linalg.norm(mirrored[:, None] - animal.verts[None], axis=-1).min(1)
    assert away.max() < 0.03


def test_head_is_forward_and_high_and_feet_are_below(animal: Animal) -> None:
    front, back = animal.verts[animal.verts[:, 2].argmax()], animal.verts[animal.verts[:, 2].argmin()]
    assert front[1] > 0.05 and abs(front[0]) < 0.05 and abs(back[0]) < 0.05
    low = animal.verts[animal.verts[:, 1] < animal.verts[:, 1].min() + 0.03]
    assert (
        (low[:, 0] > 0.03).any() and (low[:, 0] < -0.03).any() and (abs(low[:, 0]) > 0.02).all()
    )  # two feet


def test_a_bone_carries_its_children_and_nothing_else() -> None:
    names = [bone.name for bone in BONES]
    assert len(set(names)) == len(names) and names.index("left shin") < names.index("right shin")
    angles = np.zeros((len(BONES), 3))
    assert np.allclose(bone_motions(angles)[:, :, :3], np.eye(3)) and np.allclose(
        bone_motions(angles)[:, :, 3], 0
    )
    angles[names.index("left thigh")] = [90, 0, 0]
    motions = dict(zip(names, bone_motions(angles), strict=True))
    joint = np.array(BONES[names.index("left thigh")].start)
    below = joint - np.array([0, 1, 0])  # a point under the hip goes to the back by a turn about x
    for name in ("left thigh", "left shin", "left foot", "left middle toe"):
        assert np.allclose(motions[name] @ [*below, 1], joint - np.array([0, 0, 1]))
    for name in ("body", "right foot", "jaw"):
        assert np.allclose(motions[name] @ [*below, 1], below)


def test_poses_differ_but_keep_every_edge(animal: Animal) -> None:
    edges = trimesh.Trimesh(animal.verts, animal.faces, process=False).edges_unique
    rest = np.linalg.norm(animal.verts[edges[:, 0]] - animal.verts[edges[:, 1]], axis=1)
    moved = []
    for i in range(5):
        posed = animal.pose(np.random.default_rng(i))
        assert posed.dtype == np.float32
        length = np.linalg.norm(posed[edges[:, 0]] - posed[edges[:, 1]], axis=1)
        assert np.quantile(abs(length - rest) / rest, 0.9) < 0.35  # skin stretches at the joints alone
        moved.append(posed)
    assert np.abs(moved[0] - moved[1]).max() > 0.05
    assert np.array_equal(animal.pose(np.random.default_rng(0)), moved[0])


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> tuple:
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo.write_example(folder, DemoConfig(photos=2, tests=3, size=96), torch.device("cpu"))


def test_the_example_agrees_with_itself(example: tuple) -> None:
    folder, truth = example
    assert sorted(path.name for path in (folder / "imgs").iterdir()) == ["trex_0000.jpg", "trex_0001.jpg"]
    mesh = trimesh.load(folder / "trex.obj", process=False)
    assert mesh.is_watertight
    points = {each.name: each for each in read_annotations(folder / "annotations.json")}
    assert list(points) == list(truth) == [f"trex_{i:04d}.jpg" for i in range(3)]
    for name, vertex in truth.items():
        photo = decode((folder / "test/imgs" / name).read_bytes(), name)[0]
        mask = read_mask((folder / "test/masks" / name).with_suffix(".png")).mask
        assert photo.shape == (96, 96, 3) and np.array_equal(mask, vertex >= 0)
        rows, columns = points[name].yx.T
        assert len(rows) >= 50 and np.array_equal(vertex[rows, columns], points[name].vertex)
    assert not np.array_equal(truth["trex_0000.jpg"], truth["trex_0001.jpg"])
    first, second = ((folder / part / "trex_0000.jpg").read_bytes() for part in ("imgs", "test/imgs"))
    assert first != second  # test photos are others than those to learn from


def test_annotations_lie_inside_the_outline() -> None:
    vertex = np.full((40, 60), -1, np.int32)
    vertex[5:30, 10:50] = np.arange(25 * 40).reshape(25, 40)
    found = demo.annotate({"a.jpg": vertex}, "beast", np.random.default_rng(0))
    (each,) = found["annotations"]
    assert (
        each["bbox"] == [10, 5, 40, 25]
        and each["area"] == 1000
        and each["ref_model"] == found["categories"][0]["name"] == "beast"
    )
    assert json.loads(json.dumps(found)) == found
    x = np.array(each["dp_x"]) / 255 * 40 + 10
    y = np.array(each["dp_y"]) / 255 * 25 + 5
    assert len(x) == demo.POINTS and len(set(zip(x, y, strict=True))) == demo.POINTS
    assert x.min() > 13 and x.max() < 47 and y.min() > 8 and y.max() < 27
    assert np.array_equal(vertex[y.astype(int), x.astype(int)], each["dp_vertex"])


def test_chance_is_the_mean_over_all_vertices(tmp_path) -> None:
    geodesic = np.array([[0, 1, 5], [1, 0, 2], [5, 2, 0]], np.float32)
    nothing = np.zeros((3, 3), np.float32)
    template = Template(*[nothing] * 4, geodesic, *[nothing] * 4, np.array([2, 0]))
    image = {"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}
    points = {"dp_x": [100, 100], "dp_y": [100, 100], "dp_vertex": [0, 1]}
    annotation = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8], **points}
    file = {"images": [image], "categories": [{"id": 1, "name": "x"}], "annotations": [annotation]}
    (tmp_path / "a.json").write_text(json.dumps(file))
    assert demo.chance_error(template, tmp_path / "a.json") == pytest.approx((7 / 3 + 6 / 3) / 2)


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    def begin(overwrite: bool = False, place: Path = folder, line: str = "", **settings: int) -> list[str]:
        with demo.opened(place, settings, overwrite) as done:
            if line:
                done.add(line, "")
                raise KeyboardInterrupt
            return list(done.outputs)

    assert begin() == begin() == []  # an empty folder will do
    (folder / "imgs").mkdir()
    for name in ("notes.txt", "trex.obj", "pgt.h5.journal", "imgs/mine.jpg", "imgs/trex_0000.jpg"):
        (folder / name).write_text("")
    with pytest.raises(ShicError, match="not empty"):
        begin()
    assert (folder / "trex.obj").exists()
    begin(overwrite=True)
    kept = ["imgs", "imgs/mine.jpg", "notes.txt"]
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == kept
    with pytest.raises(ShicError, match="not a folder"):
        begin(place=folder / "notes.txt")

    with pytest.raises(KeyboardInterrupt):
        begin(overwrite=True, line="shic info", seed=1)
    (folder / "trex.obj").write_text("")
    with pytest.raises(ShicError, match="seed: 1, now 2"):
        begin(seed=2)
    assert begin(seed=1) == ["shic info"] and (folder / "trex.obj").exists()
    with pytest.raises(KeyboardInterrupt):
        begin(overwrite=True, line="shic info", seed=1)
    assert begin(overwrite=True, seed=2) == [] and not (folder / "trex.obj").exists()
