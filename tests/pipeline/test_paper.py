"""The scripts of examples/paper: each runs on a tiny data set, keeps what is done, and takes nothing that
other settings made.
"""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest

from shic_cli.cli import group, main
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.parts import registry

FOLDER = Path(__file__).parents[2] / "examples/paper"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[tf][ai]*.py") if path.stem != "tables")


@pytest.fixture(scope="module")
def data(album: Path, small_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of rigged: one class, three photos, ten annotated points a photo."""
    folder = tmp_path_factory.mktemp("rigged") / "beast"
    for split, (source, target) in itertools.product(
        ("train", "val"), (("imgs", "images"), ("masks", "masks"))
    ):
        (folder / split / target).mkdir(parents=True)
        for i in range(3):
            shutil.copy(album / source / f"photo{i}.png", folder / split / target)
    verts = "".join("v {} {} {}\n".format(*vert) for vert in small_template.verts.tolist())
    faces = "".join("f {} {} {}\n".format(*(face + 1)) for face in small_template.faces)
    (folder / "beast.obj").write_text(verts + faces)
    images, annotations, random = [], [], np.random.default_rng(0)
    for i, item in zip(range(3), ItemReader(album / "truth.h5", "shic/maps"), strict=False):
        height, width = item.mask.shape
        inside = np.argwhere(item.mask)
        yx = inside[random.choice(len(inside), 10, replace=False)]
        points = {
            "dp_x": (yx[:, 1] + 0.5).tolist(),
            "dp_y": (yx[:, 0] + 0.5).tolist(),
            "dp_vertex": item.vertex[tuple(yx.T)].tolist(),
        }
        images.append({"id": i, "file_name": f"photo{i}.png", "width": width, "height": height})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 255, 255], **points})
    found = {"images": images, "categories": [{"id": 1, "name": "beast"}], "annotations": annotations}
    (folder / "val/annotations.json").write_text(json.dumps(found))
    return folder.parent


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scripts write: one folder, so that they share what they can."""
    return tmp_path_factory.mktemp("paper")


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[list[list[str]]]:
    """The command lines that the scripts give, which run in this process: starting many takes long."""
    monkeypatch.syspath_prepend(FOLDER)
    lines: list[list[str]] = []

    def call(words: list[str]) -> tuple[int, str]:
        lines.append(words)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        if ended.value.code:
            sys.stderr.write(err)
        return ended.value.code or 0, out

    monkeypatch.setattr(load("common"), "call", call)
    yield lines
    for name in ("common", "tables", *SCRIPTS):
        sys.modules.pop(name, None)


def load(name: str) -> ModuleType:
    """A module of the folder."""
    return importlib.import_module(name)


@pytest.fixture
def run(
    called: list[list[str]], data: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """`run(script, *words)` runs a script on the tiny data set; the Markdown that it writes."""

    def start(script: str, *words: str) -> str:
        given = (
            "--dataset",
            "rigged",
            "--data",
            str(data),
            "-o",
            str(output),
            "--classes",
            "beast",
            "--quick",
            *words,
        )
        monkeypatch.setattr(sys, "argv", [script, *given])
        load(script).main()
        return max(output.glob(f"{script}*-rigged.md"), key=lambda path: path.stat().st_mtime_ns).read_text()

    return start


def cells(page: str) -> list[list[str]]:
    """The rows of the first table."""
    lines = itertools.takewhile(lambda line: line.startswith("|"), page.splitlines()[2:])
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_every_table_and_figure_has_a_script() -> None:
    assert sorted(SCRIPTS) == sorted(
        [*(f"table{i}" for i in range(1, 7)), *(f"figure{i}" for i in (1, 3, 6, 7, 10))]
    )


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name.startswith("table")])
def test_a_table_has_the_papers_figure_beside_ours(
    script: str, run: Callable[..., str], called: list[list[str]], output: Path
) -> None:
    page = run(script, "--seeds", "0")
    head, _, *rows = cells(page)
    assert head[:3] == ["", "paper", "beast"] and len(rows) >= 3
    assert any(re.match(r"\d", row[1]) for row in rows) and any(re.match(r"\d", row[2]) for row in rows)
    assert "--epochs 1" in page and "seeds 0." in page
    before = len(called)
    assert run(script, "--seeds", "0") == page
    assert len(called) == before, "what is finished was done again"


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name.startswith("figure")])
def test_a_figure_has_its_pictures(script: str, run: Callable[..., str], output: Path) -> None:
    pictures = re.findall(r"!\[\]\((.*?)\)", run(script, "--seeds", "0"))
    assert pictures and all((output / path).is_file() for path in pictures)
    assert any("beast" in path and Path(path).suffix == ".png" for path in pictures)


