"""Pictures of predictions: colours, textures and uncertainties over the photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from shic_cli.base.errors import InputError
from shic_cli.files.atomic import atomic
from shic_cli.files.layouts import Surface
from shic_cli.files.names import picture_path
from shic_cli.files.photo_lists import ImageFile
from shic_cli.files.photos import encode
from shic_cli.files.pictures import color_map, uncertainty_map
from shic_cli.stages.remap import lay, load_texture
from shic_cli.surface.surface_points import SurfacePoints

if TYPE_CHECKING:
    from shic_cli.stages.predict import Prediction


class Pictures:
    """Pictures of the predictions are drawn beside the maps file.

    They are `STEM.colors.png`, `STEM.remap.png` if a texture is given, and `STEM.unsure.png` if `unsure`. For
    one image they lie beside the maps file. For several images they lie in a folder that has the name of the
    maps file. `written` are the files, or that folder.
    """

    def __init__(
        self,
        path: Path,
        surface: Surface,
        texture: str | None,
        device: torch.device,
        *,
        single: bool,
        wanted: bool = True,
        unsure: bool = False,
    ) -> None:
        self.surface, self.wanted, self.unsure = surface, wanted, unsure
        self.texture = load_texture(texture, surface) if texture else None
        self.finder = SurfacePoints(surface, device) if texture else None
        self.single, self.written = single, list[Path]()
        self.folder = (
            path.parent if single else path.parent / path.name.removesuffix(".h5").removesuffix(".maps")
        )

    def check(self, images: Sequence[ImageFile]) -> None:
        """InputError if one of the `images` lies in the folder of the pictures, which would be images too."""
        folder = self.folder.resolve()
        draws = self.wanted or self.unsure or self.texture is not None
        if draws and not self.single and any(image.path.resolve().is_relative_to(folder) for image in images):
            raise InputError(
                f"{self.folder}: holds images to predict, and their pictures would lie among them",
                "name another output, as in -o predictions.maps.h5, whose pictures lie in predictions/",
            )

    def draw(self, rgb: np.ndarray, predicted: Prediction) -> dict[str, bytes]:
        """Return the pictures of a photo `(H, W, 3)` as PNG files, by their kind."""
        vertex = predicted.vertex
        drawn = {"colors": color_map(rgb, vertex, self.surface.colors)} if self.wanted else {}
        if self.unsure:
            drawn["unsure"] = uncertainty_map(rgb, vertex, predicted.uncertainty)
        if self.texture is not None and self.finder is not None:
            drawn["remap"] = lay(rgb, vertex, self.finder, self.texture)
        return {kind: encode(picture) for kind, picture in drawn.items()}

    def write(self, name: str, drawn: dict[str, bytes]) -> None:
        """Write the pictures of the photo `name`, as `draw` gave them, and replace older ones."""
        for kind, picture in drawn.items():
            target = picture_path(self.folder, name, f".{kind}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as partial:
                partial.write_bytes(picture)
            place = target if self.single else self.folder
            self.written += [place] if place not in self.written else []
