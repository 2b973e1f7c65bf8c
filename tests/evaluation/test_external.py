"""Another program's answers, right and wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scoring import annotation, four_vertices, write_annotations

from shic_cli.base.errors import InputError
from shic_cli.evaluation.external import GivenPairs
from shic_cli.evaluation.geodesic import open_predictions, scored, summary
from shic_cli.files.annotations import read_annotations
from shic_cli.files.keypoints import Pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ann.json: points at the pixels (x, y) (3, 2), (4, 2), (3, 5) of a.jpg, of the mesh file's vertices 2,
    2, 0.
    """
    write_annotations(
        tmp_path / "ann.json", [annotation(1, [2, 1, 5.1, 5.1], [50, 100, 50], [50, 50, 200], [2, 2, 0])]
    )
    return tmp_path


def score(path: Path) -> dict[str, Any]:
    template = four_vertices()
    return summary(
        scored(open_predictions(path, template), read_annotations(path.with_name("ann.json")), template)
    )


def test_points_as_csv(folder: Path) -> None:
    """Vertices are the mesh file's: 3, 2 and 1 are the template's 0, 1 and 2, where 1, 1 and 3 are true: d(0,
    1), 0 and d(2, 3).
    """
    path = folder / "p.csv"
    path.write_text("image,x,y,vertex,score\na.jpg,3.2,2.9,3,0.5\na.jpg,4,2,2,0.7\na.jpg,3,5,1,0.9\n")
    assert score(path)["mean"] == pytest.approx((10 + 0 + 90) / 3)
    template = four_vertices()
    (found,) = scored(open_predictions(path, template), read_annotations(folder / "ann.json"), template)
    assert found.predicted.tolist() == [0, 1, 2] and found.confidence == pytest.approx(0.7)


def test_points_that_are_not_answered(folder: Path) -> None:
    path = folder / "p.csv"
    path.write_text("image,x,y,vertex\na.jpg,4,2,2\na.jpg,5.5,5,1\n")  # the second is two pixels from (3, 5)
    found = score(path)
    assert (
        found["mean"] == pytest.approx((0 + 0 + 228) / 3) and found["holes"] == 1
    )  # (3, 2) is beside the answer at (4, 2)
    path.write_text("image,x,y,vertex\nb.jpg,4,2,2\n")
    assert score(path)["mean"] == 228 and score(path)["missing_images"] == 1


def test_an_answer_counts_in_the_pixel_that_it_falls_in(folder: Path) -> None:
    """(4.9, 2.9) falls in the pixel (4, 2), which is beside (3, 2), where 1 errs by d(1, 1)."""
    path = folder / "p.csv"
    path.write_text("image,x,y,vertex\na.jpg,4.9,2.9,2\n")
    found = score(path)
    assert found["mean"] == pytest.approx(228 / 3) and found["holes"] == 1


def test_points_as_npz(folder: Path) -> None:
    path = folder / "p.npz"
    np.savez(path, image=["a.jpg"] * 3, x=[3, 4, 3], y=[2, 2, 5], vertex=[3, 2, 1])
    assert score(path)["mean"] == pytest.approx((10 + 0 + 90) / 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,x,y,vertex\na.jpg,3,2,1\na.jpg,3,two,1\n", "line 3"),
        ("image,x,y,vertex\na.jpg,3\n", "line 2"),
        ("image,x,y\na.jpg,3,2\n", "no column `vertex`"),
        ("image,x,y,vertex\n", "holds no point"),
        ("image,x,y,vertex\na.jpg,3,2,4\n", "vertex holds 4"),
        ("image,x,y,vertex\na.jpg,3,2,-1\n", "vertex holds -1"),
        ("image,x,y,vertex\na.jpg,3,2,0.5\n", "vertex holds 0.5"),
        ("", "no column `image`"),
    ],
)
def test_wrong_csv(folder: Path, text: str, said: str) -> None:
    (folder / "p.csv").write_text(text)
    with pytest.raises(InputError, match=rf"p\.csv: .*{said}") as raised:
        score(folder / "p.csv")
    assert ("from 0 to 3: vertices" in raised.value.hint) == ("vertex holds" in said)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff", b'a,b\n"' + b"x" * 200_000 + b'"\n'])
def test_a_csv_that_can_not_be_read_is_named(folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / "p.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.csv: can't be read \("):
        score(folder / "p.csv")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vertex": None}, "no array `vertex`"),
        ({"x": [1, 2]}, "p.npz: x"),
        ({"image": [1.0]}, "image is not a list of names"),
        ({"image": [["a.jpg"]]}, "image is not a list of names"),
        ({"image": np.zeros(0, "U1"), "x": [], "y": [], "vertex": []}, "image is not a list of names"),
        ({"vertex": np.array([{}])}, "can't be read"),  # an array of objects is a pickle
    ],
)
def test_wrong_npz(folder: Path, change: dict[str, Any], said: str) -> None:
    arrays = {"image": ["a.jpg"], "x": [1], "y": [1], "vertex": [1]} | change
    np.savez(folder / "p.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=said):
        score(folder / "p.npz")


def test_npz_that_says_it_is_huge(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(folder / "p.npz", image=["a.jpg"], x=np.zeros(1 << 18), y=[1], vertex=[1])
    monkeypatch.setattr("shic_cli.evaluation.external.LARGEST", 1 << 20)
    with pytest.raises(InputError, match=r"x\.npy is larger than 1 MB"):
        score(folder / "p.npz")


def test_npz_whose_array_is_not_as_it_says(folder: Path) -> None:
    np.savez(folder / "p.npz", image=["a.jpg"], x=[1.0], y=[1], vertex=[1])
    with zipfile.ZipFile(folder / "p.npz") as old, zipfile.ZipFile(folder / "q.npz", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(
                name,
                data.replace(b"(1,), }" + b" " * 13, b"(10000000000000,), }") if name == "x.npy" else data,
            )
    assert b"10000000000000" in (folder / "q.npz").read_bytes()
    with pytest.raises(InputError, match="can't be read"):
        score(folder / "q.npz")
    (folder / "q.npz").write_bytes((folder / "p.npz").read_bytes()[:-40])
    with pytest.raises(InputError, match="can't be read"):
        score(folder / "q.npz")


def test_pairs(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("source_image,target_image,XA,YA,XB,YB\na,b,1;5,1;5,10;20,11;21\n")
    given = GivenPairs(path)
    found = given(Pair("a", "b", np.array([[5.0, 5], [1, 1.9], [9, 9]]), np.zeros((3, 2))))
    assert found[:2].tolist() == [[21, 20], [11, 10]] and np.isnan(found[2]).all()
    assert given(Pair("b", "a", np.zeros((1, 2)), np.zeros((1, 2)))) is None
    path.write_text("source_image,target_image,XA,YA,XB,YB\na,b,1,1,1,1\na,b,1,1,1,1\n")
    with pytest.raises(InputError, match="holds a to b twice"):
        GivenPairs(path)
