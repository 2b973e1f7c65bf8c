"""`--workers` of the stages that work photo by photo: the same files and words with any number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from shic_cli.files.atomic import Journal
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.shards import WHOLE, Part
from shic_cli.learning.encode import LEAST_PHOTOS, processes
from shic_cli.parts.maskers.make import ObjectFinder

Run = Callable[..., tuple[int, str, str]]
INTERRUPTED = 130
LINES = {
    "pseudo-gt": ("pseudo-gt", "imgs/", "--masks", "masks/", "--azimuths", "4", "-o", "{}/out.h5"),
    "of features": ("pseudo-gt", "features.h5", "--azimuths", "4", "-o", "{}/out.h5"),
    "predict": ("predict", "imgs/", "--estimate", "median", "--remap", "grid", "-o", "{}/out.maps.h5"),
    "remap": ("remap", "truth.h5", "--texture", "checker", "-o", "{}"),
}


@pytest.fixture
def photos(folder: Path, album: Path, small_model_file: Path) -> Path:
    """The test's own folder: of three photos one is broken, of two the alpha channel is odd, and of one map
    of truth.h5 the vertices are not those of the template.
    """
    for path in sorted((folder / "imgs").iterdir())[4:]:
        path.unlink()
    for i in (1, 2):
        path = folder / "imgs" / f"photo{i}.png"
        cv2.imwrite(str(path), np.dstack([cv2.imread(str(path)), np.full((96, 96), 0, np.uint8)]))
    (folder / "imgs" / "photo0.png").write_bytes(b"no picture")
    maps = ItemReader(album / "truth.h5", "shic/maps")
    attrs = maps.header.attrs
    with ItemWriter(folder / "truth.h5", "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for i, item in enumerate(list(maps)[:4]):
            moved = {"vertex": item.vertex + 100_000} if i == 0 else {}
            writer.add(item.name, **{**item.arrays, **moved})
    return folder


def said(err: str) -> list[str]:
    """What is said of photos, without progress and ends."""
    return sorted(line for line in err.splitlines() if "warning" in line or "left out" in line)


@pytest.mark.parametrize("name", LINES)
def test_any_number_of_workers_gives_the_same_bytes(shic: Run, photos: Path, name: str) -> None:
    """And the same is said: of what is odd the first photo, and how many more; what fails is left out."""
    failing = 0 if name == "of features" else 4
    if name == "of features":
        assert shic("features", "imgs/", "--masks", "masks/")[0] == 4
    heard = []
    for number in "12":
        status, err = worked(shic, photos, name, number)
        assert status == failing, err
        heard.append(said(err))
    assert files(photos / "1") == files(photos / "2") and len(files(photos / "1")) > (name == "remap")
    assert heard[0] == heard[1]
    if name in ("pseudo-gt", "predict"):
        assert "hides everything" in str(heard[0]) and "1 more photos like that" in str(heard[0])


@pytest.mark.parametrize("name", ["predict", "remap"])
def test_a_run_with_workers_that_was_interrupted_goes_on(
    shic: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    append, kept = Journal.append, []

    def stops(journal: Journal, record: bytes) -> None:
        if len(kept) == 2:  # the header, and a photo
            raise KeyboardInterrupt
        append(journal, record)
        kept.append(record)

    monkeypatch.setattr(Journal, "append", stops)
    assert worked(shic, photos, name, "2")[0] == INTERRUPTED
    kept.clear()
    monkeypatch.setattr(Journal, "append", lambda *given: append(*given) or kept.append(given))
    assert worked(shic, photos, name, "1", "2")[0] == 4 and len(kept) == 2
    worked(shic, photos, name, "1")
    assert files(photos / "1") == files(photos / "2")


def worked(shic: Run, photos: Path, name: str, number: str, into: str = "") -> tuple[int, str]:
    """The status and stderr of a line with so many workers, which writes to the folder of that name."""
    into = into or number
    (photos / into).mkdir(exist_ok=True)
    words = [word.format(into) for word in LINES[name]]
    status, _, err = shic(*words, "--workers", number)
    return status, err


def files(folder: Path) -> dict[str, bytes]:
    """What the files below a folder hold, by their paths in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_auto_takes_one_process_where_more_do_not_pay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU, a network, a masker that is one, a video, and torchrun's ranks, which are processes."""
    monkeypatch.setattr("shic_cli.base.workers.cores", lambda: 4)
    many: list[Any] = [SimpleNamespace(video=False)] * (3 * LEAST_PHOTOS)
    small: Any = SimpleNamespace(small=True, device=torch.device("cpu"))

    def number(asked: int | None = None, images: list[Any] = many, part: Part = WHOLE, **other: Any) -> int:
        extractor: Any = SimpleNamespace(**{**vars(small), **other})
        with processes(asked, images, len(images), extractor, masks, part) as found:
            return found

    masks = MaskSource(masker=ObjectFinder("grabcut"))
    assert (number(), number(2), number(8, many[:3]), number(None, many[:5])) == (3, 2, 3, 1)
    assert number(small=False) == number(device=torch.device("cuda")) == 1
    assert number(images=[SimpleNamespace(video=True)] * 90) == number(part=Part(1, 1, True)) == 1
    masks.masker = SimpleNamespace(small=False)
    caplog.set_level("INFO", "shic")
    assert number(2) == 1 and "one worker" in caplog.text
