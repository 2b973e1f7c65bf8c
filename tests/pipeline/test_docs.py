"""README.md and the pages of docs/: their commands are real, they name every command, kind and field, their
links lead somewhere, README's lines of Python run, and the site builds.
"""

from __future__ import annotations

import importlib.util
import itertools
import posixpath
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest

import shic_cli
from shic_cli import __version__
from shic_cli.base import result_settings, settings
from shic_cli.cli import COMMANDS, group
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import LABELS, LAYOUTS
from shic_cli.parts import registry

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in PAGES}
README = TEXTS["README.md"]
PACKAGE = Path(shic_cli.__file__).parent  # of the checkout, or of the wheel that a release is tested with


def in_the_project(path: str) -> Path:
    """Where the file `path` of the project is; those of the package may be installed elsewhere."""
    return PACKAGE / path.removeprefix("shic_cli/") if path.startswith("shic_cli/") else ROOT / path


def shell_lines() -> list[str]:
    """Every `shic …` command in code blocks and example scripts, without what is around it."""
    blocks = [block for text in TEXTS.values() for block in re.findall(r"```sh\n(.*?)```", text, re.S)]
    scripts = [path.read_text("utf-8") for path in sorted(ROOT.glob("examples/*.sh"))]
    lines = [line for text in [*blocks, *scripts] for line in text.splitlines()]
    found = [re.search(r"(?:^|[|&]\s*|^#\s+)shic ([a-z].*)", line.split("  #")[0]) for line in lines]
    return sorted({match.group(1).strip() for match in found if match})


