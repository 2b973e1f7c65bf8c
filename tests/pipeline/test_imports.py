"""What a command leaves alone: a library that it does not use costs its import, seconds on a busy machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("transformers", "diffusers", "matplotlib", "onnxruntime")
CODE = """
import sys
from shic_cli.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print(*[name for name in {heavy} if name in sys.modules])
"""
LINES = [
    "pseudo-gt imgs/photo0.png -o p.h5 --azimuths 4 --elevations 0 --device cpu",
    "synth --generator plain --number 1 --size 48 -o s.h5 --device cpu",
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[0])
def test_what_needs_no_weights_imports_no_library_of_models(line: str, folder: Path) -> None:
    """In a process of its own; `auto` takes the silhouette, because nothing is in the cache of weights."""
    words = [sys.executable, "-c", CODE.format(heavy=HEAVY), *line.split()]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
