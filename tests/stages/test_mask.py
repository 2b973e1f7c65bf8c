"""Masks as files: names, what is kept, doubts, crops of single objects, and the one rule for crops from there
to a prediction.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from inverse import to_photo
from PIL import Image

from shic_cli.base.errors import InputError, SettingError, ShicError
from shic_cli.base.settings import MaskConfig, PredictConfig
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.masks import read_mask
from shic_cli.files.photo_lists import ImageFile, list_images
from shic_cli.files.photos import Crop, encode
from shic_cli.learning.encode import cut
from shic_cli.parts.maskers.contract import Found
from shic_cli.parts.maskers.make import ObjectFinder
from shic_cli.stages.mask import MaskWriter, check_places, mask_name, write_masks
from shic_cli.stages.mask_report import doubts
from shic_cli.stages.predict import Predictor

SHAPE = (60, 90)


def box(top: int, left: int, height: int, width: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


LARGE, SMALL = box(5, 3, 30, 40), box(40, 70, 12, 15)


class Fixed(ObjectFinder):
    """A masker whose answer is set, and which counts its calls."""

    def __init__(self, *found: Found, name: str = "fixed") -> None:
        self.found, self.calls, self.settings_ = list(found), 0, {"masker": name, "class": "horse"}
        self.class_name = "horse"

    settings = property(lambda self: self.settings_)  # type: ignore[assignment]

    def objects(self, rgb: np.ndarray) -> list[Found]:
        self.calls += 1
        return self.found


def photo(path: Path, seed: int = 0, alpha: np.ndarray | None = None) -> ImageFile:
    rgb = np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb if alpha is None else np.dstack([rgb, alpha * np.uint8(255)])).save(path)
    return ImageFile.at(path)


def test_masks_lie_where_the_other_commands_look(tmp_path: Path) -> None:
    (
        photo(tmp_path / "imgs/a.jpg"),
        photo(tmp_path / "imgs/deep/b.c.png", 1),
        photo(tmp_path / "imgs/clear.png", 2, SMALL),
    )
    images = list_images([str(tmp_path / "imgs")])
    masker = Fixed(Found(LARGE, 0.9), Found(SMALL, 0.8))
    report, failures = write_masks(
        images, masker, tmp_path / "masks", MaskConfig(), pictures=tmp_path / "drawn"
    )
    assert (
        not failures.names and report.unsure == [] and masker.calls == 2
    )  # the one with an alpha channel needs no masker
    assert [row.masks for row in report.rows] == [["a.png"], ["clear.png"], ["deep/b.c.png"]]
    assert [(row.source, row.objects, row.kept, row.score) for row in report.rows[::2]] == [
        ("masker", 2, [1], 0.9)
    ] * 2
    assert report.rows[1].source == "alpha" and report.rows[0].coverage == pytest.approx(LARGE.mean())
    stored = np.asarray(Image.open(tmp_path / "masks/a.png"))
    assert stored.dtype == np.uint8 and np.array_equal(stored, LARGE * np.uint8(255))
    for image, wanted in zip(images, (LARGE, SMALL, LARGE), strict=True):
        assert np.array_equal(MaskSource().read(image).mask, wanted)
        drawn = np.asarray(Image.open(tmp_path / "drawn" / mask_name(image.name)))
        assert (
            drawn.shape == (*SHAPE, 3) and (drawn == (70, 220, 90)).all(-1).any()
        )  # the outline of a sure one
    assert report.sheet().shape[2] == 3


def test_masks_that_are_there_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = photo(tmp_path / "imgs/a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(SMALL * np.uint8(255)).save(
        tmp_path / "masks/a.png"
    )  # by hand: nothing says what made it
    masker = Fixed(Found(LARGE, 0.5), Found(SMALL, 0.4))
    (row,) = write_masks([image], masker, tmp_path / "masks", MaskConfig())[0].rows
    assert (
        row.source == "kept"
        and row.score is None
        and masker.calls == 0
        and np.array_equal(read_mask(tmp_path / "masks/a.png").mask, SMALL)
    )
    assert not caplog.messages
    (row,) = write_masks([image], masker, tmp_path / "masks", MaskConfig(), overwrite=True)[0].rows
    assert row.source == "masker" and np.array_equal(read_mask(tmp_path / "masks/a.png").mask, LARGE)
    for left in (".a.png.lock", ".a.partial.png"):  # by a run that was killed
        (tmp_path / "masks" / left).write_bytes(b"")
    (again,) = write_masks([image], masker, tmp_path / "masks", MaskConfig())[0].rows
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a.png"]
    assert (again.source, again.score, again.objects, again.unsure) == (
        "kept",
        0.5,
        2,
        ["score 0.50"],
    ) and masker.calls == 1
    write_masks([image], Fixed(name="other"), tmp_path / "masks", MaskConfig())
    assert "1 masks made with other settings are kept, the first of a.png" in caplog.messages[-1]


def test_a_mask_that_is_there_must_fit(tmp_path: Path) -> None:
    images = [photo(tmp_path / f"imgs/{name}.png") for name in "abc"]
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.ones((5, 9), np.uint8)).save(tmp_path / "masks/a.png")
    (tmp_path / "masks/b.png").write_bytes(b"no picture")
    report, failures = write_masks(images, Fixed(Found(LARGE)), tmp_path / "masks", MaskConfig())
    assert failures.names == report.failed == ["a.png", "b.png"] and [row.photo for row in report.rows] == [
        "c.png"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"score": "x"}',
        '{"objects": -3}',
        '{"objects": 999999999}',
        '{"top": -4}',
        '{"number": [1]}',
    ],
)
def test_what_a_mask_says_of_itself_is_checked(tmp_path: Path, text: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    image, info = photo(tmp_path / "imgs/a.png"), PngInfo()
    info.add_text("shic", text)
    (tmp_path / "masks").mkdir()
    Image.fromarray(SMALL * np.uint8(255)).save(tmp_path / "masks/a.png", pnginfo=info)
    (row,) = write_masks([image], Fixed(), tmp_path / "masks", MaskConfig())[0].rows
    assert (row.source, row.objects, row.score) == ("kept", 1, None)


def test_doubts() -> None:
    config = MaskConfig()
    assert doubts([Found(LARGE, 0.9), Found(SMALL, 0.9)], 0, config) == []
    assert doubts([Found(LARGE, 0.59)], 0, config) == ["score 0.59"]
    assert doubts([Found(LARGE), Found(LARGE[::-1])], 0, config) == ["another object is about as large"]
    assert doubts([Found(LARGE), Found(LARGE[::-1])], 0, MaskConfig(all=True)) == []
    frame = ~box(2, 2, 56, 86)
    assert doubts([Found(frame)], 0, config) == ["on 100% of the border"]
    assert (
        doubts([Found(box(0, 0, 30, 90))], 0, MaskConfig(border=0.51)) == []
    )  # 90 + 29 * 2 of 296 border pixels
    assert doubts([Found(box(10, 10, 6, 6))], 0, config) == ["only 0.67% of the photo"]
    assert doubts([Found(box(1, 1, 58, 88))], 0, config) == ["95% of the photo"]


def test_crops_of_single_objects_are_what_the_photo_would_have_given(tmp_path: Path) -> None:
    """The crop and its mask, read again as a photo, give an encoder the same pixels as the photo with that
    object's mask.
    """
    image, config = photo(tmp_path / "imgs/a.png"), MaskConfig(all=True)
    masker = Fixed(Found(LARGE, 0.9), Found(SMALL, 0.8))
    (row,) = write_masks([image], masker, tmp_path / "out", config)[0].rows
    assert row.masks == ["a-1.png", "a-2.png"] and row.kept == [1, 2]
    crops = list_images([str(tmp_path / "out/imgs")])
    assert [each.name for each in crops] == ["a-1.png", "a-2.png"]
    rgb = np.asarray(Image.open(image.path))
    for each, mask in zip(crops, (LARGE, SMALL), strict=True):
        found = MaskSource().read(each)
        assert found.mask.sum() == mask.sum() and found.rgb.shape[0] < SHAPE[0]
        _, *wanted = cut(Photo("", b"", rgb, mask), 64)
        _, *got = cut(found, 64)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    (again,) = write_masks([image], masker, tmp_path / "out", config)[0].rows
    assert (
        masker.calls == 1
        and again.source == "kept"
        and (again.masks, again.coverage) == (row.masks, row.coverage)
    )
    write_masks([image], Fixed(Found(SMALL, 0.8)), tmp_path / "out", config, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == [
        "a-1.png",
        "a-1.png",
    ]  # none is left of the second
    (tmp_path / "out/masks/a-1.png").write_bytes(encode(np.eye(70, dtype=np.uint8)[..., None].repeat(3, 2)))
    with pytest.raises(InputError, match="is no crop of"):
        write_masks([image], masker, tmp_path / "out", config)


def test_crops_of_few_pixels_can_be_read(tmp_path: Path) -> None:
    """A picture has at least 8 pixels a side; what is added to a smaller crop changes nothing."""
    image, corner = photo(tmp_path / "imgs/a.png"), box(57, 86, 3, 4)
    write_masks([image], Fixed(Found(corner)), tmp_path / "out", MaskConfig(all=True))
    found = MaskSource().read(list_images([str(tmp_path / "out/imgs")])[0])
    assert found.rgb.shape == (8, 8, 3)
    wanted = cut(Photo("", b"", np.asarray(Image.open(image.path)), corner), 32)
    assert all(torch.equal(a, b) for a, b in zip(cut(found, 32)[1:], wanted[1:], strict=True))


def test_crops_come_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed between two objects does all of that photo again: the first object's mask is
    written last.
    """
    from shic_cli.stages import mask

    image, config, written = photo(tmp_path / "imgs/a.jpg"), MaskConfig(all=True), mask._write_mask

    def killed(path: Path, *rest: Any) -> None:
        if path.name == "a-1.png":
            raise KeyboardInterrupt
        written(path, *rest)

    monkeypatch.setattr(mask, "_write_mask", killed)
    masker = Fixed(Found(LARGE), Found(SMALL))
    with pytest.raises(KeyboardInterrupt):
        write_masks([image], masker, tmp_path / "out", config)
    monkeypatch.undo()
    (row,) = write_masks([image], masker, tmp_path / "out", config)[0].rows
    assert row.source == "masker" and sorted(each.name for each in (tmp_path / "out/imgs").iterdir()) == [
        "a-1.jpg",
        "a-2.jpg",
    ]


