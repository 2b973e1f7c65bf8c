"""`--heatmap` of `predict`: a pixel of a photo and the template in the colours of how like it every vertex is
(Fig. 10).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.photo_lists import list_images
from shic_cli.stages import heatmap
from shic_cli.stages.predict import Predictor

Shic = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(small_model_file: Path, folder: Path) -> Path:
    """A folder with model.safetensors, imgs/ and masks/."""
    return folder


def middle(folder: Path) -> tuple[int, int]:
    """The x and y of a pixel on the object of photo0."""
    mask = cv2.imread(str(folder / "masks/photo0.png"), cv2.IMREAD_GRAYSCALE) > 0
    y, x = np.argwhere(mask)[mask.sum() // 2].tolist()
    return x, y


def test_the_picture_is_the_photo_and_four_views(shic: Shic, photos: Path) -> None:
    x, y = middle(photos)
    status, out, err = shic("predict", "imgs", "-o", "some.maps.h5", "--heatmap", f"photo0.png:{x},{y}")
    assert status == 0 and out == "", err
    picture = cv2.imread(str(photos / "some.heatmap.png"))[..., ::-1].astype(int)
    assert picture.shape == (heatmap.HEIGHT, (1 + heatmap.SHOWN) * heatmap.HEIGHT, 3)
    photo, *views = np.split(picture, 1 + heatmap.SHOWN, 1)
    place = round((y + 0.5) * 256 / 96), round((x + 0.5) * 256 / 96)
    assert photo[place][0] > 180 and photo[place][1] < 90, "a red dot at the pixel"
    assert all((view[0, 0] == 255).all() and view.std() > 20 for view in views)
    assert not (photos / "some.maps.h5").exists(), "nothing else is written"


def test_the_hottest_place_is_the_vertex_that_is_most_alike(photos: Path, tmp_path: Path) -> None:
    predictor, images = (
        Predictor(photos / "model.safetensors", torch.device("cpu")),
        list_images([str(photos / "imgs")]),
    )
    seen = []
    for i in range(2):
        predictor.vertex_embeddings = torch.zeros_like(predictor.vertex_embeddings)
        photo, y, x = heatmap.read_pixel(images, MaskSource(), "photo0.png:{},{}".format(*middle(photos)))
        embedding = predictor.embed(photo).at(np.array([[y, x]]))[0]
        near = np.linalg.norm(predictor.surface.verts - predictor.surface.verts[(5, 300)[i]], axis=1) < 0.15
        predictor.vertex_embeddings[torch.from_numpy(near)] = embedding
        target = tmp_path / f"{i}.png"
        heatmap.write_trained_heatmap(
            predictor, images, MaskSource(), "photo0.png:{},{}".format(*middle(photos)), target
        )
        picture = cv2.imread(str(target))[..., ::-1].astype(int)[:, heatmap.HEIGHT :]
        seen.append((picture[..., 0] > picture[..., 2] + 60) & (picture[..., 1] < 90))
    assert seen[0].any() and seen[1].any() and (seen[0] & seen[1]).sum() < 0.2 * seen[0].sum()


@pytest.mark.parametrize(
    ("spec", "status", "said"), [("photo0.png:0,0", 1, "not on the object"), ("photo0.png", 2, "IMAGE:X,Y")]
)
def test_a_wrong_pixel_is_said(spec: str, status: int, said: str, shic: Shic, photos: Path) -> None:
    found, _, err = shic("predict", "imgs", "--heatmap", spec)
    assert found == status and said in err and not list(photos.glob("*.heatmap.png"))
