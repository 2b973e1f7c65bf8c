"""What a command leaves alone: a library that it does not use costs its import, seconds on a busy machine;
and an extra that is not installed. What a plain installation lacks is named where it is needed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trimesh

from shic_cli.base.packages import OPTIONAL
from shic_cli.files.items import ItemReader

Run = Callable[..., tuple[int, str, str]]
HEAVY = ("transformers", "diffusers", "matplotlib", "onnxruntime")
CODE = """
import shlex, sys
blocked = sys.argv[1].split()
sys.modules.update(dict.fromkeys(blocked))
from shic_cli.cli import main
for line in sys.argv[2:]:
    try:
        main(shlex.split(line))
    except SystemExit as ended:
        assert not ended.code, ended.code
print(*[name for name in {heavy} if sys.modules.get(name)])
"""
PSEUDO = "pseudo-gt imgs/photo0.png imgs/photo1.png -o p.h5 --azimuths 4 --elevations 0 --device cpu"
SYNTH = "synth --generator plain --number 4 --size 48 -o s.h5 --device cpu"
PLAIN = [
    "template prep ball.ply -o ball.h5 --vertices 0 --eigenvectors 8 --device cpu",
    PSEUDO,
    SYNTH,
    "train p.h5 s.h5 --encoder silhouette --epochs 1 --variants 1 --points 20 --device cpu",
    "predict imgs/photo0.png --remap checker --unsure --device cpu",
]


def run_lines(folder: Path, blocked: str, lines: list[str]) -> str:
    """What a process prints that runs `lines`, where the modules in `blocked` can't be imported."""
    words = [sys.executable, "-c", CODE.format(heavy=HEAVY), blocked, *lines]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_needs_no_weights_imports_no_library_of_models(folder: Path) -> None:
    """`auto` takes the silhouette, because nothing is in the cache of weights. Matching needs no SciPy."""
    assert run_lines(folder, "scipy", [PSEUDO]) == ""
    assert run_lines(folder, "", [SYNTH]) == ""


def test_a_plain_installation_does_all_that_the_default_does(folder: Path) -> None:
    trimesh.creation.icosphere(subdivisions=2).export(folder / "ball.ply")
    run_lines(folder, " ".join(OPTIONAL), PLAIN)
    made = ("ball.h5", "model.losses.png", "photo0.remap.png", "photo0.unsure.png")
    assert all((folder / name).is_file() for name in made), list(folder.iterdir())
    assert ItemReader(folder / "photo0.maps.h5", "shic/maps").names == ["photo0.png"]


@pytest.mark.parametrize(
    ("line", "package", "extra"),
    [
        ("models pull dinov2-small", "huggingface_hub", "models"),
        ("pseudo-gt imgs --extractor dinov2 --device cpu", "transformers", "models"),
        ("pseudo-gt imgs --extractor vit:weights --device cpu", "transformers", "models"),
        ("pseudo-gt imgs --extractor sd-dino --device cpu", "diffusers", "diffusion"),
        ("eval geodesic truth.h5 --annotations a.json --report out", "matplotlib", "report"),
        ("export truth.h5 -o clip.mp4", "av", "formats"),
        ("export model.safetensors -o net.onnx", "onnx", "onnx"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(
    folder: Path,
    album: Path,
    small_model_file: Path,
    shic: Run,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    package: str,
    extra: str,
) -> None:
    (folder / "truth.h5").write_bytes((album / "truth.h5").read_bytes())
    (folder / "a.json").write_text("{}")
    monkeypatch.setitem(sys.modules, package, None)
    status, _, err = shic(*line.split())
    last = [line for line in err.splitlines() if line.strip()][-2:]
    assert status == 3 and f"needs the package {OPTIONAL[package].name}" in last[0], err
    assert last[1] == f"  pip install 'shic[{extra}]'"
