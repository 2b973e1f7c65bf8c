"""A small template that every test can use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh
from scipy.sparse.csgraph import laplacian, shortest_path
from scipy.spatial import cKDTree

from shic_cli.base.settings import SynthConfig
from shic_cli.cli import main
from shic_cli.files.arrays import write_arrays
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import LAYOUTS, Template

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `main` does, and before a test imports torch


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the benchmarks, which are tests of tiny sizes without them."""
    parser.addoption(
        "--full", action="store_true", help="run tests/benchmarks at full size, and print what they measure"
    )
    parser.addoption("--measured", metavar="FILE", help="write what tests/benchmarks measure there, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """The marker of tests that run on a GPU alone; `-m cuda` chooses them."""
    config.addinivalue_line("markers", "cuda: runs where there is a CUDA device")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests marked `cuda` where there is no GPU."""
    import torch

    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


def animal_verts(sphere: np.ndarray) -> np.ndarray:
    """A four-legged animal `(K, 3)` from the points of a unit sphere: left and right alike, front and back
    and top and bottom not.
    """
    x, y, z = sphere.T
    head = np.exp(-((z - 1) ** 2 + (y - 0.3) ** 2) / 0.15)
    legs = sum(np.exp(-((abs(x) - 0.5) ** 2 + (z - place) ** 2) / 0.08) for place in (-0.6, 0.4)) * np.clip(
        -y, 0, 1
    )
    verts = np.stack([0.4 * x, 0.4 * y + 0.5 * head - 0.7 * legs, z + 0.2 * head], 1)
    low, high = verts.min(0), verts.max(0)
    return ((verts - (low + high) / 2) / (high - low).max()).astype(np.float32)


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hub's cache would be: there is none, and no folder of weights, whatever is on this
    machine.
    """
    folder = tmp_path.with_name(f"{tmp_path.name}-hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))  # for processes of their own
    monkeypatch.delenv("SHIC_WEIGHTS", raising=False)
    return folder


@pytest.fixture(scope="session")
def small_template() -> Template:
    """642 vertices, with a graph's eigenvectors and path lengths in place of the surface's."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    verts, faces = animal_verts(np.asarray(ball.vertices)), np.asarray(ball.faces, np.int32)
    lengths = np.full((len(verts), len(verts)), np.inf)
    a, b = ball.edges.T
    lengths[a, b] = np.linalg.norm(verts[a] - verts[b], axis=1)
    paths = shortest_path(np.where(np.isfinite(lengths), lengths, 0), directed=False)
    values, vectors = np.linalg.eigh(laplacian(np.isfinite(lengths).astype(float)))
    return Template(
        verts=verts,
        faces=faces,
        eigenvectors=(vectors[:, 1:33] * len(verts) ** 0.5).astype(np.float32),
        eigenvalues=values[1:33].astype(np.float32),
        geodesic=((paths + paths.T) / 2 * (228 / paths.max())).astype(np.float32),
        mirror=cKDTree(verts).query(verts * [-1, 1, 1])[1].astype(np.int32),
        colors=((verts - verts.min(0)) / np.ptp(verts, axis=0) * 255).astype(np.uint8),
        uv=np.ascontiguousarray(verts[:, [2, 1]] + 0.5, np.float32),
        face_uv=faces,
        source_to_vertex=np.arange(len(verts), dtype=np.int32),
    )


@pytest.fixture
def small_template_file(small_template: Template, tmp_path: Path) -> Path:
    """`small_template` as `template.h5` in the test's own folder."""
    path = tmp_path / "template.h5"
    arrays = {name: getattr(small_template, name) for name in LAYOUTS["shic/template"].fields}
    attrs = {"mirror_axis": small_template.mirror_axis}
    write_arrays(path, "shic/template", arrays, params={}, sources={}, attrs=attrs, overwrite=True)
    return path


@pytest.fixture
def small_model_file(small_template: Template, tmp_path: Path) -> Path:
    """An untrained model of `small_template` on the silhouette encoder, as `model.safetensors` in the test's
    own folder.
    """
    import torch

    from shic_cli.files.layouts import Surface
    from shic_cli.learning.canonical_map import CanonicalMap
    from shic_cli.learning.model_file import Saved, save_model
    from shic_cli.parts.extractors.make import make_extractor

    encoder = make_extractor("silhouette", torch.device("cpu"))
    torch.manual_seed(0)
    made = CanonicalMap("pointwise", encoder.dim, 16, torch.from_numpy(small_template.eigenvectors)).eval()
    torch.nn.init.normal_(made.C)
    for layer in made.decoder.modules():
        if isinstance(
            layer, torch.nn.Linear
        ):  # no biases and large weights, so that different pixels get different vertices
            torch.nn.init.normal_(layer.weight, std=2 * layer.in_features**-0.5)
            torch.nn.init.zeros_(layer.bias)
    meta = {
        "encoder": {"name": "silhouette"},
        "encoder_fingerprint": encoder.fingerprint,
        "decoder": "pointwise",
    }
    meta |= {"channels": encoder.dim, "dim": 16, "template": small_template.fingerprint}
    save_model(tmp_path / "model.safetensors", Saved(made, Surface.of(small_template), meta), overwrite=True)
    return tmp_path / "model.safetensors"


@pytest.fixture
def tiny_vit(tmp_path: Path) -> Callable[..., Path]:
    """`tiny_vit(kind, name="tiny", **settings)` saves a random vision transformer of 3 blocks, 32 wide,
    8-pixel patches, as a folder.
    """
    import torch
    import transformers

    kinds = {
        "vit": "ViT",
        "deit": "DeiT",
        "dinov2": "Dinov2",
        "dinov2_with_registers": "Dinov2WithRegisters",
        "dinov3_vit": "DINOv3ViT",
    }

    def save(kind: str, name: str = "tiny", **settings: object) -> Path:
        usual = {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": 48,
        }
        config = getattr(transformers, f"{kinds[kind]}Config")(**{**usual, "patch_size": 8, **settings})
        torch.manual_seed(0)
        model = getattr(transformers, f"{kinds[kind]}Model")(config)
        with torch.no_grad():
            for parameter in model.parameters():  # what starts as zeros or ones would hide a mistake
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Stable Diffusion of a few thousand weights."""
    from tiny_diffusion import save_diffusion

    return save_diffusion(tmp_path_factory.mktemp("weights") / "tiny-sd")


@pytest.fixture
def shic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`shic(*words)` runs a command line in the test's own folder: its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture(scope="session")
def album(small_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgs/ and masks/ of six pictures of the animal, and truth.h5 with their exact labels."""
    import torch

    from shic_cli.stages.synth import synthesize

    folder = tmp_path_factory.mktemp("album")
    synthesize(
        small_template,
        folder / "truth.h5",
        SynthConfig(number=6, size=96, poses=1.0),
        torch.device("cpu"),
        seed=5,
        sources={},
    )
    (folder / "imgs").mkdir()
    (folder / "masks").mkdir()
    for i, item in enumerate(ItemReader(folder / "truth.h5", "shic/maps")):
        picture = cv2.imdecode(item.encoded, cv2.IMREAD_COLOR)
        cv2.imwrite(str(folder / "imgs" / f"photo{i}.png"), picture)
        cv2.imwrite(str(folder / "masks" / f"photo{i}.png"), item.mask.astype(np.uint8) * 255)
    return folder


@pytest.fixture
def folder(album: Path, small_template_file: Path, tmp_path: Path) -> Path:
    """The test's own folder with template.h5, imgs/ and masks/."""
    for name in ("imgs", "masks"):
        shutil.copytree(album / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="session")
def sd(tiny_sd: Path) -> Any:
    """An extractor `sd` on small random weights."""
    from tiny_diffusion import SMALL

    from shic_cli.parts.extractors.sd import Sd

    return Sd(str(tiny_sd), **SMALL)


@pytest.fixture
def copied(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy of the weights of `tiny_sd` that a test may spoil."""
    return shutil.copytree(tiny_sd, tmp_path / "copy")