def test_places_that_would_do_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "imgs/a.png"), photo(tmp_path / "imgs/b.png")
    images = list_images(["imgs"])
    for folder in ("imgs", "imgs/found", "."):
        if folder == ".":
            check_places(["imgs"], images, Path(folder), [])  # beside the photos
            continue
        with pytest.raises(SettingError, match="lies among the photos"):
            check_places(["imgs"], images, Path(folder), [])
    check_places(["imgs"], images, Path("imgs/masks"), [])
    with pytest.raises(SettingError, match="lies among the photos"):
        check_places(["imgs"], images, Path("masks"), [Path("imgs/drawn")])
    with pytest.raises(SettingError, match="is a photo"):
        check_places(["imgs/a.png"], list_images(["imgs/a.png"]), Path("imgs"), [])
    photo(tmp_path / "imgs/a.jpg")
    with pytest.raises(SettingError, match=r"a\.jpg and a\.png: would have one mask"):
        check_places(["imgs"], list_images(["imgs"]), Path("masks"), [])


def test_folders_that_cant_be_written(tmp_path: Path) -> None:
    image = photo(tmp_path / "imgs/a.png")
    (tmp_path / "file").write_text("")
    for folder, said in (("file", "is a file"), ("none/masks", "there is no such folder to write to")):
        with pytest.raises(InputError, match=said):
            write_masks([image], Fixed(Found(LARGE)), tmp_path / folder, MaskConfig())
    with pytest.raises(InputError, match=r"^a\.png: no horse was found"):
        write_masks([image], Fixed(), tmp_path / "masks", MaskConfig())