def commands_in_prose() -> list[str]:
    """Every `shic …` in backticks."""
    prose = [re.sub(r"```.*?```", "", text, flags=re.S) for text in TEXTS.values()]
    return sorted(
        {" ".join(line.split()) for text in prose for line in re.findall(r"`shic ([a-z][^`]*)`", text)}
    )


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words that are left."""
    context = click.Context(group)
    command: click.Command = group
    while isinstance(command, click.Group) and words:
        inner = command.get_command(context, words[0])
        assert inner is not None, f"there is no command {words[0]}"
        command, words = inner, words[1:]
    return command, words


@pytest.mark.parametrize("line", shell_lines())
def test_every_command_line_is_one_that_shic_takes(line: str) -> None:
    command, words = find_command(shlex.split(line.replace("$", ""), comments=True))
    # raises for an option that is not there or a value that it does not take
    command.make_context(command.name, words)


@pytest.mark.parametrize("line", commands_in_prose())
def test_every_command_in_prose_has_its_options(line: str) -> None:
    command, words = find_command(line.split())
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= options | {"--help"}, line


def test_there_are_lines_to_check() -> None:
    assert len(shell_lines()) >= 40 and len(commands_in_prose()) >= 20


def test_the_pages_written_by_hand_name_every_command() -> None:
    used = {line.split()[0] for line in [*shell_lines(), *commands_in_prose()]}
    assert used >= set(COMMANDS), set(COMMANDS) - used


def test_the_help_has_the_lines_of_the_readme() -> None:
    block = README.partition("## Your own class")[2].partition("```sh\n")[2].partition("```")[0]
    help = re.findall(r"^    (shic .*?)  +#", group.help or "", re.M)
    own = [re.sub(r"  +#.*", "", line).strip() for line in block.splitlines()]
    assert [line.split()[1] for line in help] == [line.split()[1] for line in own] and "shic synth" in help


def test_the_files_page_names_every_kind_and_label() -> None:
    page = TEXTS["docs/concepts/files.md"]
    assert all(f"| `{kind}` |" in page for kind in LAYOUTS) and all(f"`{label}`" in page for label in LABELS)


def test_pictures_and_links_into_the_project_exist() -> None:
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
            path, _, anchor = target.partition("#")
            if target.startswith("https://"):
                continue
            file = in_the_project(
                posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            )
            assert file.exists(), f"{name}: {target}"
            if anchor and "<!-- made from" not in (written := file.read_text("utf-8")):
                headings = re.findall(r"^#+ (.*)$", written, re.M)
                slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
                assert anchor in slugs, f"{name}: {target}"


def test_files_of_the_project_that_pages_name_exist() -> None:
    for name, text in TEXTS.items():
        for path in re.findall(r"`((?:examples|tests|docs|shic_cli|\.github)/[\w./-]*)`", text):
            assert in_the_project(path).exists(), f"{name}: {path}"
    promises = re.findall(r"`(test_\w+\.py)`", TEXTS["docs/results/promises.md"])
    assert len(promises) > 15 and all(list(ROOT.glob(f"tests/**/{test}")) for test in promises)


def test_the_listed_breaks_fit_the_code_and_cover_the_promises() -> None:
    """Of tests/mutants.toml, which tests/mutation.py runs: every heading has some, and names their tests."""
    listed, page = tomllib.loads((ROOT / "tests/mutants.toml").read_text()), TEXTS["docs/results/promises.md"]
    for each in listed["named"] + listed["equivalent"]:
        lines = (PACKAGE / each["file"]).read_text("utf-8")
        assert lines.count(each["old"]) == 1 or ("why" in each and each["old"] in lines), each
    broken = [each for each in listed["named"] if "promise" in each]
    headings = re.findall(r"^## (.*)$", page.partition("\n## Shown to fail\n")[0], re.M)
    assert {each["promise"] for each in broken} == set(headings)
    assert str(len(broken)) in page
    for each in broken:
        assert all(Path(test.partition("::")[0]).name in page for test in each["tests"].split()), each


def test_every_setting_has_a_help_text() -> None:
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        for each in command.commands.values() if isinstance(command, click.Group) else [command]:
            assert each.help, name
            assert all(option.help for option in each.params if isinstance(option, click.Option)), name


def test_the_readme_is_short() -> None:
    """One and a half screens; the bars of its tables are no words."""
    assert len(README.splitlines()) <= 110
    assert len([word for word in README.split() if re.search(r"[A-Za-z0-9]", word)]) <= 700


SAME_WORDS = 8  # that stand in a row on two pages, with a figure among them: a sentence that was copied


def repeated(texts: dict[str, str]) -> list[str]:
    """What stands on two of the pages `texts`: rows of decimal figures, and sentences with figures."""
    homes: dict[object, str] = {}
    found = []
    for name, text in texts.items():
        rows = [row for line in text.splitlines() if (row := line.strip()).startswith("|")]
        facts: list[object] = [row for row in rows if re.search(r"\d\.\d", row)]
        prose = re.sub(r"```.*?```|\]\([^)]*\)", " ", text, flags=re.S)
        words = re.findall(r"[\w.]*\w", prose)
        runs = [tuple(words[i : i + SAME_WORDS]) for i in range(len(words) - SAME_WORDS + 1)]
        facts += [run for run in runs if re.search(r"\d", "".join(run))]
        found += [f"{fact} is in {homes[fact]} and in {name}" for fact in facts if fact in homes]
        homes.update(dict.fromkeys(facts, name))
    return found


def test_no_figure_is_in_two_places() -> None:
    texts = TEXTS | {str(path): path.read_text("utf-8") for path in ROOT.glob("examples/*/*.md")}
    assert repeated(texts) == []
    row = re.findall(r"^\| horse .*", README, re.M)[0]
    sentence = re.findall(r"\*\*On real photos.*", README)[0]
    for copied in (row, sentence):  # what it is to find, it finds
        assert repeated(texts | {"docs/tutorial.md": f"{TEXTS['docs/tutorial.md']}\n\n{copied}\n"})


def test_the_readmes_figures_of_real_photos_are_those_of_the_results() -> None:
    """Means over seeds, and each of them, or one seed, which a table with many rows has."""
    table = TEXTS["docs/results/accuracy.md"].replace("*", "")
    told = README.partition("**On real photos")[2].partition("\n## ")[0]
    means = re.findall(r"(\d+\.\d+)\s\((\d+\.\d+(?:, \d+\.\d+)+)\)", told)
    single = re.findall(r"\b(0\.\d+)\b", told)
    assert len(means) == len(single) == 2
    seeds = [(float(mean), each.split(", ")) for mean, each in means]
    assert all(abs(mean - sum(map(float, each)) / len(each)) < 0.06 for mean, each in seeds)
    assert all(f"| {seed} (" in table for _, each in seeds for seed in [*each, *single])


def test_a_release_has_whole_addresses(tmp_path: Path) -> None:
    """The package's page shows README.md away from the repository."""
    if "](docs/tutorial.md)" not in README:
        pytest.skip("these files are of a release, and have them already")
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    home = "https://example.org/owner/shic"
    program = str(ROOT / ".github/addresses.py")
    subprocess.run([sys.executable, program, home, "v1.2.3"], cwd=tmp_path, check=True)
    written = (tmp_path / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", written, flags=re.S))
    assert len(targets) > 20 and all(target.startswith("https://") for target in targets)
    assert f"({home}/raw/v1.2.3/examples/demo.jpg)" in written
    assert f"({home}/blob/v1.2.3/docs/tutorial.md)" in written
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["urls"]["Issues"] == f"{home}/issues" and project["scripts"] and project["dependencies"]


def test_the_versions_agree() -> None:
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"{{{__version__}}}" in TEXTS["docs/citing.md"]
    assert re.search(rf"^## {re.escape(__version__)} ", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)


# README's lines of Python


def test_the_lines_of_python_run_and_give_the_commands_numbers(
    album: Path,
    small_model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shic: Callable[..., tuple[int, str, str]],
) -> None:
    folder = small_model_file.parent
    for kind, (photo, name) in itertools.product(("imgs", "masks"), (("photo0", "a"), ("photo1", "b"))):
        (folder / kind).mkdir(exist_ok=True)
        shutil.copy(album / kind / f"{photo}.png", folder / kind / f"{name}.png")
    shutil.copy(album / "truth.h5", folder / "pgt.h5")
    monkeypatch.chdir(folder)
    lines = re.findall(r"```python\n(.*?)```", README, re.S)[0]
    names: dict[str, Any] = {}
    exec(lines, names)
    assert names["a"].vertex.shape == names["a"].rgb.shape[:2] and (folder / "a.colors.png").is_file()
    assert len(names["matches"].a) == len(names["matches"].b) == 20
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in printed] == ItemReader(folder / "pgt.h5", "shic/maps").names
    assert shic("predict", "imgs/a.png", "imgs/b.png", "-o", "all.maps.h5", "--device", "cpu")[0] == 0
    for item in ItemReader(folder / "all.maps.h5", "shic/maps"):
        found = names[item.name.removesuffix(".png")]
        assert np.array_equal(found.vertex, item.vertex)
        assert np.array_equal(found.score.astype(np.float16), item.score)
        assert np.array_equal(found.uncertainty, item.uncertainty)


