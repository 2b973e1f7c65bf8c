"""Makes an extractor by its name, or several extractors that are joined by `+`."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from shic_cli.parts import registry
from shic_cli.parts.extractors.contract import Extractor
from shic_cli.parts.extractors.guided import Guided
from shic_cli.parts.extractors.joined import Joined
from shic_cli.parts.extractors.picture import Picture


def make_extractor(
    name: str, device: torch.device, weights: Path | None = None, auto: str = "extractors"
) -> Extractor:
    """The extractor `name` on `device`.

    `name` is a part's name, `name:argument,option=value`, several of these joined by `+`, or `auto`. What
    follows `picture+` guides a U-Net (see `Guided`); all other joined parts are concatenated.
    `weights` is a folder where weights are looked for first. `auto` is the list of registry.AUTO that the
    name auto stands for.
    """
    name = registry.resolve("extractors", name, device, weights, auto)
    parts = [registry.make("extractors", part, device=device, weights=weights) for part in split(name)]
    if isinstance(parts[0], Picture) and len(parts) > 1:
        return Guided(parts[0], parts[1] if len(parts) == 2 else Joined(parts[1:]))
    return parts[0] if len(parts) == 1 else Joined(parts)


def split(name: str) -> list[str]:
    """The parts of `a+b`.

    A `+` separates only where the name of an extractor follows it, so that the name of a folder may hold one.
    """
    known = "|".join(map(re.escape, sorted(registry.names("extractors"), key=len, reverse=True)))
    return re.split(rf"\+(?=(?:{known})(?:[:,+]|$))", name)