def test_two_runs_at_one_folder(tmp_path: Path) -> None:
    image = photo(tmp_path / "imgs/a.png")

    class Second(Fixed):
        def objects(self, rgb: np.ndarray) -> list[Found]:
            with pytest.raises(ShicError, match="another run is writing it"):
                write_masks([image], Fixed(Found(LARGE)), tmp_path / "masks", MaskConfig())
            return [Found(LARGE)]

    assert len(write_masks([image], Second(), tmp_path / "masks", MaskConfig())[0].rows) == 1


def test_what_a_mask_file_says(tmp_path: Path) -> None:
    image = photo(tmp_path / "imgs/a.png")
    MaskWriter(tmp_path, Fixed(Found(LARGE, 0.9)), MaskConfig())(image)
    info = json.loads(Image.open(tmp_path / "a.png").info["shic"])
    assert info == {
        "masker": "fixed",
        "class": "horse",
        "source": "masker",
        "score": 0.9,
        "objects": 1,
        "number": 1,
    }


# The one rule for crops: from a photo to an encoder's square and back.


@pytest.mark.parametrize("mask", [box(5, 3, 30, 41), box(0, 0, 7, 5), box(50, 60, 10, 30), box(0, 40, 60, 3)])
@pytest.mark.parametrize("size", [7, 63, 224])
def test_to_photo_undoes_to_crop(mask: np.ndarray, size: int) -> None:
    crop, pixels = Crop.around(mask), np.argwhere(np.ones(SHAPE, bool))
    np.testing.assert_allclose(to_photo(crop, crop.to_crop(pixels, size), size), pixels, atol=1e-9)
    inside = crop.to_crop(np.argwhere(mask), size)
    assert inside.min() > -0.5 and inside.max() < size - 0.5  # all of the object is in its crop


