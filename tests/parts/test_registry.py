"""Parts by name, from here and from other packages."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from shic_cli.base.errors import MissingError, SettingError
from shic_cli.parts import registry


class Part:
    """A part that remembers what it was made with."""

    lack: ClassVar[str] = ""

    def __init__(self, argument: str = "", *, device: str = "cpu", **options: object) -> None:
        self.argument, self.device, self.options = argument, device, options

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        if cls.lack:
            raise MissingError(cls.lack, "get them")

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        return np.zeros(rgb.shape[:2], bool)


class Lacking(Part):
    lack = "its weights are not here"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package's maskers `good`, `lacking`, and `broken`, whose module can't be imported."""
    module = ModuleType("someones_parts")
    module.Good, module.Lacking = Part, Lacking
    monkeypatch.setitem(sys.modules, "someones_parts", module)
    group = "shic.maskers"
    points = [
        EntryPoint("good", "someones_parts:Good", group),
        EntryPoint("lacking", "someones_parts:Lacking", group),
        EntryPoint("broken", "no_such_module_here:Part", group),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: EntryPoints(points).select(**wanted))


def test_every_built_in_part_can_be_found() -> None:
    for kind, parts in registry.PARTS.items():
        for name in parts:
            if kind == "renderers" and name == "pytorch3d":
                continue  # its module may need the package
            assert isinstance(registry.find(kind, name), type)
        assert set(registry.AUTO[kind]) <= set(parts)
    encoders = "+".join(registry.AUTO["encoders"] + registry.AUTO["photo encoders"]).split("+")
    assert set(encoders) <= set(registry.PARTS["extractors"])


def test_a_plugin_is_listed_found_and_made(plugin: None) -> None:
    assert registry.names("maskers") == ["grounded-sam", "semantic", "grabcut", "broken", "good", "lacking"]
    assert "good" not in registry.names("extractors")
    part = registry.make("maskers", "good:some:thing", device="cuda:1", speed=3)
    assert isinstance(part, Part) and part.argument == "some:thing"
    assert part.device == "cuda:1" and part.options == {"speed": 3}


def test_unknown_names_suggest_the_nearest(plugin: None) -> None:
    with pytest.raises(SettingError, match="there is no masker 'grabcat'") as caught:
        registry.make("maskers", "grabcat")
    assert "did you mean grabcut" in caught.value.hint and "good" in caught.value.hint


def test_missing_weights_are_status_3(plugin: None) -> None:
    with pytest.raises(MissingError, match="its weights are not here") as caught:
        registry.make("maskers", "lacking")
    assert caught.value.exit_code == 3
    with pytest.raises(MissingError, match="no_such_module_here"):
        registry.make("maskers", "broken")


def test_auto_takes_the_first_that_lacks_nothing(plugin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.AUTO, "maskers", ("lacking", "good", "grabcut"))
    assert registry.resolve("maskers", "auto") == "good"
    assert isinstance(registry.make("maskers", "auto"), Part)
    assert registry.resolve("maskers", "anything") == "anything"


class Optioned(Part):
    def __init__(
        self,
        argument: str = "",
        *,
        device: object = "cpu",
        weights: Path | None = None,
        layer: int = -1,
        scale: float = 1.0,
        facet: str = "token",
        blocks: tuple[int, ...] = (0, 1),
        flip: bool = False,
    ) -> None:
        self.values = (argument, weights, layer, scale, facet, blocks, flip)


def test_options_follow_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PARTS["maskers"], "optioned", f"{__name__}:Optioned")
    part = registry.make(
        "maskers", "optioned:a/b:c,layer=9,facet=key,blocks=2/3/5,flip=yes,scale=0.5", weights=Path("w")
    )
    assert part.values == ("a/b:c", Path("w"), 9, 0.5, "key", (2, 3, 5), True)
    assert registry.make("maskers", "optioned").values == ("", None, -1, 1.0, "token", (0, 1), False)
    for text, fact, hint in (
        ("optioned,depth=3", "there is no option 'depth'", "layer, scale, facet, blocks, flip"),
        ("optioned,layer=x", "layer=x is not a whole number", "layer=-1"),
        ("optioned,flip=1", "flip=1 is not yes or no", "flip=no"),
        ("optioned,blocks=1-2", "blocks=1-2 is not whole numbers separated by /", "blocks=0/1"),
        ("optioned,layer", "'layer' is not an option with a value", "OPTION=VALUE"),
        ("optioned:/a,b/c", "'b/c' is not an option with a value", "a path can't hold a comma"),
        ("optioned,layer=0,layer=1", "layer is given twice", "OPTION=VALUE"),
        ("optioned,device=cpu", "there is no option 'device'", "layer"),
    ):
        with pytest.raises(SettingError, match=fact) as caught:
            registry.make("maskers", text)
        assert hint in caught.value.hint


def test_a_part_is_spelled_as_it_would_be_typed() -> None:
    Optioned.name = "optioned"
    assert registry.spell(Optioned, "", {"layer": -1, "scale": 1.0, "flip": False}) == "optioned"
    spelled = registry.spell(Optioned, "a/b", {"layer": 1, "scale": 0.5, "blocks": (2, 3), "flip": True})
    assert spelled == "optioned:a/b,layer=1,scale=0.5,blocks=2/3,flip=yes"


def test_nothing_is_imported_before_its_name_is_asked_for() -> None:
    assert all(":" in target for parts in registry.PARTS.values() for target in parts.values())
