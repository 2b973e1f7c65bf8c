"""No code from data: the package has nothing that would run what a file says, and a file that says something
is refused.
"""

from __future__ import annotations

import ast
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import trimesh

import shic_cli

PACKAGE = Path(shic_cli.__file__).parent
# Follows a pickle's instructions with stand-ins of its own in place of every function and class.
READERS_OF_PICKLES = {"catalogue.py": {"pickle", "pickletools"}}
# What a worker loads was dumped by the process that started it, and is in no file.
OWN = {"base/workers.py": ["import pickle", "pickle.loads"]}
MODULES = {
    *(
        "pickle",
        "pickletools",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "marshal",
        "shelve",
        "code",
        "codeop",
        "runpy",
    ),
    *("tarfile", "ctypes", "cffi", "pty", "commands"),
}
CALLS = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "shutil.unpack_archive",
        "os.startfile",
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",  # only as a base class, with a find_class that looks up no name
    ),
    *(
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
        "torch.hub.load",
        "torch.jit.load",
        "torch.package.PackageImporter",
    ),
}
METHODS = {"extractall", "extract_all", "read_pickle", "unpack_archive"}


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def faults(tree: ast.AST, allowed: frozenset[str] | set[str] = frozenset()) -> list[str]:
    """What of a module could run code that a file brings."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                f"import {each.name}"
                for each in node.names
                if each.name.partition(".")[0] in MODULES - allowed
            ]
        elif isinstance(node, ast.ImportFrom):
            found += (
                [f"from {node.module}"] if (node.module or "").partition(".")[0] in MODULES - allowed else []
            )
        elif isinstance(node, ast.Call):
            found += _call(node)
    return found


def _call(node: ast.Call) -> list[str]:
    name, given = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
    last = name.rpartition(".")[2]
    found = (
        [name]
        if name in CALLS or (last in METHODS and "." in name) or name.startswith(("os.exec", "os.spawn"))
        else []
    )
    if name == "torch.load" and given.get("weights_only") != "True":
        found.append("torch.load without weights_only")
    if (
        last == "from_pretrained"
        and "kwargs" not in given.values()
        and given.get("use_safetensors") == "False"
    ):
        found.append("from_pretrained of pickles")
    if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        found.append("np.load without allow_pickle=False")
    if given.get("shell", "False") != "False":
        found.append("shell")
    if given.get("trust_remote_code", "False") != "False":
        found.append("trust_remote_code")
    return found


def test_nothing_in_the_package_runs_what_a_file_says() -> None:
    found = {
        str(path.relative_to(PACKAGE)): faults(tree, READERS_OF_PICKLES.get(path.name, set()))
        for path, tree in sources()
    }
    assert len(found) > 40 and {name: each for name, each in found.items() if each} == OWN


def test_a_dictionary_of_options_trusts_no_code_either() -> None:
    """`trust_remote_code` may be given in a dictionary too, as weights.py does."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                pairs = {
                    ast.unparse(key): ast.unparse(value)
                    for key, value in zip(node.keys, node.values, strict=True)
                    if key
                }
                assert pairs.get("'trust_remote_code'", "False") == "False", path
                assert pairs.get("'use_safetensors'", "True") == "True", path


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from pickle import loads",
            "import dill as d",
            "eval(x)",
            "exec(x)",
            "torch.load(p)",
            "os.system(x)",
        ),
        *(
            "torch.load(p, weights_only=False)",
            "torch.load(p, weights_only=w)",
            "np.load(p)",
            "np.load(p, allow_pickle=True)",
        ),
        *(
            "subprocess.run(x, shell=True)",
            "f.from_pretrained(n, trust_remote_code=True)",
            "archive.extractall(p)",
            "import tarfile",
            "pickle.loads(p)",
            "pickle.Unpickler(p).load()",
        ),
        *("shutil.unpack_archive(p)", "os.execv(a, b)", "torch.hub.load(a, b)", "f(trust_remote_code=x)"),
    ],
)
def test_the_search_finds(line: str) -> None:
    assert faults(ast.parse(line))


@pytest.mark.parametrize(
    "line",
    ["torch.load(p, weights_only=True)", "model.eval()", "np.load(p, allow_pickle=False)", "re.compile(x)"],
)
def test_the_search_lets_pass(line: str) -> None:
    assert not faults(ast.parse(line))


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.path),)


