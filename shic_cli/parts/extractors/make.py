"""Makes an extractor by its name, or several that are joined by `+`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from shic_cli.parts import registry
from shic_cli.parts.extractors.joined import Joined


def make_extractor(
    name: str, device: torch.device, weights: Path | None = None, auto: str = "extractors"
) -> Any:
    """The extractor `name`, `name:argument,option=value`, several of them joined by `+`, or `auto`, on
    `device`.

    `weights` is a folder to look for weights in first, `auto` the list of registry.AUTO that the name auto
    stands for.
    """
    name = registry.resolve("extractors", name, device, weights, auto)
    parts = [registry.make("extractors", each, device=device, weights=weights) for each in split(name)]
    return parts[0] if len(parts) == 1 else Joined(parts)


def split(name: str) -> list[str]:
    """The parts of `a+b`; a `+` separates only where the name of an extractor follows, so that a folder may
    have one in its name.
    """
    known = "|".join(map(re.escape, sorted(registry.names("extractors"), key=len, reverse=True)))
    return re.split(rf"\+(?=(?:{known})(?:[:,+]|$))", name)
