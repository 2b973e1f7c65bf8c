"""What Windows lacks is not needed: commands run in a process that tests/windows.py makes look like it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trimesh

from shic_cli.files import atomic
from shic_cli.files.items import ItemReader

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-X", "warn_default_encoding", str(ROOT / "tests/windows.py")]
LINES = [
    "--help",
    "template prep ball.ply --vertices 0 --eigenvectors 8 --device cpu",
    "info template.h5",
    "render --azimuths 2 --elevations 0 --size 48 --contact-sheet views.png --device cpu",
    "pseudo-gt list.txt -o pgt.h5 --azimuths 2 --elevations 0 --device cpu",
    "synth --generator plain --number 2 --size 48 --device cpu",
    "mask imgs/photo0.png -o found --masker grabcut --device cpu",
    "info synth.h5",
]


def test_the_commands_need_nothing_that_windows_lacks(folder: Path) -> None:
    """Streams have the encoding that a pipe has on Windows, and the list of photos has a name beyond it."""
    (folder / "template.h5").unlink()
    trimesh.creation.icosphere(subdivisions=2).export(folder / "ball.ply")
    for kind in ("imgs", "masks"):
        (folder / kind / "photo1.png").rename(folder / kind / "馬1.png")
    (folder / "list.txt").write_text("imgs/photo0.png\nimgs/馬1.png\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*PROGRAM, *LINES], cwd=folder, env=environment, capture_output=True)
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert done.returncode == 0, err
    assert [line for line in out.splitlines() if line.startswith("$ shic ")] == [f"$ shic {x}" for x in LINES]
    assert ItemReader(folder / "pgt.h5", "shic/maps").names == ["photo0.png", "馬1.png"]
    assert len(ItemReader(folder / "synth.h5", "shic/maps")) == 2 and (folder / "found/photo0.png").is_file()
    assert not [path.name for path in folder.rglob(".*") if not path.name.endswith(".lock")]


def test_the_pretended_system_catches_what_it_should(tmp_path: Path) -> None:
    """Each of these lines, in a module of shic_cli, would end the run."""
    for line, said in {
        "import fcntl": "no module fcntl",
        "import os; os.kill(1, 0)": "would end process 1",
        "import signal; signal.SIGHUP": "no signal.SIGHUP",
        "import pathlib; pathlib.Path('x').write_text('x')": "EncodingWarning",
        "import sys; assert sys.platform != 'win32'": "AssertionError",
    }.items():
        code = f"import windows; windows.pretend(); exec({line!r}, {{'__name__': 'shic_cli.probe'}})"
        words = [*PROGRAM[:-1], "-c", code]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and said in done.stderr, done.stderr


def test_a_target_that_another_program_has_open_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.replace refuses then on Windows; elsewhere it does not, and a refusal is told at once."""
    tries: list[int] = []

    def busy(source: Path, target: Path) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(13, "in use")
        Path(source).rename(target)

    monkeypatch.setattr(atomic.os, "replace", busy)
    monkeypatch.setattr(atomic, "BUSY", 5.0)  # as on Windows
    with atomic.atomic(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert len(tries) == 3 and (tmp_path / "a.txt").read_text() == "new"
    monkeypatch.setattr(atomic, "BUSY", 0.0)
    tries.clear()
    with pytest.raises(PermissionError), atomic.atomic(tmp_path / "b.txt") as partial:
        partial.write_text("new")
    assert len(tries) == 1 and not list(tmp_path.glob(".*partial*"))
