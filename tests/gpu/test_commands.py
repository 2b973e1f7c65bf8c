"""Every command that takes `--device`, on a pretended GPU, and on a real one where there is one: no devices
are mixed, and the host waits for the GPU no more often than is stated here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from gpu.pretend import CPU, Mixed, Pretend, put, waits

from shic_cli.files.layouts import Template

Shic = Callable[..., tuple[int, str, str]]
TWO = "imgs/photo0.png imgs/photo1.png"
MAPS = "-o u.maps.h5 --overwrite"


@dataclass(frozen=True)
class Line:
    """A command line, where it has `{}` with `few` or `many`: the latter does `more` photos, pictures, steps
    or views. The host waits at most `each` times for each of these, and at most `most` times with few.
    """

    words: str
    few: str
    many: str
    more: int
    each: float
    most: int


PREP = "template prep animal.obj -o t.h5 --overwrite --eigenvectors 16 --vertices {}"
PCA = "features views.h5 -o f.h5 --overwrite --extractor vit:tiny --pca"
FEW = "--azimuths 6 --elevations 0"
TRAIN = "train {maps} --epochs 1 --points 20 -o m.safetensors --overwrite --encoder {encoder} --batch {}"
PHOTOS, BOTH = "pgt.h5 --natural 1 --precision bfloat16", "synth.h5 pgt.h5"


def training(encoder: str, maps: str, more: int, most: int) -> Line:
    """One step, and `more`: each waits once for the losses, and once for the encoder, for all of its pictures
    are new. A checkpoint and the model, of which every tensor is fetched, are written once.
    """
    return Line(TRAIN.replace("{maps}", maps).replace("{encoder}", encoder), "12", "4", more, 2, most)


LINES = {
    # the eigensolver is scipy's, and asks the GPU for every product
    "template prep": Line(PREP, "200", "250", 50, 1, 120),
    "render": Line("render --size 64 --elevations 0 --overwrite --azimuths {}", "8", "16", 8, 2, 40),
    "features silhouette": Line("features -o f.h5 --overwrite {}", TWO, "imgs", 4, 1, 4),
    "features pca": Line(f"{PCA} {{}}", "4", "4", 1, 0, 80),
    "features vit": Line("features -o f.h5 --overwrite --extractor vit:tiny {}", TWO, "imgs", 4, 1, 4),
    "pseudo-gt": Line(f"pseudo-gt {FEW} -o p.h5 --overwrite {{}}", TWO, "imgs", 4, 1, 50),
    "pseudo-gt topk": Line(f"pseudo-gt {FEW} -o p.h5 --overwrite --pool topk {{}}", TWO, "imgs", 4, 1, 50),
    "synth": Line("synth -o s.h5 --size 64 --overwrite --generator plain --number {}", "2", "4", 2, 2, 4),
    "train picture": training("picture", "synth.h5", 1, 360),
    "train picture, photos": training("picture", PHOTOS, 1, 360),
    "train silhouette": training("silhouette", BOTH, 2, 70),
    "train vit": training("vit:tiny,side=48", BOTH, 2, 130),
    "predict unet": Line(f"predict {MAPS} --model unet.safetensors {{}}", TWO, "imgs", 4, 1, 4),
    "predict pointwise": Line(f"predict {MAPS} {{}}", TWO, "imgs", 4, 1, 4),
    "predict --remap": Line(f"predict {MAPS} --remap checker {{}}", TWO, "imgs", 4, 2, 6),
    "predict --heatmap": Line(f"predict imgs {MAPS} --heatmap photo0.png:{{}}", "middle", "middle", 1, 0, 60),
    "remap": Line("remap synth.h5 --texture checker --overwrite {}", "", "", 1, 0, 6),
    "match": Line("match imgs/photo0.png imgs/photo{}.png --overwrite", "1", "2", 1, 0, 30),
}  # fmt: skip
# Those that together run all that a GPU runs. `template prep` gives the work to CUDA alone.
APPLE = [
    "render", "features pca", "features vit", "pseudo-gt", "synth", "train picture", "train silhouette",
    "predict unet", "predict pointwise", "predict --remap", "predict --heatmap", "match",
]  # fmt: skip
NEEDS = {
    "pgt.h5": f"pseudo-gt imgs -o pgt.h5 {FEW} --device cpu",
    "views.h5": "render -o views.h5 --size 64 --elevations 0 --azimuths 8 --device cpu",
    "unet.safetensors": "train synth.h5 --encoder picture --epochs 1 -o unet.safetensors --device cpu",
}


@pytest.fixture
def place(
    folder: Path, album: Path, small_model_file: Path, small_template: Template, tiny_vit: Callable[..., Path]
) -> Path:
    """A folder with all that the lines read but for what NEEDS makes."""
    shutil.copy(album / "truth.h5", folder / "synth.h5")
    mesh = trimesh.Trimesh(small_template.verts, small_template.faces, process=False)
    mesh.export(folder / "animal.obj")
    tiny_vit("dinov2")
    return folder


def prepare(shic: Shic, words: str) -> None:
    """Make what the line needs."""
    for name, line in NEEDS.items():
        if name in words:
            assert shic(*line.split())[0] == 0


def with_pixel(line: Line) -> Line:
    """`line` with a pixel on the object of photo0 where it asks for one."""
    y, x = np.argwhere(cv2.imread("masks/photo0.png", cv2.IMREAD_GRAYSCALE))[500].tolist()
    return replace(
        line, few=line.few.replace("middle", f"{x},{y}"), many=line.many.replace("middle", f"{x},{y}")
    )


@pytest.mark.parametrize("name", LINES)
def test_no_devices_are_mixed_and_the_host_waits_no_more_than_stated(
    name: str, gpu: str, shic: Shic, place: Path
) -> None:
    line, counts = LINES[name], []
    prepare(shic, line.words)
    line = with_pixel(line)
    for amount in (line.few, line.many):
        waits.clear()
        status, _, err = shic(*line.words.format(amount).split(), "--device", gpu)
        assert status == 0, err
        counts.append(sum(waits.values()))
    assert counts[1] - counts[0] <= line.each * line.more and counts[0] <= line.most, (counts, waits)


@pytest.mark.parametrize("name", APPLE)
def test_apples_gpu_gets_no_double_precision_and_no_rays(
    name: str, apple: str, shic: Shic, place: Path
) -> None:
    line = with_pixel(LINES[name])
    prepare(shic, line.words)
    status, _, err = shic(*line.words.format(line.few).split(), "--device", apple)
    assert status == 0, err


@pytest.mark.cuda
@pytest.mark.parametrize("name", LINES)
def test_the_same_on_a_real_gpu(name: str, shic: Shic, place: Path) -> None:
    line = with_pixel(LINES[name])
    prepare(shic, line.words)
    status, _, err = shic(*line.words.format(line.many).split(), "--device", "cuda")
    assert status == 0, err


def test_what_cuda_refuses_is_refused(gpu: str) -> None:
    """Sums and products over two devices, indices on a GPU, numpy, generators; 0-dim tensors may mix."""
    here, there = torch.ones(3), torch.ones(3, device=gpu)
    assert there.device.type == "cuda" and (there * 2).is_cuda and there.cpu().device == CPU
    assert (there + torch.tensor(1.0)).is_cuda and there[torch.tensor([0, 2])].is_cuda
    refused = [
        lambda: here + there,
        lambda: torch.cat([here, there]),
        lambda: here[torch.zeros(2, dtype=torch.long, device=gpu)],
        lambda: there.index_copy_(0, torch.tensor([1]), here[:1]),
        lambda: there.numpy(),
        lambda: torch.randn(3, device=gpu, generator=torch.Generator()),
        lambda: torch.nn.Linear(3, 2)(there),
    ]
    for each in refused:
        with pytest.raises(Mixed):
            each()


def test_waiting_is_counted(gpu: str) -> None:
    """Values and sizes that only the GPU knows; nothing where the tensor is the CPU's."""
    there, some = torch.arange(4.0, device=gpu), torch.tensor([True, False, True, False])
    asks: list[Callable[[], object]] = [
        lambda: there.cpu(),
        lambda: float(there[0]),
        lambda: there.tolist(),
        lambda: bool(there.any()),
        lambda: there[there > 1],
        lambda: there.nonzero(),
        lambda: torch.where(there > 1),
    ]
    for number, ask in enumerate(asks, 1):
        ask()
        assert sum(waits.values()) == number
    there[some], there.sum(), torch.where(there > 1, there, 0), there.cpu
    there[there > 1] = 0
    assert sum(waits.values()) == len(asks)


def test_threads_pretend_too(gpu: str) -> None:
    from shic_cli.base.devices import ahead

    made = list(ahead([lambda: torch.ones(2, device=gpu)]))
    assert made[0].is_cuda
    with pytest.raises(Mixed), Pretend():
        put(torch.ones(2), torch.device("cuda", 0)) + torch.ones(2)
