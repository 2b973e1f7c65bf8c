"""Targets that name no file, links and pipes as targets, closed streams, and readers that go away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files.atomic import Journal, atomic

COMMANDS = {
    "template prep": ("mesh.obj",),
    "render": (),
    "features": ("imgs",),
    "pseudo-gt": ("imgs",),
    "synth": (),
    "train": ("pgt.h5",),
    "predict": ("imgs",),
    "join": ("a.part-1-of-1.h5",),
    "match": ("a.png", "b.png"),
    "models import": ("a.pth", "b.pth", "c.pth"),
}


@pytest.mark.parametrize("target", [".", "", "dir/", "..", "dir/.."])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_target_that_names_no_file_is_refused_in_two_lines(shic, tmp_path, command, target) -> None:
    (tmp_path / "dir").mkdir()
    status, out, err = shic(*command.split(), *COMMANDS[command], "-o", target)
    assert (status, out) == (1, "") and err.endswith("\n  give a file name with -o\n")
    assert len(err.splitlines()) == 2 and (target in err if target else "is empty" in err)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "match"])
def test_stdout_is_refused_where_no_file_goes_there(shic, tmp_path, command) -> None:
    status, out, err = shic(*command.split(), *COMMANDS[command], "-o", "-")
    assert (status, out) == (1, "") and err.endswith("\n  give a file name with -o\n")
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    "command", ["mask imgs", "remap maps.h5 --texture grid", "dataset densepose-lvis a.json"]
)
def test_an_empty_name_is_no_folder_either(shic, command) -> None:
    status, _, err = shic(*command.split(), "-o", "")
    assert status in (1, 2) and "is empty" in err


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """People link outputs to large disks: the link stays, and the file there is replaced as a whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "a.txt").write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(disk / "a.txt")
    with pytest.raises(ShicError, match="is there already"), atomic(link, overwrite=False):
        raise AssertionError
    with atomic(link) as partial:
        partial.write_text("new")
        assert (disk / "a.txt").read_text() == "old" and partial.parent == disk
    assert link.is_symlink() and (disk / "a.txt").read_text() == "new"
    journal = Journal(link, {}, replace=True)
    journal.append(b"one")
    assert journal.path.parent == disk
    with journal.finishing() as partial:
        partial.write_text("from a journal")
    journal.close(remove=True)
    assert link.is_symlink() and (disk / "a.txt").read_text() == "from a journal"
    assert os.listdir(disk) == ["a.txt"] and sorted(os.listdir(tmp_path)) == ["disk", "link.txt"]


def test_a_link_to_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.txt").symlink_to("disk/a.txt")
    with atomic(tmp_path / "link.txt", overwrite=False) as partial:
        partial.write_text("new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "disk" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device", "folder", "link to a folder", "circle"])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, kind: str, overwrite: bool) -> None:
    path, real = tmp_path / "target", tmp_path / "real"
    if kind == "device":
        path = Path("/dev/null")
    elif kind == "circle":
        path.symlink_to(path)
    else:
        place = real if "link" in kind else path
        os.mkfifo(place) if "pipe" in kind else place.mkdir()
        if "link" in kind:
            path.symlink_to(real)
    before = os.lstat(path)
    with pytest.raises(InputError, match="is a"), atomic(path, overwrite):
        raise AssertionError
    with pytest.raises(InputError, match="is a"):
        Journal(path, {}, replace=overwrite)
    assert os.path.samestat(before, os.lstat(path))


@pytest.mark.parametrize(
    "line",
    [
        "template prep no.obj -o there",
        "template prep mesh.obj --geodesics no.pkl -o there",
        "render no.h5 -o there",
        "pseudo-gt mesh.obj --template no.h5 -o there",
        "pseudo-gt mesh.obj --template no.h5 --contact-sheet there",
        "synth no.h5 --contact-sheet there",
        "train no.h5 -o there",
        "predict mesh.obj --model no.safetensors --contact-sheet there",
        "fit no.h5 -o there",
        "export no.safetensors -o there.onnx",
        "export no.h5 -o there.csv",
        "export pgt.h5 --template no.h5 -o there.csv",
        "remap no.h5 --texture grid -o there.png",
        "match no.png mesh.obj -o there",
        "match mesh.obj mesh.obj --model no.safetensors -o there",
        "eval geodesic no.h5 --annotations annotations.json --report page",
        "view no.h5 -o there",
    ],
)
def test_a_missing_input_is_told_before_a_target_that_is_there(
    shic, small_template_file: Path, line: str
) -> None:
    folder = small_template_file.parent
    (folder / "page").mkdir()
    for name in ("there", "there.onnx", "there.csv", "there.png", "page/index.html", "mesh.obj"):
        (folder / name).write_text("")
    point = {
        "bbox": [0, 0, 9, 9],
        "dp_x": [9],
        "dp_y": [9],
        "dp_vertex": [0],
        "image_id": 1,
        "category_id": 1,
    }
    image = {"id": 1, "file_name": "a.png", "width": 9, "height": 9}
    points = {"images": [image], "categories": [{"id": 1, "name": "x"}], "annotations": [point]}
    (folder / "annotations.json").write_text(json.dumps(points))
    status, _, err = shic(*line.split())
    assert status == 1 and "no." in err and "there is no such file" in err, err


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`line` in bash, where `shic` is this program; with the status of the first command of a pipe."""
    program = (
        f'set -o pipefail; shic() {{ {sys.executable} -m shic_cli "$@"; }}; {line}; exit ${{PIPESTATUS[0]}}'
    )
    return subprocess.run(
        ["bash", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("line", ["--help", "--version", "train --help", "models list"])
def test_a_reader_that_goes_away_ends_it_with_141(tmp_path: Path, line: str, buffered: str) -> None:
    done = shell(f"{{ sleep 0.3; exec 2>err; shic {line}; }} | true", tmp_path, PYTHONUNBUFFERED=buffered)
    assert (done.returncode, (tmp_path / "err").read_text()) == (141, "")


@pytest.mark.parametrize("streams", ["<&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_traceback(tmp_path: Path, streams: str) -> None:
    done = shell(f"shic info none.h5 {streams}", tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    done = shell(f"shic models list {streams}", tmp_path)
    assert done.returncode == 0 and ("dinov2" in done.stdout) == (">&- 2" not in streams)


def test_a_list_on_a_closed_stdin_is_an_error_in_two_lines(tmp_path: Path, small_model_file: Path) -> None:
    done = shell(f"shic predict - --model {small_model_file} <&-", tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 2, done.stderr


def test_what_a_library_prints_to_a_closed_stderr_goes_into_no_file(tmp_path: Path) -> None:
    program = "import os; from shic_cli import cli; cli._open_closed_streams()"
    program += "; file = open('out', 'w'); os.write(2, b'noise')"
    subprocess.run(["bash", "-c", f'{sys.executable} -c "{program}" 2>&-'], cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_text() == ""
