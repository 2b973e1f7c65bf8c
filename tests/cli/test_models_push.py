"""`shic models push`, and what others do with the model: against an imitation of the hub."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hub import Hub
from PIL import Image

import shic_cli as shic_api

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The imitation, in the place of the hub."""
    found = Hub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", found.address)
    template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield found
    found.close()


@pytest.fixture
def run(shic: Run, hub: Hub, folder: Path, small_model_file: Path) -> Run:
    """`shic` in a folder with photos and a model."""
    return shic


def test_a_pushed_model_is_pulled_and_predicts_the_same(run: Run, hub: Hub, folder: Path) -> None:
    scores = {"metric": "geodesic", "images": 3, "points": 40, "mean": 12.25, "ci95": [10.0, 14.5]}
    (folder / "real.json").write_text(json.dumps(scores))
    assert run("predict", "imgs", "-o", "own.maps.h5", "--no-pictures")[0] == 0
    line = ("models", "push", "model.safetensors", "me/animal", "--licence", "cc0-1.0")
    status, out, err = run(*line, "--maps", "own.maps.h5", "--scores", "real.json", "--about", "Four legs.")
    assert (status, out) == (0, f"{hub.address}/me/animal\n"), err
    sent, own_model = hub.repositories["me/animal"], shic_api.load(folder / "model.safetensors", "cpu")
    assert set(sent) == {"model.safetensors", "config.json", "README.md", "picture.jpg"}
    assert sent["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert hub.tokens == {"Bearer hf_secret"}
    card = sent["README.md"].decode()
    assert card.startswith('---\nlicense: "cc0-1.0"\n') and "shic models pull me/animal" in card
    assert "| real | geodesic | 3 | 40 | 12.25 | 10 to 14.5 |" in card and "Four legs." in card
    height, width = np.asarray(Image.open(io.BytesIO(sent["picture.jpg"]))).shape[:2]
    assert height > width / 2  # the template's sides, and photos below it

    status, _, err = run("predict", "imgs", "-o", "pulled.maps.h5", "--model", "me/animal")
    assert status == 3 and "shic models pull me/animal" in err
    assert run("models", "pull", "me/animal")[0] == 0
    hub.server.shutdown()
    status, _, err = run("predict", "imgs", "-o", "pulled.maps.h5", "--model", "me/animal", "--no-pictures")
    assert status == 0, err
    assert np.array_equal(shic_api.load("me/animal", "cpu").surface.verts, own_model.surface.verts)
    for name in ("own", "pulled"):
        assert run("export", f"{name}.maps.h5", "-o", f"{name}.npz")[0] == 0
    own, pulled = (np.load(folder / f"{name}.npz") for name in ("own", "pulled"))
    assert np.array_equal(own["template_vertex"], pulled["template_vertex"])


def test_a_folder_is_written_and_nothing_is_sent(run: Run, hub: Hub, folder: Path) -> None:
    line = ("models", "push", "model.safetensors", "me/animal", "--licence", "mit", "--folder", "card")
    status, out, err = run(*line)
    assert (status, out) == (0, "card\n"), err
    assert not hub.asked and not hub.repositories
    assert "None were given." in (folder / "card/README.md").read_text()
    assert json.loads((folder / "card/config.json").read_text())["model_type"] == "shic"


def test_what_cant_be_pushed_is_told_in_two_lines(run: Run, hub: Hub, folder: Path) -> None:
    hub.faults["me/shut"] = "readonly"
    (folder / "bad.json").write_text("[]")
    push = ("models", "push", "model.safetensors")
    for words, said, status in (
        ((*push, "me/shut", "--licence", "mit"), "check that your token may write it", 1),
        ((*push, "animal", "--licence", "mit"), "give OWNER/NAME", 2),
        ((*push, "me/a", "--licence", "mit", "--scores", "bad.json"), "bad.json: holds no results", 1),
        (
            ("models", "push", "imgs/photo0.png", "me/a", "--licence", "mit"),
            "imgs/photo0.png: can't be read",
            1,
        ),
        ((*push, "me/a"), "--licence", 2),
    ):
        code, out, err = run(*words)
        assert code == status and said in err and out == ""
    assert "me/a" not in hub.repositories
