"""What `mkdocs build` takes from elsewhere: README.md and other pages of the project, and the reference.

The reference is made from the commands, the settings, the parts and the layouts themselves.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import click

from shic_cli.base import result_settings, settings, training_settings
from shic_cli.cli import COMMANDS, group
from shic_cli.files.layouts import LAYOUTS, Field
from shic_cli.parts import registry

ROOT = Path(__file__).parents[1]
# Page of the site -> the file of the project that it shows.
PROJECT = {
    "index.md": "README.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/changes.md": "CHANGELOG.md",
    "project/paper.md": "examples/paper/README.md",
    "project/scale.md": "examples/scale/README.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


# What mkdocs calls


def on_files(files: Any, config: Any) -> Any:
    """The site's files, with the pages of PROJECT and the pictures that they show."""
    from mkdocs.structure.files import File

    for page, name in PROJECT.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for picture in sorted((ROOT / "examples").glob("*.jpg")):
        files.append(File.generated(config, f"examples/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text with the generated tables in place of their markers, and links that lead to pages."""
    name = page.file.src_uri
    for marker, make in REFERENCE.items():
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return relink(markdown, name)


def relink(markdown: str, page: str) -> str:
    """`markdown` with its links, which lead through the repository, leading through the site from `page`.

    A link to a file that is on no page becomes plain text.
    """
    pages = {source: target for target, source in PROJECT.items()}
    folder = posixpath.dirname(PROJECT.get(page, f"docs/{page}"))

    def lead(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        place = posixpath.normpath(posixpath.join(folder, path))
        place = pages.get(place) or pages.get(f"{place}/README.md") or place.removeprefix("docs/")
        if not place.endswith(".md") and not picture:
            return text
        there = posixpath.relpath(place, posixpath.dirname(page) or ".")
        return f"{picture}[{text}]({there}{'#' + anchor if anchor else ''})"

    return LINK.sub(lead, markdown)


# The reference


def commands() -> str:
    """Every command with its usage, its help and a table of its options."""
    return "\n".join(_command(name, command) for name, command in leaves())


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, as (`template prep`, command), in the order of the pipeline."""
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from ((f"{name} {part}", command.commands[part]) for part in command.commands)
        else:
            yield name, command


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"shic {name}", max_content_width=100)
    usage = " ".join(command.collect_usage_pieces(context))
    rows = [_option(each, context) for each in command.params if isinstance(each, click.Option)]
    head = "| option | default | meaning |\n|---|---|---|"
    return "\n".join(
        [
            f"## shic {name}\n",
            f"```text\nshic {name} {usage}\n```\n",
            _prose(command.help or ""),
            head,
            *rows,
            "",
        ]
    )


def _prose(help: str) -> str:
    """A help text as Markdown: what click leaves as it is typed (`\\b`) becomes a block."""
    paragraphs = inspect.cleandoc(help).split("\n\n")
    return (
        "\n\n".join(
            f"```text\n{text.removeprefix(chr(8)).strip(chr(10))}\n```"
            if text.startswith("\b")
            else _plain(text)
            for text in paragraphs
        )
        + "\n"
    )


def _option(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None
    names = record[0].replace("-h, --help", "--help")
    shown = re.search(r"\[(?:env var: \w+; )?default: (.*?)(?:; [^]]*)?\]\s*$", record[1])
    own = re.search(r"\s*\[default: (.*)\]", option.help or "")  # a default that the help says in words
    default = own[1] if own else shown[1].removeprefix("(").removesuffix(")") if shown else ""
    meaning = re.sub(r"\s*\[default: .*\]", "", option.help or "")
    limits = _limits().get((option.name, option.help), "")
    return f"| `{names}` | {_plain(default)} | {_plain(meaning)}{' ' + limits if limits else ''} |"


def _limits() -> dict[tuple[str | None, str | None], str]:
    """(field, help) of every setting with a range -> the range in words."""
    limits: dict[tuple[str | None, str | None], str] = {}
    for config in (
        value for each in (settings, training_settings, result_settings) for value in vars(each).values()
    ):
        for each in fields(config) if is_dataclass(config) else ():
            low, high = each.metadata["low"], each.metadata["high"]
            if low is not None or high is not None:
                words = f"from {low}" if high is None else f"to {high}" if low is None else f"{low} to {high}"
                limits[each.name, each.metadata["help"]] = f"({words})"
    return limits


def _plain(text: str) -> str:
    """`text` on one line, without what Markdown or HTML would read in it; code stays code."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        piece if i % 2 else re.sub(r"([*_\[\]|<>])", r"\\\1", piece) for i, piece in enumerate(pieces)
    )


def parts() -> str:
    """A table for each kind of part: names, what they are, and their options with defaults."""
    return "\n".join(_parts(kind) for kind in registry.PARTS)


def _parts(kind: str) -> str:
    rows = [
        f"## {kind.capitalize()}\n",
        "| name | what it is | options and their defaults |",
        "|---|---|---|",
    ]
    for name in registry.PARTS[kind]:
        part = registry.find(kind, name)
        taken = inspect.signature(part).parameters.values()
        options = [
            f"`{each.name}={_value(each.default)}`"
            for each in taken
            if each.kind is each.KEYWORD_ONLY
            and each.default is not each.empty
            and each.name not in (*registry.GIVEN, "config")
        ]
        first = inspect.cleandoc(part.__doc__ or "").split("\n\n")[0]
        rows.append(f"| `{name}` | {_plain(first)} | {', '.join(options)} |")
    return "\n".join([*rows, ""])


def _value(default: Any) -> str:
    """A default as the user types it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "/".join(map(str, default)) if isinstance(default, tuple) else str(default)


def kinds() -> str:
    """A table for each kind of HDF5 file: every data set and the attributes that it adds."""
    pages = []
    for kind, layout in LAYOUTS.items():
        pages += [f"## `{kind}`\n", f"`{layout.maker}` makes it."]
        pages += [f"Its own attributes: {', '.join(f'`{name}`' for name in layout.attrs)}.\n"]
        pages += _fields("data set", layout.fields) + _fields("data set of each image", layout.items)
    return "\n".join(pages)


def _fields(heading: str, layout: dict[str, Field]) -> list[str]:
    if not layout:
        return []
    rows = [f"| {heading} | type | axes | what it holds |", "|---|---|---|---|"]
    for name, each in layout.items():
        axes, doc = ", ".join(map(str, each.axes)), _plain(each.doc) + " (optional)" * each.optional
        rows.append(f"| `{name}` | {each.dtype} | {axes} | {doc} |")
    return [*rows, ""]


def results() -> str:
    """The table of results, which README.md alone holds."""
    return re.findall(r"<!-- results -->\n(.*?)<!-- end -->", (ROOT / "README.md").read_text("utf-8"), re.S)[
        0
    ]


REFERENCE = {
    "<!-- made from the commands -->": commands,
    "<!-- made from the parts -->": parts,
    "<!-- made from the layouts -->": kinds,
    "<!-- the table of README.md -->": results,
}