@pytest.mark.parametrize(
    "mask", [box(5, 3, 30, 41), box(2, 2, 21, 13), box(38, 66, 20, 22), box(3, 40, 54, 9), box(20, 30, 9, 8)]
)
@pytest.mark.parametrize("side", [64, 97, 224])
def test_a_prediction_lands_on_its_pixel(mask: np.ndarray, side: int) -> None:
    """A photo whose colours are its own positions, and a map that tells them, predict for every pixel that
    pixel.

    The crops reach beyond the photo, and their sides are odd and even, shrunk, and stretched.
    """
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rgb = np.stack([y * 2, x * 2, np.full(SHAPE, 255)], -1).astype(np.uint8)
    places = torch.from_numpy(np.stack([y, x], -1).reshape(-1, 2)).double() * 2 / 255
    predictor = object.__new__(Predictor)
    predictor.config, predictor.device, predictor.flip, predictor.median = (
        PredictConfig(),
        torch.device("cpu"),
        False,
        False,
    )
    predictor.raw = predictor.on_grid = False
    predictor.medians = SimpleNamespace(
        cells=lambda share: None, expected=lambda cells, vertex: torch.zeros(len(vertex))
    )
    predictor.encoder = type(
        "Colours",
        (),
        {
            "side": side,
            "name": "colours",
            "unit": False,
            "pillow": False,
            "__call__": lambda self, rgb, mask: rgb,
        },
    )()
    predictor.map = SimpleNamespace(embed=lambda features: (features.double(), None))
    # The largest of 2 <a, b> - |b|^2 is at the b that is nearest to a.
    predictor.vertex_embeddings = torch.cat([2 * places, -places.square().sum(1, keepdim=True)], 1) * 1e5
    vertex, _, _ = predictor.predict(Photo("", b"", rgb, mask))
    assert np.array_equal(vertex >= 0, mask)
    found = np.stack([vertex[mask] // SHAPE[1], vertex[mask] % SHAPE[1]], 1)
    off = np.abs(found - np.argwhere(mask)).max(1)
    crop = Crop.around(mask)
    if crop.side <= side:
        assert off.max() == 0
    else:
        assert off.max() <= 1  # several pixels of the photo share one of the crop
