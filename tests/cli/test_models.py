"""`shic models`: against an imitation of the hub on this machine, through HF_ENDPOINT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hub import Hub
from safetensors.numpy import save

from shic_cli.parts.weights import MODELS

WEIGHTS = save({"weight": np.arange(50_000, dtype=np.float32)})
PLAIN = {
    "README.md": b"# A model",
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "model.safetensors": WEIGHTS,
}
DINO = MODELS["dinov2-base"].repository


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    yield found
    found.close()


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "SHIC_")) and not key.lower().endswith("_proxy")
    }
    return {
        **kept,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }


@pytest.fixture
def models(environment: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """`models(*words)` runs `shic models` in a process of its own: its exit status, stdout and stderr."""

    def run(*words: str, **extra: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "shic_cli", "models", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment | extra, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_pull_takes_settings_and_safetensors_and_no_pickle(hub, models, tmp_path):
    bad = {
        "pytorch_model.bin": b"x",
        "model.pt": b"x",
        "onnx/model.onnx": b"x",
        "tf_model.h5": b"x",
        "model.py": b"x",
        "sub/config.json": b"{}",
    }
    hub.repositories[DINO] = {**PLAIN, **bad}
    status, out, err = models("pull", "dinov2-base", HF_TOKEN="hf_secret")
    assert (status, err.count("\n")) == (0, 2)  # what is fetched and what was written: stderr is no terminal
    assert "fetching 200 kB" in err and "free" in err and "hf_secret" not in err
    folder = Path(out.strip())
    assert sorted(each.name for each in folder.rglob("*")) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert folder.is_relative_to(tmp_path / "home") and hub.tokens == {"Bearer hf_secret"}
    assert models("path", "dinov2-base") == (0, out, "")
    hub.asked.clear()
    assert models("pull", "dinov2-base")[1] == out
    assert hub.fetched() == []


def test_pull_of_stable_diffusion_takes_the_parts_that_features_need_in_one_precision(hub, models, tmp_path):
    stems = {
        "unet": "diffusion_pytorch_model",
        "vae": "diffusion_pytorch_model",
        "text_encoder": "model",
        "safety_checker": "model",
    }
    weights = [
        f"{part}/{stem}{mark}.safetensors"
        for part, stem in stems.items()
        for mark in ("", ".fp16", ".non_ema")
    ]
    settings = [f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "safety_checker")]
    settings += [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
    ]
    others = [
        "v1-5-pruned.ckpt",
        "v1-5-pruned-emaonly.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.bin",
    ]
    hub.repositories[MODELS["sd15"].repository] = dict.fromkeys([*weights, *others], WEIGHTS) | dict.fromkeys(
        settings, b"{}"
    )
    status, out, _ = models("pull", "sd", "--weights", "w")
    assert (status, out) == (0, "w/sd15\n")
    halves = {f"{part}/{stem}.fp16.safetensors" for part, stem in stems.items() if part != "safety_checker"}
    expected = halves | {file for file in settings if "safety" not in file}
    assert set(hub.fetched()) == expected
    assert models("path", "sd", SHIC_WEIGHTS="w")[:2] == (0, "w/sd15\n")
    assert models("path", "sd")[0] == 3
    (tmp_path / "w/sd15/vae/diffusion_pytorch_model.fp16.safetensors").write_bytes(WEIGHTS[:1000])
    status, _, err = models("path", "sd", "--weights", "w")
    assert (
        status == 3 and "not finished" in err and "vae" in err and "shic models pull sd15 --weights w" in err
    )


def test_a_transfer_that_breaks_off_goes_on_from_there(hub, models):
    large = save(
        {"weight": np.random.default_rng(0).normal(size=3_000_000)}
    )  # more than the 10 MiB that are read at a time
    hub.repositories["a/b"], hub.faults["model.safetensors"] = {**PLAIN, "model.safetensors": large}, "once"
    status, out, err = models("pull", "a/b")
    assert (status, err.count("\n")) == (0, 2)
    assert (Path(out.strip()) / "model.safetensors").read_bytes() == large
    assert ("GET", "model.safetensors", f"bytes={10 << 20}-") in hub.asked


def test_a_pull_that_failed_is_not_taken_for_whole_and_goes_on_with_what_it_lacks(hub, models):
    hub.repositories["a/b"], hub.faults["model.safetensors"] = PLAIN, "fails"
    status, out, err = models("pull", "a/b")
    assert (
        (status, out) == (1, "")
        and "model.safetensors broke off (status 500)" in err
        and "same line again" in err
    )
    status, _, err = models("path", "a/b")
    assert status == 3 and "not finished" in err and "`shic models pull a/b`" in err
    hub.faults.clear()
    hub.asked.clear()
    assert models("pull", "a/b")[0] == 0
    assert hub.fetched() == ["model.safetensors"]


def test_a_pull_that_was_killed_leaves_nothing_that_looks_whole(hub, models, environment, tmp_path):
    hub.repositories["a/b"], hub.faults["model.safetensors"] = PLAIN, "stalls"
    command = [sys.executable, "-m", "shic_cli", "models", "pull", "a/b", "--weights", "w"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**environment, "HF_HUB_DOWNLOAD_TIMEOUT": "30"}, stderr=subprocess.DEVNULL
    ) as running:
        while "model.safetensors" not in hub.fetched():
            assert running.poll() is None
        running.kill()
    assert models("path", "a/b", "--weights", "w")[0] == 3
    hub.faults.clear()
    assert models("pull", "a/b", "--weights", "w")[:2] == (0, "w/a/b\n")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("gated", ("licence has to be accepted", "hf auth login", "HF_TOKEN")),
        ("private", ("there is no such repository", "check the name")),
        ("html", ("does not answer like a hub", "HF_ENDPOINT")),
        ("slow", ("does not answer (ReadTimeout", "HF_ENDPOINT")),
        ("huge", ("GB are needed, and", "make room")),
    ],
)
def test_what_the_hub_may_say_is_told_in_two_lines(hub, models, fault, words):
    hub.repositories["a/b"], hub.faults["a/b"] = PLAIN, fault
    status, out, err = models("pull", "a/b")
    assert (status, out, err.count("\n")) == (1, "", 2 if fault != "gated" else 3)
    assert err.splitlines()[-2].startswith("shic: error: a/b: ")
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "does not answer (ConnectError"),
    ],
)
def test_without_a_network_what_is_here_is_kept_and_the_rest_is_an_error(hub, models, extra, word):
    hub.repositories["a/b"] = PLAIN
    status, _, err = models("pull", "a/b", **extra)
    assert (status, err.count("\n")) == (1, 2) and word in err
    folder = models("pull", "a/b")[1]
    status, out, err = models("pull", "a/b", **extra)
    assert (status, out) == (0, folder) and "kept the copy" in err and word in err


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"config.json": b"{}", "pytorch_model.bin": b"x"},
            ("only pickles (pytorch_model.bin)", "converted copy"),
        ),
        ({"config.json": b"{}", "notes.txt": b"x"}, ("no weights that can be used",)),
        ({"model.safetensors": WEIGHTS}, ("no config.json",)),
        (
            {**PLAIN, "model.safetensors": b"not safetensors"},
            ("is damaged", "what the hub sent is not whole"),
        ),
    ],
)
def test_a_repository_that_can_not_be_used_is_named(hub, models, files, words):
    hub.repositories["a/b"] = files
    status, out, err = models("pull", "a/b")
    assert (status, out) == (1, "") and all(word in err for word in words), err


def test_an_unknown_name_suggests_the_nearest(shic):
    for line in (("models", "path", "dinov2-bse"), ("models", "pull", "dinov2-bse")):
        status, _, err = shic(*line)
        assert status == 2 and "did you mean dinov2-base?" in err


def test_every_name_is_checked_before_the_first_is_fetched(shic, monkeypatch):
    monkeypatch.setattr("shic_cli.parts.pull.pull", lambda *_, **__: pytest.fail("something was fetched"))
    status, _, err = shic("models", "pull", "dinov2-base", "dinov2-bse")
    assert status == 2 and "did you mean dinov2-base?" in err


def test_list_says_what_is_here(shic, tmp_path):
    folder = tmp_path / "w/dinov2-small"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(PLAIN[name])
    status, out, _ = shic("models", "list", "--weights", "w")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert status == 0 and list(rows) == ["NAME", *MODELS]
    assert rows["dinov2-small"].split()[1:4] == ["yes", "88", "MB"] and "Apache-2.0" in rows["dinov2-small"]
    assert "(to be accepted)" in rows["dinov3-base"]
    found = json.loads(shic("models", "list", "--weights", "w", "--json")[1])["models"]
    assert {each["name"]: each["folder"] for each in found}["dinov2-small"] == "w/dinov2-small"
    assert shic("models", "path", "dinov2-small", "--weights", "w")[:2] == (0, "w/dinov2-small\n")
