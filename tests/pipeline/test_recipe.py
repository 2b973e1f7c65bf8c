"""The paper's settings: the page that lists them is true, and they are open to be filled in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from random_weights import save_all

from shic_cli.base.recipes import PAPER, by_recipe
from shic_cli.base.settings import PseudoGtConfig, SynthConfig
from shic_cli.base.training_settings import TrainConfig
from shic_cli.learning import recipes
from shic_cli.parts.extractors.picture import Picture
from shic_cli.parts.extractors.silhouette import Silhouette
from shic_cli.parts.extractors.vit import Vit
from shic_cli.stages import pseudo_gt
from shic_cli.stages.synth import settled

PAGE = Path(__file__).parents[2] / "docs/concepts/recipe.md"
COMMANDS = {"pseudo-gt": PseudoGtConfig, "synth": SynthConfig, "train": TrainConfig}
OPEN = ("auto", 0, -1)


def shown(value: Any) -> str:
    """A value as the page has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(f"{each:g}" for each in value) or "none"
    return f"{value:g}" if isinstance(value, int | float) else value or "none"


def rows(command: str) -> dict[str, list[str]]:
    """The cells of a command's table by the option that its row is about."""
    part = re.split(r"^## ", PAGE.read_text(), flags=re.M)
    [text] = [each for each in part if each.startswith(f"{command}\n")]
    table = [
        [cell.strip().replace("`", "") for cell in line[1:-1].split("|")]
        for line in text.splitlines()
        if line.startswith("| `--")
    ]
    return {name: rest for name, *rest in table}


def option(member: Any) -> str:
    return "--" + (member.metadata["flag"] or member.name.replace("_", "-"))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_has_every_setting_and_the_papers_values(command: str) -> None:
    config = COMMANDS[command]
    members = {option(each): each for each in fields(config) if each.name != "recipe"}
    table = rows(command)
    assert list(table) == list(members)
    for name, cells in table.items():
        paper = PAPER[config].get(members[name].name)
        assert cells[0] == ("=" if paper is None else shown(paper)), name


@pytest.mark.parametrize("command", ["pseudo-gt", "synth"])
def test_the_page_has_the_defaults_that_are_values(command: str) -> None:
    for member in fields(COMMANDS[command]):
        if member.name != "recipe" and not (member.default in OPEN and member.default is not False):
            assert rows(command)[option(member)][1] == shown(member.default), member.name


def test_the_page_has_what_auto_takes_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "has_bfloat16", lambda device: True)
    columns = {"convolutional": Picture(), "pointwise": Silhouette(), "unet": Picture()}
    for column, (decoder, encoder) in enumerate(columns.items(), 1):
        found = recipes.settle(
            TrainConfig(decoder=decoder), encoder, torch.device("cpu"), {"synthetic", "pseudo"}
        )
        for member in fields(TrainConfig):
            cell = rows("train").get(option(member), [""] * 5)[column]
            value = getattr(found, member.name)
            if member.name == "natural" and decoder == "unet":
                assert cell.startswith(f"{shown(value)} ")
            elif member.name not in ("recipe", "encoder"):
                assert cell == shown(value), (decoder, member.name)


def test_the_page_has_what_extractors_decide() -> None:
    table = rows("pseudo-gt")
    assert (Silhouette.agreement, Silhouette.matching) == (2.0, "maximum")
    assert (Vit.agreement, Vit.matching) == (0.0, "transport")
    assert table["--agreement"][1] == "2 for silhouette, else 0"
    assert table["--matching"][1] == "maximum for silhouette, else transport"


@pytest.mark.parametrize("config", COMMANDS.values())
def test_what_the_recipe_decides_is_open_or_is_the_papers_value(config: type) -> None:
    defaults = {each.name: each.default for each in fields(config)}
    for name, value in PAPER[config].items():
        assert defaults[name] in (*OPEN, value), name
    assert {name: getattr(by_recipe(config(recipe="paper")), name) for name in PAPER[config]} == PAPER[config]
    assert by_recipe(config()) == config()


def test_a_setting_that_is_given_stays() -> None:
    given = TrainConfig(recipe="paper", epochs=3, foreground=0.1, encoder="picture")
    found = by_recipe(given)
    assert (found.epochs, found.foreground, found.encoder, found.variants) == (3, 0.1, "picture", 0)
    one = pseudo_gt.settled(PseudoGtConfig(recipe="paper", agreement=1.0), Silhouette())
    assert (one.agreement, one.matching, one.extractor) == (1.0, "maximum", "sd-dino")
    assert pseudo_gt.settled(PseudoGtConfig(), Silhouette()).agreement == 2.0
    plain = settled(SynthConfig(recipe="paper", generator="plain"), torch.device("cpu"))
    assert (plain.poses, plain.views, plain.erode) == (0.0, "side,front", 0)
    assert settled(SynthConfig(generator="plain"), torch.device("cpu")).poses == 1.0


def test_a_map_without_a_foreground_loss_has_no_foreground_output() -> None:
    settings = recipes.settle(TrainConfig(recipe="paper"), Picture(), torch.device("cpu"))
    assert recipes.layout(settings) == "released"
    assert recipes.layout(replace(settings, foreground=0.1)) == "convolutional"
    assert recipes.layout(replace(settings, decoder="pointwise")) == "pointwise"


def test_the_whole_paper_path_from_the_command_line(
    folder: Path, shic: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tiny random models, by SHIC_RECIPE alone but for what makes it short; the files record the page's
    values.
    """
    weights = save_all(folder / "weights", full=False)
    monkeypatch.setenv("SHIC_RECIPE", "paper")
    monkeypatch.setenv("SHIC_WEIGHTS", str(weights))
    short = {
        "pseudo-gt": (
            "imgs/photo0.png",
            "imgs/photo1.png",
            "-o",
            "pgt.h5",
            "--azimuths",
            "2",
            "--elevations",
            "0",
        ),
        "synth": ("--class", "horse", "--number", "2", "--size", "64", "--side", "64", "--steps", "1"),
        "train": ("--epochs", "1", "--points", "20"),
    }
    for command, words in short.items():
        status, _, err = shic(command, *words)
        assert status == 0, err
    files = {"pseudo-gt": "pgt.h5", "synth": "synth.h5", "train": "model.safetensors"}
    for command, file in files.items():
        params = json.loads(shic("info", file, "--json")[1])["params"]
        for name, value in PAPER[COMMANDS[command]].items():
            given = f"--{name}" in short[command]
            found = params[name]["name"] if name == "extractor" else params[name]
            assert given or found == (list(value) if isinstance(value, tuple) else value), (command, name)
    assert json.loads(shic("info", "model.safetensors", "--json")[1])["decoder"] == "released"
    assert shic("predict", "imgs/photo0.png", "--no-pictures")[0] == 0
    shutil.rmtree(folder / "masks")
    status, _, err = shic("predict", "imgs/photo1.png", "--no-pictures", "--masker", "none")
    assert status == 1 and "has no mask" in err, "an output that was never trained tells nothing"