def test_seeds_give_an_interval_and_a_paired_change(run: Callable[..., str], output: Path) -> None:
    rows = cells(run("table6", "--seeds", "0,1"))
    assert rows[0] == ["", "paper", "beast", "against all 3 photos", "left-right"]
    assert [row[0] for row in rows[2:]] == ["1 photos", "2 photos", "all 3 photos"]
    assert "±" in rows[2][2] and "±" in rows[2][3] and rows[4][3] == ""
    scores = [
        json.loads((output / f"rigged/quick/beast/runs/photos-2-{seed}/score.json").read_text())["mean"]
        for seed in (0, 1)
    ]
    assert rows[3][2].startswith(f"{sum(scores) / 2:.1f} ")
    lists = [(output / f"rigged/quick/beast/pgt-train-2-{seed}.txt").read_text() for seed in (0, 1)]
    assert lists[0] != lists[1] and len(lists[0].split()) == 2, "each seed draws its own photos"


def test_the_interval_is_students(called: list[list[str]]) -> None:
    interval = load("tables").interval
    assert interval([2.0]) == "2.0"
    assert interval([1.0, 2.0, 3.0]) == "2.0 ± 2.5"  # 4.303 / sqrt(3)


def test_the_table_of_one_seed_against_another_row(called: list[list[str]]) -> None:
    tables = load("tables")
    scores = [{"mean": value, "left_right": 0.25} for value in (10.0, 12.0, 20.0, 21.0)]
    base = tables.Row("base", "9", {"a": scores[:2], "b": scores[2:]})
    other = tables.Row("other", "", {"a": scores[1:2] * 2, "b": scores[2:]})
    rows = cells(
        "# title\n\n"
        + tables.table([base, other, tables.Row("none", "", note="why")], ["a", "b"], against=base)
    )
    assert rows[0] == ["", "paper", "a", "b", "average", "against base", "left-right"]
    assert rows[3][4].startswith("16.2 ") and rows[3][5].startswith("0.5 ±") and rows[3][6] == "25.0 %"
    assert rows[4][:3] == ["none", "–", "why"]


def test_extra_options_are_trains_and_are_not_mixed_with_others(
    run: Callable[..., str], output: Path
) -> None:
    run("table5", "--seeds", "3", "--", "--dim", "4")
    model = output / "rigged/quick/beast/runs/all-3/model.safetensors"
    assert json.loads((model.parent / "model.safetensors.command").read_text())[-4:-2] == ["--dim", "4"]
    with pytest.raises(SystemExit, match="made by other settings"):
        run("table5", "--seeds", "3")


