"""Makes a masker by its name when the first photo needs it, and takes the main object of what it finds."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import numpy as np
import torch

from shic_cli.base.errors import InputError, SettingError, ShicError, lacks_memory
from shic_cli.base.settings import MasksConfig
from shic_cli.files.mask_sources import MaskSource
from shic_cli.parts import registry
from shic_cli.parts.maskers.contract import LEAST, Found, Masker, main_object

log = logging.getLogger("shic")


def make_masker(
    name: str, device: torch.device | str = "cpu", weights: Path | None = None, class_name: str = ""
) -> ObjectFinder | None:
    """The masker `name` for the class `class_name`; None for the name `none`."""
    return None if name == "none" else ObjectFinder(name, device, weights, class_name)


def make_masks(
    config: MasksConfig,
    masker: str,
    device: torch.device | str = "cpu",
    weights: Path | None = None,
    class_name: str = "",
) -> MaskSource:
    """The masks of photos, as `config` says how they are found and read, else by the masker of that name."""
    return MaskSource(config, make_masker(masker, device, weights, class_name), class_name)


class ObjectFinder:
    """Finds the main object of photos with the masker `name`, for the class `class_name`.

    `auto` is settled at once. The masker itself is made when the first photo needs it, as that takes a while.
    `settings` is what files record of it. SettingError (status 2) when it needs a class's name and has none.
    """

    small = False  # as the masker's own

    def __init__(
        self, name: str, device: torch.device | str = "cpu", weights: Path | None = None, class_name: str = ""
    ) -> None:
        self.device, self.weights, self.class_name, self.asked = device, weights, class_name.strip(), name
        which = "maskers" if self.class_name else "classless maskers"
        self.name = registry.resolve("maskers", name, device, weights, which, level=logging.DEBUG)
        self._made: Masker | None = None
        spec = registry.Spec.parse(self.name)
        part = registry.find("maskers", spec.name)
        if part.needs_class and not self.class_name:
            raise SettingError(
                f"--masker {name}: finds objects by the name of their class, and none was given",
                "name the class, for example --class horse",
            )
        self.small = bool(part.small)
        part.check_class(spec.argument, weights, spec.options.get("label") or self.class_name)

    @property
    def settings(self) -> dict[str, str]:
        """What the masks depend on, for the files that are made with them."""
        return {"masker": self.name, "class": self.class_name}

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """The mask bool `(H, W)` of the main object in `rgb` `(H, W, 3)` uint8, empty where there is none."""
        objects = self.objects(rgb)
        return objects[main_object(objects)].mask if objects else np.zeros(rgb.shape[:2], bool)

    def objects(self, rgb: np.ndarray) -> list[Found]:
        """The objects in `rgb` `(H, W, 3)` uint8, the largest first, without specks.

        InputError where the memory does not suffice for this photo.
        """
        masker = self._masker()
        try:
            answer = masker(rgb)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            size = f"a photo of {rgb.shape[1]} by {rgb.shape[0]} pixels"
            raise InputError(f"{self.name}: out of memory on {size}", _saves_memory(masker)) from error
        objects = [Found(answer)] if isinstance(answer, np.ndarray) else answer
        objects = sorted((one for one in objects if one.area), key=lambda one: -one.area)
        return [one for one in objects if one.area >= LEAST * objects[0].area]

    def _masker(self) -> Masker:
        if self._made is None:
            if self.asked == "auto":
                better = "" if self.class_name else "; with --class it may find a better one"
                log.info("masker: auto took %s%s", self.name, better)
            try:
                self._made = registry.make(
                    "maskers", self.name, device=self.device, weights=self.weights, class_name=self.class_name
                )
            except ShicError as error:
                error.stops_all = True  # every other photo would meet it too
                raise
        return self._made


def _saves_memory(masker: Masker) -> str:
    taken = inspect.signature(type(masker)).parameters
    options = [f"{name}=" for name in ("side", "precision") if name in taken]
    if not options:
        return "--device cpu or smaller photos save memory"
    plural = "s" if len(options) > 1 else ""
    own = f"its option{plural} {' and '.join(options)} (smaller, float16)"
    return f"{own}, --device cpu, or smaller photos save memory"
