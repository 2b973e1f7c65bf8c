"""The void of a label map: in no object, in no background, and without a label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from training import config, make_trainer

from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.learning import losses
from shic_cli.parts import registry
from shic_cli.parts.extractors.contract import ExtractorDefaults

Run = Callable[..., tuple[int, str, str]]
FEW = ("--azimuths", "4", "--elevations", "10", "--extractor", "silhouette")


@pytest.fixture
def rims(folder: Path) -> dict[str, np.ndarray]:
    """The void of each photo by name: masks become 0 and 1 with a rim of 255, but for photo5."""
    found = {}
    for path in sorted((folder / "masks").iterdir())[:5]:
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert mask is not None
        inside = (mask > 127).astype(np.uint8)
        square = np.ones((5, 5), np.uint8)
        rim = (cv2.dilate(inside, square) - cv2.erode(inside, square)).astype(bool)
        cv2.imwrite(str(path), np.where(rim, 255, inside).astype(np.uint8))
        found[path.name] = rim
    return found


@pytest.mark.parametrize("way", ["photos", "features"])
def test_void_has_no_label_and_is_kept_beside_the_mask(
    shic: Run, folder: Path, rims: dict[str, np.ndarray], way: str
) -> None:
    if way == "features":
        assert shic("features", "imgs/", "--extractor", "silhouette")[0] == 0
    status, _, err = shic("pseudo-gt", "imgs/" if way == "photos" else "features.h5", *FEW)
    assert status == 0, err
    for item in ItemReader(folder / "pgt.h5", "shic/maps"):
        if item.name == "photo5.png":
            assert "void" not in item.arrays
            continue
        np.testing.assert_array_equal(item.void, rims[item.name])
        assert not (item.mask & item.void).any() and item.mask.any()
        assert (item.vertex[item.void] == -1).all() and (item.vertex[item.mask] >= 0).all()


class Patches(ExtractorDefaults):
    """An encoder that needs no mask: the picture's colours in 8 by 8 patches."""

    name, fingerprint, needs_mask, sees_whole_object, side, dim = "patches", "patches", False, False, 64, 3
    settings: ClassVar[dict] = {}

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 8) + 0.01


def test_the_foreground_is_not_learnt_from_void(
    shic: Run,
    folder: Path,
    rims: dict[str, np.ndarray],
    small_template: Template,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from shic_cli.learning.batches import collate

    monkeypatch.setitem(registry.PARTS["extractors"], "patches", f"{__name__}:Patches")
    assert shic("pseudo-gt", "imgs/", *FEW)[0] == 0
    trainer = make_trainer(small_template, [folder / "pgt.h5"], config(encoder="patches", augment="on"))
    examples = [trainer.examples.get(i, 0) for i in range(len(trainer.examples))]
    assert [example.void is not None for example in examples] == [True] * 5 + [False]
    chosen = trainer.examples.draw(len(examples), torch.Generator().manual_seed(0))
    batch = collate(examples, chosen, False, trainer.examples.encoder.side, torch.device("cpu"))
    assert batch.void is not None and not batch.void[5].any() and ((batch.void + batch.mask) <= 1.01).all()
    assert 0.005 < batch.void[:5].mean() < 0.3
    logits = torch.zeros(batch.mask.shape, requires_grad=True)
    trainer._foreground(logits, batch)["foreground"].backward()
    assert logits.grad is not None
    assert (logits.grad[batch.void == 1] == 0).all() and (batch.void == 1).any()
    assert (logits.grad[batch.void == 0] != 0).float().mean() > 0.9
    assert trainer.run_epoch()["foreground"] > 0


def test_the_foreground_loss_is_that_of_the_known_pixels() -> None:
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 6, generator=chance)
    void = torch.zeros(2, 6, 6)
    void[:, :3] = 1
    mask = (torch.rand(2, 6, 6, generator=chance) > 0.5).float() * (1 - void)
    wanted = losses.foreground(logits[:, 3:], mask[:, 3:])
    assert losses.foreground(logits, mask, void).item() == pytest.approx(wanted.item())
    half = torch.full((1, 1, 1), 0.5)  # a cell half of void, whose other half is object, is object
    assert losses.foreground(half * 8, half, half).item() == pytest.approx(np.log1p(np.exp(-4)))
