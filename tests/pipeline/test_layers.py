"""The package keeps its layers, types and style: the tests run the checks of pre-commit and CI."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def program(name: str) -> str:
    """The path of a tool of this environment, or one on PATH; without either the test is skipped."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: pip install 'shic[test]'")
    return path


def passes(*words: str, cwd: Path = ROOT) -> None:
    result = subprocess.run([program(words[0]), *words[1:]], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_room_imports_from_a_room_above_it():
    passes("lint-imports", "--no-cache")


def test_types_agree():
    passes("pyright", "--pythonpath", sys.executable)


@pytest.mark.parametrize(
    "words", [("check", "--no-cache"), ("format", "--check", "--no-cache")], ids=" ".join
)
def test_style_is_kept(words: tuple[str, ...]):
    passes("ruff", *words)


def test_type_information_is_packaged():
    """Type checkers read the types of an installed package only if it has a file py.typed."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert (ROOT / "shic_cli" / "py.typed").exists()
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"]["shic_cli"]