# The site


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_command_option_and_setting(hooks: ModuleType) -> None:
    page = hooks.commands()
    for name, command in hooks.leaves():
        section = page.partition(f"## shic {name}\n")[2].partition("\n## shic")[0]
        rows = [option for option in command.params if isinstance(option, click.Option)]
        assert rows and section.count("\n| `") == len(rows), name
        assert all(option.opts[-1] in section for option in rows), name
    assert "| `--vertices INTEGER` | 5000 | Simplify or subdivide" in page and "(from 0)" in page
    named = [*vars(settings).values(), *vars(result_settings).values()]
    configs = [value for value in named if hasattr(value, "__dataclass_fields__")]
    for each in [field for config in configs for field in config.__dataclass_fields__.values()]:
        option = each.metadata["flag"] or each.name.replace("_", "-")
        assert f"--{option}" in page, f"{each.name} is in no table"


def test_the_reference_has_every_part_with_its_options(hooks: ModuleType) -> None:
    page = hooks.parts()
    assert all(f"| `{name}` | " in page for parts in registry.PARTS.values() for name in parts)
    assert "`layer=" in page and "device=" not in page


def test_the_reference_has_every_kind_and_field(hooks: ModuleType) -> None:
    page = hooks.kinds()
    for kind, layout in LAYOUTS.items():
        section = page.partition(f"## `{kind}`")[2].partition("\n## ")[0]
        assert all(f"| `{name}` |" in section for name in {**layout.fields, **layout.items}), kind
        assert all(f"`{name}`" in section for name in layout.attrs), kind


@pytest.mark.parametrize(
    ("page", "link", "leads_to"),
    [
        ("index.md", "[a](docs/how-to/masks.md#x)", "[a](how-to/masks.md#x)"),
        ("index.md", "![a](examples/demo.jpg)", "![a](examples/demo.jpg)"),
        ("results/paper.md", "[a](../../examples/paper/README.md)", "[a](../project/paper.md)"),
        ("results/accuracy.md", "[a](../../README.md)", "[a](../index.md)"),
        ("project/contributing.md", "[a.py](shic_cli/a.py)", "a.py"),
        ("citing.md", "[a](https://example.org/x)", "[a](https://example.org/x)"),
    ],
)
def test_links_lead_through_the_site(hooks: ModuleType, page: str, link: str, leads_to: str) -> None:
    assert hooks.relink(link, page) == leads_to


def test_the_site_builds_and_shows_everything_once(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the package mkdocs is not installed (pip install -e '.[docs]')")
    pytest.importorskip("mkdocstrings_handlers.python", reason="mkdocstrings is not installed")
    words = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    start = (tmp_path / "site/index.html").read_text("utf-8")
    assert "examples/demo.jpg" in start and (tmp_path / "site/examples/demo.jpg").is_file()
    commands = (tmp_path / "site/reference/commands/index.html").read_text("utf-8")
    assert '<h2 id="shic-template-prep">' in commands and "<!-- made from" not in commands
    python = (tmp_path / "site/reference/api/index.html").read_text("utf-8")
    assert all(
        f'id="shic_cli.stages.model.{name}"' in python for name in ("load", "Model.predict", "Map.points")
    )