def test_table_2_on_the_published_data(
    called: list[list[str]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders that `shic dataset densepose-lvis` writes, and PF-PASCAL's csv with the number of
    a class.
    """
    for old, new in (("train", "ds2_train"), ("val", "ds2_val")):
        shutil.copytree(data / "beast" / old, tmp_path / "lvis/cow" / new)
        (tmp_path / "lvis/cow" / new / "images").rename(tmp_path / "lvis/cow" / new / "imgs")
    shutil.copy(data / "beast/beast.obj", tmp_path / "lvis/cow/cow.obj")
    for old, new in (("images", "JPEGImages"), ("masks", "masks")):
        shutil.copytree(data / "beast/val" / old, tmp_path / "pascal" / new)
    rows = [
        "JPEGImages/photo0.png,JPEGImages/photo1.png,10,40;50,40;50,40;50,40;50",
        "JPEGImages/x.png,JPEGImages/y.png,13,1,1,1,1",
    ]
    heading = "source_image,target_image,class,XA,YA,XB,YB"
    (tmp_path / "pascal/test_pairs_pf_pascal.csv").write_text("\n".join([heading, *rows]) + "\n")
    line = [
        "table2",
        "--data",
        "lvis",
        "--pf-pascal",
        "pascal",
        "-o",
        "out",
        "--classes",
        "cow",
        "--seeds",
        "0",
        "--quick",
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", line)
    load("table2").main()
    page = cells((tmp_path / "out/table2-densepose-lvis.md").read_text())
    assert page[0] == ["", "paper", "cow"] and [row[1] for row in page[2:]] == [
        "–",
        "–",
        "61.2",
        "70.0",
        "–",
        "–",
    ]
    listed = (tmp_path / "out/densepose-lvis/quick/cow/pascal.txt").read_text().split()
    assert [Path(path).name for path in listed] == ["photo0.png", "photo1.png"], (
        "the photos of this class alone"
    )
    score = json.loads(
        (tmp_path / "out/densepose-lvis/quick/cow/runs/trained-0/pck-template.json").read_text()
    )
    assert score["pairs"] == 1 and score["keypoints"] == 2 and page[5][2] == f"{100 * score['pck']:.1f}"


def test_a_command_that_fails_ends_the_script(run: Callable[..., str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("table5", "--seeds", "4", "--", "--dim", "-1")
    assert ended.value.code == 2


def test_the_style_of_renders_is_compared_where_the_extractor_sees_it(run: Callable[..., str]) -> None:
    rows = cells(run("table5", "--seeds", "0"))
    assert "same by construction" in rows[3][2] and "not measured" in rows[4][2]


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "name the data's folder"), (("--data", "{data}", "--classes", "cat"), "no such folder")],
)
def test_wrong_usage_is_status_2_with_a_message(
    words: tuple[str, ...], said: str, data: Path, tmp_path: Path
) -> None:
    line = [
        sys.executable,
        FOLDER / "table3.py",
        "--dataset",
        "rigged",
        *(word.format(data=data) for word in words),
    ]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 2 and said in done.stderr and not list(tmp_path.iterdir())


def test_the_readme_names_every_script_and_they_know_the_command_line_alone() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert all(f"`{name}.py`" in readme for name in SCRIPTS)
    for path in FOLDER.glob("*.py"):
        assert not re.search(r"^(?:from|import) shic_cli", path.read_text(), re.M), (
            f"{path.name} knows more than the command line"
        )


def lines_of_the_readme() -> list[str]:
    """The `shic ...` lines of the folder's README."""
    return re.findall(r"^shic (.*)$", (FOLDER / "README.md").read_text(), re.M)


def check_line(words: list[str]) -> None:
    """Raises if there is no such command, option or value."""
    command, context = group, click.Context(group)
    while isinstance(command, click.Group):
        command, words = command.get_command(context, words[0]), words[1:]
        assert command is not None
    command.make_context("shic", words)


@pytest.mark.parametrize("line", lines_of_the_readme())
def test_the_readmes_lines_are_commands(line: str) -> None:
    check_line(shlex.split(line))


@pytest.mark.parametrize("name", ["PAPER", "WITHOUT_WEIGHTS", "SMALL"])
def test_the_recipes_are_options_that_the_commands_have(name: str, called: list[list[str]]) -> None:
    recipe = getattr(load("common"), name)
    check_line(["template", "prep", "a.obj", *recipe.template])
    check_line(["pseudo-gt", "imgs", *recipe.pseudo_gt])
    check_line(["train", *recipe.train])
    if name == "PAPER" and "controlnet-depth" not in registry.names("generators"):
        pytest.skip("this version has no generator controlnet-depth")
    check_line(["synth", *recipe.synth])


def test_figures_are_of_the_paper() -> None:
    paper: dict[str, Any] = {
        "table3": ("24.9", "26.6", "25.6", "33.8", "65.8"),
        "table5": ("25.2", "25.4"),
        "table6": ("34.7", "29.8", "22.3"),
    }
    for name, figures in paper.items():
        assert all(
            figure in (FOLDER / f"{name}.py").read_text() + (FOLDER / "tables.py").read_text()
            for figure in figures
        )
