"""Makes a masker by its name when the first photo needs it, and takes the main object of what it finds."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.errors import InputError, SettingError, ShicError, lacks_memory
from shic_cli.base.settings import MasksConfig
from shic_cli.files.mask_sources import MaskSource
from shic_cli.parts import registry
from shic_cli.parts.maskers.contract import LEAST, Found, main_object

log = logging.getLogger("shic")


def make_masker(
    name: str, device: Any = "cpu", weights: Path | None = None, class_name: str = ""
) -> Masker | None:
    """The masker `name` for the class `class_name`, made when the first photo without a mask needs it; None
    for `none`.
    """
    if name == "none":
        return None
    return Masker(name, device, weights, class_name)


def make_masks(
    config: MasksConfig, masker: str, device: Any = "cpu", weights: Path | None = None, class_name: str = ""
) -> MaskSource:
    """The masks of photos, as `config` says how they are found and read, else by the masker of that name."""
    return MaskSource(config, make_masker(masker, device, weights, class_name), class_name)


class Masker:
    """The masker `name` for the class `class_name`, made when the first photo needs it; `auto` is settled at
    once.

    `settings` is what files record of it. SettingError (status 2) when it needs a class's name and there is
    none.
    """

    def __init__(
        self, name: str, device: Any = "cpu", weights: Path | None = None, class_name: str = ""
    ) -> None:
        self.device, self.weights, self.class_name, self.asked = device, weights, class_name.strip(), name
        which = "maskers" if self.class_name else "classless maskers"
        self.name = registry.resolve("maskers", name, device, weights, which, level=logging.DEBUG)
        self._made: Any = None
        spec = registry.Spec.parse(self.name)
        part = registry.find("maskers", spec.name)
        if getattr(part, "needs_class", False) and not self.class_name:
            raise SettingError(
                f"--masker {name}: finds objects by their name, and none was given",
                "name it, as in --class horse",
            )
        if check := getattr(part, "check_class", None):
            check(spec.argument, weights, spec.options.get("label") or self.class_name)

    @property
    def settings(self) -> dict[str, str]:
        """What the masks depend on, for the files made with them."""
        return {"masker": self.name, "class": self.class_name}

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """The mask `(H, W)` bool of the main object in `rgb` `(H, W, 3)` uint8, empty where there is none."""
        found = self.objects(rgb)
        return found[main_object(found)].mask if found else np.zeros(rgb.shape[:2], bool)

    def objects(self, rgb: np.ndarray) -> list[Found]:
        """The objects in `rgb` `(H, W, 3)` uint8, the largest first, without specks; InputError where memory
        does not last.
        """
        part = self._part()
        try:
            answer = part(rgb)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            size = f"a photo of {rgb.shape[1]} by {rgb.shape[0]} pixels"
            raise InputError(f"{self.name}: out of memory on {size}", _saves_memory(part)) from error
        return _in_order(answer, rgb.shape[:2], self.name)

    def _part(self) -> Any:
        if self._made is None:
            if self.asked == "auto":
                log.info(
                    "masker: auto took %s%s",
                    self.name,
                    "" if self.class_name else "; with --class it may find a better one",
                )
            given = {"class_name": self.class_name} if "class_name" in _parameters(self.name) else {}
            try:
                self._made = registry.make(
                    "maskers", self.name, device=self.device, weights=self.weights, **given
                )
            except ShicError as error:
                error.stops_all = True  # every other photo would meet it too
                raise
        return self._made


def _parameters(name: str) -> list[str]:
    return list(inspect.signature(registry.find("maskers", registry.Spec.parse(name).name)).parameters)


def _in_order(answer: Any, shape: tuple[int, ...], name: str) -> list[Found]:
    found = [each for each in (answer if isinstance(answer, Sequence) else [Found(answer)]) if each.area]
    for each in found:
        if each.mask.shape != shape:
            raise InputError(
                f"{name}: gave a mask of {each.mask.shape} for a photo of {shape}",
                "that is a fault of the masker",
            )
    found.sort(key=lambda each: -each.area)
    return [Found(each.mask.astype(bool), each.score) for each in found if each.area >= LEAST * found[0].area]


def _saves_memory(part: Any) -> str:
    options = [
        f"{name}=" for name in ("side", "precision") if name in inspect.signature(type(part)).parameters
    ]
    save = (
        f"its option{'s' if len(options) > 1 else ''} {' and '.join(options)} (smaller, float16), "
        if options
        else ""
    )
    return (
        f"{save}--device cpu, or smaller photos save memory"
        if options
        else "--device cpu or smaller photos save memory"
    )