def as_pickle(path: Path, evil: Evil) -> None:
    path.write_bytes(pickle.dumps({"vertices": evil, "weight_matrix": evil}))


def as_torch(path: Path, evil: Evil) -> None:
    torch.save({"weight_matrix": evil}, path)


def as_numpy(path: Path, evil: Evil) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        archive.writestr("image.npy", header.ljust(127) + b"\n" + pickle.dumps([evil]))


COMMANDS = """
    template prep {}.obj -o out.h5
    template prep {}.ply -o out.h5
    template prep {}.glb -o out.h5
    template prep {}.pkl -o out.h5
    template prep {}.npz -o out.h5
    template prep ball.obj --vertices 0 --geodesics {}.pkl -o out.h5
    template prep ball.obj --vertices 0 --symmetry {}.pkl -o out.h5
    render {}.h5
    features {}.h5 -o out.h5
    features {}.png -o out.h5
    features imgs --basis {}.h5 -o out.h5
    pseudo-gt {}.h5 -o out.h5
    pseudo-gt imgs --template {}.h5 -o out.h5
    pseudo-gt imgs --views {}.h5 -o out.h5
    synth {}.h5
    train {}.h5 -o out.safetensors
    train truth.h5 --template {}.h5
    predict imgs --model {}.safetensors
    predict imgs --model {}.pth
    predict {}.png
    predict imgs --remap {}.png
    eval geodesic {}.h5 --annotations a.json
    eval geodesic truth.h5 --annotations {}.json
    eval geodesic {}.npz --annotations a.json
    eval geodesic {}.csv --annotations a.json
    eval pck {}.h5 --keypoints k.json
    eval pck {}.safetensors --keypoints k.json --images imgs
    eval pck truth.h5 --keypoints {}.json
    eval pck truth.h5 --keypoints {}.csv
    remap {}.h5 --texture grid
    remap truth.h5 --texture {}.png
    remap truth.h5 --texture grid --template {}.safetensors
    match {}.png imgs/photo0.png -o out.png
    models import {}.pth {}.pth {}.pth --mesh {}.obj -o out.safetensors
    models import {}.pth {}.pth {}.pth --mesh ball.obj -o out.safetensors
    info {}.h5
    info {}.safetensors
    info {}.pth
"""


@pytest.mark.parametrize("make", [as_pickle, as_torch, as_numpy])
def test_a_file_that_brings_code_is_refused_by_every_command(
    shic: Callable, folder: Path, album: Path, small_model_file: Path, make: Callable[[Path, Evil], None]
) -> None:
    (folder / "truth.h5").symlink_to(album / "truth.h5")
    (folder / "a.json").write_text(
        '{"images": [{"id": 1, "file_name": "photo0.png"}], "categories": [{"id": 1, '
        '"name": "a"}], "annotations": [{"image_id": 1,'
        ' "category_id": 1, "bbox": [0, 0, 9, 9], "dp_x": [1], "dp_y": [1], "dp_vertex": [1]}]}'
    )
    trimesh.creation.icosphere(subdivisions=1).export(folder / "ball.obj")
    (folder / "k.json").write_text(
        '{"images": {"photo0.png": {"points": {"a": [1, 1]}}, "photo1.png": {"points": {"a": [1, 1]}}}}'
    )
    for suffix in {
        word.rpartition("}")[2] for line in COMMANDS.split("\n") for word in line.split() if "{}" in word
    }:
        make(folder / f"evil{suffix}", Evil(folder / "ran"))
    for line in COMMANDS.strip().splitlines():
        status, _, err = shic(*line.replace("{}", "evil").split())
        assert status in (1, 2), (line, status, err)
        assert "error" in err.lower() and "Traceback" not in err, line
        assert "evil." in err and "is there already" not in err, (line, err)  # it came as far as the file
        assert not (folder / "ran").exists(), line


def test_the_bait_would_work(tmp_path: Path) -> None:
    as_pickle(tmp_path / "x", Evil(tmp_path / "ran"))
    pickle.loads((tmp_path / "x").read_bytes())
    assert (tmp_path / "ran").is_dir()
