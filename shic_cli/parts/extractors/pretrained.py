"""What the extractors with weights share: where the weights are, the number format, and what files record of
them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import torch

from shic_cli.base.devices import has_bfloat16
from shic_cli.base.errors import SettingError
from shic_cli.parts.weights import locate

PRECISIONS = ("auto", "float32", "float16", "bfloat16")


class Pretrained:
    """An extractor with weights: a subclass sets `dtype`, gives `_identity`, and in `model` names what an
    empty argument stands for.

    Fingerprints begin with `kind`: extractors of one kind are comparable under whatever name they were asked
    for.
    """

    name: str
    kind: str
    model: ClassVar[str] = ""
    dtype: torch.dtype

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        """MissingError when the model that an empty argument stands for is not on this machine."""
        if not cls.model:
            raise SettingError(
                f"{cls.name}: names no model", f"write {cls.name}:FOLDER or {cls.name}:OWNER/NAME"
            )
        locate(cls.model, weights)

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, for the files made with them."""
        return {"name": self.name, "precision": str(self.dtype).removeprefix("torch."), **self._identity()}

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean comparable features. The precision does not count: it moves them by
        rounding only.
        """
        return f"{self.kind}-" + hashlib.sha256(json.dumps(self._identity()).encode()).hexdigest()[:16]

    def _identity(self) -> dict[str, Any]:
        """The weights' fingerprint and every setting that matters, as JSON values."""
        raise NotImplementedError


def number_format(part: str, precision: str, device: torch.device, on_cuda: torch.dtype) -> torch.dtype:
    """The format that `precision` names; auto is `on_cuda` on a GPU that has it, and float32 elsewhere."""
    if precision not in PRECISIONS:
        raise SettingError(
            f"{part}: there is no precision {precision!r}", f"there are: {', '.join(PRECISIONS)}"
        )
    if precision == "auto":
        able = device.type == "cuda" and (on_cuda != torch.bfloat16 or has_bfloat16(device))
        return on_cuda if able else torch.float32
    return getattr(torch, precision)
