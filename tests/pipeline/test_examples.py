"""The examples: the plugin is found by its entry point and works, and the script's lines are commands that
exist.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import safetensors.torch
import torch
import trimesh

from shic_cli.cli import SPLIT, group
from shic_cli.files.items import ItemReader
from shic_cli.files.photos import encode
from shic_cli.learning.model_file import load_model
from shic_cli.parts import registry

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What installing the example package leaves: its module on the path, and metadata with the entry points
    of its pyproject.
    """
    project = tomllib.loads((EXAMPLES / "plugin_extractor/pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
        for name, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    shutil.copy(EXAMPLES / "plugin_extractor/shic_box.py", info.parent)
    monkeypatch.syspath_prepend(info.parent)


def test_the_plugin_is_found_by_its_entry_point(plugin: None) -> None:
    assert "box" in registry.names("extractors")
    extractor = registry.make("extractors", "box")
    masks = torch.zeros(2, 1, 128, 128)
    masks[:, :, 20:100, 30:90] = 1
    features = extractor(torch.zeros(2, 3, 128, 128), masks)
    assert features.shape == (2, extractor.dim, 64, 64) and features.isfinite().all()
    assert (features[0, :, 20, 20] - features[0, :, 40, 40]).norm() > 0.5


def test_the_plugin_serves_a_command(
    plugin: None, shic: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 10:50] = True
    for folder, image in (
        ("imgs", np.full((40, 60, 3), 90, np.uint8)),
        ("masks", mask[..., None].repeat(3, -1) * np.uint8(255)),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(encode(image))
    status, _, err = shic("features", "imgs", "--extractor", "box", "-o", "box.h5")
    assert status == 0, err
    reader = ItemReader(tmp_path / "box.h5", "shic/features")
    assert reader.header.attrs["extractor"] == "box" and reader["a.png"].feature.shape == (6, 64, 64)


def test_the_plugin_is_the_one_of_the_contracts_page() -> None:
    page = (EXAMPLES.parent / "docs/contracts.md").read_text()
    for file in ("shic_box.py", "pyproject.toml"):
        assert (EXAMPLES / "plugin_extractor" / file).read_text() in page


def test_without_the_plugin_its_name_is_unknown(
    shic: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encode(np.zeros((20, 20, 3), np.uint8)))
    status, _, err = shic("features", "a.png", "--extractor", "box")
    assert status == 2 and "box" in err


def script_lines() -> list[str]:
    """Every shic line of the script, those in comments too."""
    text = (EXAMPLES / "own_class.sh").read_text()
    return [match.group(1) for match in re.finditer(r"^(?:#    )?(?:\[ .* \] \|\| )?(shic .*)$", text, re.M)]


@pytest.mark.parametrize("line", script_lines())
def test_the_scripts_lines_are_commands_with_those_options(line: str) -> None:
    command, words = group, shlex.split(line)[1:]
    context = click.Context(group)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
        assert command is not None
    command.make_context("shic", words)  # raises on an option or a value that the command does not know


def test_the_script_is_sound_and_says_how_it_is_used() -> None:
    assert len(script_lines()) >= 8
    subprocess.run(["bash", "-n", EXAMPLES / "own_class.sh"], check=True)
    said = subprocess.run(["bash", EXAMPLES / "own_class.sh"], capture_output=True, text=True)
    assert (
        said.returncode == 2
        and "MESH PHOTOS NEW_PHOTOS" in said.stderr
        and "NEW_PHOTOS  photos to try" in said.stderr
    )


@pytest.mark.parametrize("script", ["array.sh", "torchrun.sh"])
def test_the_lines_of_many_machines_are_commands(script: str, tmp_path: Path) -> None:
    """The scripts run with a `shic` and a `torchrun` that write down what they are asked."""
    for name in ("shic", "torchrun"):
        (tmp_path / name).write_text('#!/usr/bin/env bash\nprintf "%q " "$@" >> lines\necho >> lines\n')
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "3"}
    subprocess.run(["bash", EXAMPLES / "scale" / script], cwd=tmp_path, env=env, check=True)
    lines = (tmp_path / "lines").read_text().splitlines()
    assert len(lines) == (1 if script == "array.sh" else 4)
    for line in lines:
        words = shlex.split(line)
        if script == "torchrun.sh":
            assert words[:4] == ["--nproc-per-node", "8", "-m", "shic_cli"] and words[4] in SPLIT
            words = words[4:]
        group.get_command(click.Context(group), words[0]).make_context("shic", words[1:])


def test_dask_gives_the_file_of_one_process(shic: Callable[..., tuple[int, str, str]], folder: Path) -> None:
    """Three shares on two workers of this machine."""
    pytest.importorskip("distributed")
    words = ["synth", "--generator", "plain", "--number", "5", "--size", "48", "--device", "cpu"]
    script = EXAMPLES / "scale" / "dask_shards.py"
    done = subprocess.run(
        [sys.executable, script, "3", *words, "-o", "shared.h5"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert shic(*words, "-o", "alone.h5")[0] == 0
    assert (folder / "shared.h5").read_bytes() == (folder / "alone.h5").read_bytes()


def test_a_start_of_two_classes_is_made_and_gone_on_from(
    shic: Callable[..., tuple[int, str, str]], folder: Path, album: Path
) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        shutil.copy(album / "truth.h5", folder / name / "synth.h5")
        shutil.copy(folder / "template.h5", folder / name)
    for output, more in (("a.safetensors", ()), ("b.safetensors", ("--start", "a.safetensors"))):
        script = [sys.executable, EXAMPLES / "general_start.py", "one", "two", "-o", output, "--steps", "2"]
        done = subprocess.run([*script, *more], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0 and "2 " in done.stdout, done.stderr
    short = ("--encoder", "picture", "--epochs", "1", "--batch", "4", "--points", "30")
    assert shic("train", "one/synth.h5", *short, "--start", "b.safetensors")[0] == 0
    first, second = (safetensors.torch.load_file(folder / f"{name}.safetensors") for name in "ab")
    assert first.keys() == second.keys() and any((first[k] != second[k]).any() for k in first)
    assert all((first[k] - second[k]).abs().max() < 0.05 for k in first)  # two small steps apart


def test_ready_models_are_files_of_a_release(tmp_path: Path) -> None:
    """The script as it is, at a tiny size, with a `shic` that runs this package."""
    shim = tmp_path / "bin/shic"
    shim.parent.mkdir()
    shim.write_text(f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} -m shic_cli "$@"\n')
    shim.chmod(0o755)
    trimesh.creation.icosphere(subdivisions=3).apply_scale([0.5, 0.7, 1.3]).export(tmp_path / "egg.obj")
    small = {"PREP": "--vertices 300", "SYNTH": "--number 6 --size 64", "TRAIN": "--epochs 1"}
    found = {"PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLES.parent)}
    env = {**os.environ, **small, **found}
    words = ["bash", EXAMPLES / "ready_models.sh", "release", "egg=egg.obj"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    release = tmp_path / "release"
    assert {path.name for path in (release / "egg").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "picture.jpg",
    }  # fmt: skip
    assert len(load_model(release / "egg.safetensors").surface.verts) > 100
    assert "egg.safetensors" in (release / "SHA256SUMS").read_text()
    said = subprocess.run(words[:2], capture_output=True, text=True)
    assert said.returncode == 2 and "FOLDER NAME=MESH" in said.stderr
