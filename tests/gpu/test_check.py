"""tests/gpu/check.sh as whoever has a GPU runs it, at tiny sizes on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import trimesh

from shic_cli.files.layouts import Template

SCRIPT = Path(__file__).with_name("check.sh")


@pytest.fixture
def data(album: Path, small_template: Template, tmp_path: Path) -> Path:
    """A class's folder of a mesh, three photos to learn from and three to predict."""
    where = tmp_path / "animal"
    for split, numbers in (("train", range(3)), ("val", range(3, 6))):
        for name, folder in (("imgs", "images"), ("masks", "masks")):
            (where / split / folder).mkdir(parents=True)
            for i in numbers:
                shutil.copy(album / name / f"photo{i}.png", where / split / folder)
    trimesh.Trimesh(small_template.verts, small_template.faces, process=False).export(where / "animal.obj")
    return where


def run(folder: Path, *words: str | Path) -> tuple[int, str, dict]:
    """Status, stdout and check.json of the script at tiny sizes."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    line = ["bash", str(SCRIPT), "--tiny", "--pictures", "6", "-o", "out", *map(str, words)]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, json.loads((folder / "out/check.json").read_text())


def test_the_pipeline_is_measured_and_goes_on_after_a_failure(data: Path, tmp_path: Path) -> None:
    """Seconds and memory of every stage; what was done before a failure is kept and not done again."""
    photos = (data / "val/images").rename(data / "val/elsewhere")
    status, _, told = run(tmp_path, "--data", data, "--only", "facts", "pipeline")
    assert status == 1 and told["facts"]["state"] == "done" and told["facts"]["device"] == "cpu"
    assert told["pipeline"]["state"] == "failed" and "val/images" in told["pipeline"]["fault"]
    before = told["pipeline"]["stages"]
    assert list(before) == ["template", "render", "pseudo-gt", "synth", "train"]
    photos.rename(data / "val/images")
    status, table, told = run(tmp_path, "--data", data, "--only", "facts", "pipeline")
    found = told["pipeline"]["stages"]
    assert told["pipeline"]["state"] == "done" and list(found) == [*before, "predict"]
    assert {name: found[name] for name in before} == before
    assert all(stage["seconds"] > 0 and 0.05 < stage["memory"] < 100 for stage in found.values())
    assert status == 1  # tests, benchmarks and models are left
    assert table.count("\n| the default pipeline: `") == 6 and "| what | goal | cpu |" in table


def test_a_wheel_in_pieces_is_installed_and_a_damaged_one_costs_no_other_part(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    whole = wheels / "carried_part-1.0-py3-none-any.whl"
    with zipfile.ZipFile(whole, "w") as file:
        info = "carried_part-1.0.dist-info"
        file.writestr("carried_part.py", "VALUE = 3\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carried-part\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    content = whole.read_bytes()
    whole.unlink()
    (wheels / f"{whole.name}.aa").write_bytes(content[:100])
    _, _, told = run(tmp_path, "--wheels", wheels, "--only", "install", "facts")
    assert told["install"]["state"] == "failed" and told["facts"]["state"] == "done"
    (wheels / f"{whole.name}.ab").write_bytes(content[100:])
    _, _, told = run(tmp_path, "--wheels", wheels, "--only", "install")
    assert told["install"]["state"] == "done" and told["install"]["wheels"] == [whole.name]
    assert (tmp_path / "out/site/carried_part.py").read_text() == "VALUE = 3\n"


def test_rows_that_tests_measured_are_kept_and_nothing_starts_when_time_is_over(tmp_path: Path) -> None:
    status, table, told = run(tmp_path, "--only", "models")
    assert told["models"]["state"] == "done" and told["models"]["tests"] == 3, told["models"].get("fault")
    assert "| extractor[sd-dino]: " in table and "| painting: " in table
    status, _, told = run(tmp_path, "--only", "facts", "--minutes", "0")
    assert status == 1 and "facts" not in told
