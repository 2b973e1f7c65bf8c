"""The README's commands are real, and it names every command and every field."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from shic_cli.cli import COMMANDS, group
from shic_cli.files.layouts import LABELS, LAYOUTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SCRIPTS = [README, *(path.read_text() for path in sorted(ROOT.glob("examples/*.sh")))]


def shell_lines() -> list[str]:
    """Every `shic …` command in code blocks and example scripts, without what is around it."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = [line for text in [*blocks, *SCRIPTS[1:]] for line in text.splitlines()]
    found = [re.search(r"(?:^|[|&]\s*|^#\s+)shic ([a-z].*)", line.split("  #")[0]) for line in lines]
    return [match.group(1).strip() for match in found if match]


@pytest.mark.parametrize("line", shell_lines())
def test_every_command_line_is_one_that_shic_takes(line):
    words = shlex.split(line.replace("$", ""), comments=True)
    context = click.Context(group)
    command: click.Command = group
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"shic {line}: there is no command {words[0]}"
        command, words = found, words[1:]
    command.make_context(
        command.name, words
    )  # raises for an option that is not there or a value that it does not take


def test_there_are_lines_to_check():
    assert len(shell_lines()) >= 8


def test_readme_names_every_command():
    table = re.findall(r"`shic ([a-z0-9-]+)", README)
    assert set(COMMANDS) == set(table)


def test_readme_names_every_kind_and_field():
    for kind, layout in LAYOUTS.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{kind}`"))
        assert all(f"`{name}`" in row for name in {**layout.fields, **layout.items})
    assert all(f"`{label}`" in README for label in LABELS)


def test_pictures_and_links_into_the_project_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_setting_has_a_help_text():
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        for each in command.commands.values() if isinstance(command, click.Group) else [command]:
            assert each.help, name
            assert all(option.help for option in each.params if isinstance(option, click.Option)), name
