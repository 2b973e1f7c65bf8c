"""Parts of other packages: one that follows docs/contracts.md works, one that breaks it is named."""

from __future__ import annotations

import importlib
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from shic_cli.base.settings import RenderConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.photos import encode
from shic_cli.parts import registry
from shic_cli.parts.contract import PartError
from shic_cli.stages.render import render_views

PAGE = Path(__file__).parents[2] / "docs/contracts.md"
KINDS = ("extractors", "renderers", "generators", "maskers")

# Written with the page beside it, and nothing else of the package.
DOTS = '''
import torch

class Dots:
    """The mean colour and the share of object in each cell."""

    fingerprint = "dots-1"

    def __init__(self, argument="", *, device="cpu", cells=8):
        self.name = "dots" if cells == 8 else f"dots:,cells={cells}"
        self.cells, self.side, self.dim = cells, 8 * cells, 4
        self.device, self.settings = torch.device(device), {"cells": cells}

    def __call__(self, images, masks):
        pictures = torch.cat([images * masks, masks], 1).to(self.device)
        return torch.nn.functional.adaptive_avg_pool2d(pictures, self.cells) + 0.01
'''

LOOP = '''
import torch
from shic_cli.parts.renderers.contract import Fragments

class Loop:
    """Draws one face after the other, and keeps the nearest at each pixel."""

    def __init__(self, argument="", *, device="cpu"):
        pass

    def __call__(self, verts, faces, cameras, size):
        yx, depth = cameras.project(verts, size)
        n = len(yx)
        line = torch.arange(size, dtype=torch.float32)
        pixels = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
        face = torch.full((n, size, size), -1)
        bary, zbuf = torch.full((n, size, size, 3), -1.0), torch.full((n, size, size), torch.inf)
        for number, corners in enumerate(faces):
            a, b, c = ((yx[:, k, None, None] - pixels) for k in corners)
            cross = lambda p, q: p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]
            shares = torch.stack([cross(b, c), cross(c, a), cross(a, b)], -1)
            shares = shares / shares.sum(-1, keepdim=True) / depth[:, corners][:, None, None]
            z = 1 / shares.sum(-1)
            nearer = (shares >= 0).all(-1) & (z < zbuf)
            face[nearer], zbuf[nearer] = number, z[nearer]
            bary[nearer] = (shares * z[..., None])[nearer]
        return Fragments(face, bary, zbuf.masked_fill(face < 0, -1))
'''


def blocks() -> dict[str, str]:
    """The Python examples of the page, by the class in them."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    return {re.search(r"class (\w+)", block)[1]: block for block in found}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """`install(kind, name, code)` leaves what pip would: a module, and metadata with its entry point."""
    site, modules = tmp_path / "site", []
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def put(kind: str, name: str, code: str) -> None:
        modules.append(f"someones_{name}")
        (site / f"someones_{name}.py").write_text(code)
        info = site / f"someones_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: someones-{name}\nVersion: 1.0\n")
        classes = re.findall(r"^class (\w+)", code, re.M) or ["Part"]
        (info / "entry_points.txt").write_text(f"[shic.{kind}]\n{name} = someones_{name}:{classes[-1]}\n")
        importlib.invalidate_caches()

    yield put
    for module in modules:
        sys.modules.pop(module, None)


def test_an_extractor_from_the_page_serves_features_and_pseudo_gt(folder, shic, install):
    install("extractors", "dots", DOTS)
    status, _, err = shic("features", "imgs", "--extractor", "dots:,cells=12", "-o", "f.h5")
    assert status == 0, err
    reader = ItemReader(folder / "f.h5", "shic/features")
    assert reader.header.attrs["extractor"] == "dots:,cells=12"
    assert reader["photo0.png"].feature.shape == (4, 12, 12)
    few = ("--azimuths", "3", "--elevations", "10")
    status, _, err = shic("pseudo-gt", "imgs", "--extractor", "dots", *few, "-o", "pgt.h5")
    assert status == 0, err
    assert (ItemReader(folder / "pgt.h5", "shic/maps")["photo0.png"].vertex >= 0).sum() > 100
    made = registry.make("extractors", "dots")
    assert (made.needs_mask, made.sees_whole_object, made.unit, made.decoder) == (False, False, True, "")
    assert shic("pseudo-gt", "f.h5", *few, "-o", "again.h5")[0] == 0  # the part is made again by its name


def test_a_renderer_from_the_page_sees_what_warp_sees(small_template, install):
    install("renderers", "loop", LOOP)
    config = RenderConfig(azimuths=2, elevations=(10.0,), size=24)
    theirs = render_views(small_template, RenderConfig(**{**vars(config), "renderer": "loop"}))
    ours = render_views(small_template, RenderConfig(**{**vars(config), "renderer": "warp"}))
    both = theirs.mask & ours.mask
    assert (theirs.mask == ours.mask).float().mean() > 0.99 and both.sum() > 100
    assert (theirs.depth - ours.depth)[both].abs().max() < 1e-3
    same = both & (theirs.face == ours.face)
    assert same.sum() > 0.97 * both.sum() and (theirs.bary - ours.bary)[same].abs().max() < 1e-3


def test_the_generator_of_the_page_serves_synth(folder, shic, install):
    install("generators", "grey", blocks()["Grey"])
    line = ("synth", "--generator", "grey:,brightness=0.5", "--number", "2", "--size", "48", "-o", "s.h5")
    status, _, err = shic(*line)
    assert status == 0, err
    assert all((item.vertex >= 0).any() for item in ItemReader(folder / "s.h5", "shic/maps"))


def test_the_masker_of_the_page_serves_mask(tmp_path, shic, install):
    install("maskers", "bright", blocks()["Bright"])
    photo = np.zeros((40, 60, 3), np.uint8)
    photo[10:30, 20:50] = 200
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs/a.png").write_bytes(encode(photo))
    status, _, err = shic("mask", "imgs", "--masker", "bright", "-o", "found")
    assert status == 0, err
    assert list((tmp_path / "found").rglob("a*.png"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_names_all_that_a_contract_names(kind):
    contract, page = registry.contract_of(kind), PAGE.read_text()
    members = {*typing.get_type_hints(contract.required), *typing.get_type_hints(contract.defaults)}
    for protocol in (contract.required, contract.defaults):
        members |= {name for name in vars(protocol) if not name.startswith("_") or name == "__call__"}
    assert "__call__" in members and len(members) > 2
    assert [name for name in members if not re.search(rf"\| `{name}[`(]", page)] == []


def broken(old: str, new: str) -> str:
    assert DOTS.count(old) == 1, old
    return DOTS.replace(old, new)


CALL = DOTS[DOTS.index("    def __call__") :]
BAD = {
    "no method": (broken(CALL, ""), "has no method __call__"),
    "no attribute": (broken('    fingerprint = "dots-1"\n', ""), "has no fingerprint"),
    "wrong kind": (broken('"dots-1"', "1"), "its fingerprint is 1 of type int, not of type str"),
    "wrong device": (broken("torch.device(device)", "str(device)"), "its device is 'cpu' of type str"),
    "wrong value": (broken("8 * cells, 4", "0, 4"), "its side is 0 and its dim 4; both must be at least 1"),
    "wrong name": (broken('"dots" if', '"spots" if'), "its name is 'spots', but it is asked for as 'dots'"),
    "broken property": (
        broken('    fingerprint = "dots-1"\n', "    fingerprint = property(lambda self: self.digest)\n"),
        "fingerprint: 'Dots' object has no attribute 'digest'",
    ),
    "wrong length": (
        broken("8 * cells, 4", "8 * cells, 5"),
        "gave features (1, 4, 8, 8), not (1, 5, h, w) with h = w; its dim is 5",
    ),
    "no square": (broken("(pictures, self.cells)", "(pictures, (8, 4))"), "gave features (1, 4, 8, 4), not"),
    "no floats": (broken("+ 0.01", "> 0.5"), "gave features of type torch.bool, not a tensor of floats"),
    "no tensor": (broken("+ 0.01", "is None"), "gave features of type bool, not a tensor of floats"),
    "no device": (
        broken(', *, device="cpu", cells=8', ", *, cells=8"),
        "unexpected keyword argument 'device'",
    ),
    "odd option": (broken("cells=8", "cells=None"), "the default of its option cells is None, not a text"),
    "raises when made": (
        broken("        self.cells,", "        1 / 0\n        self.cells,"),
        "division by zero",
    ),
    "raises at import": ("raise ValueError('bad day\\nand more')", "importing it raises ValueError: bad day"),
    "syntax": ("class Dots\n", "importing it raises SyntaxError"),
    "no such class": ("import torch\n", "importing it raises AttributeError: module 'someones_dots' has no"),
    "function": ("def Part(argument): pass\n", "is of type function, not a class"),
}


@pytest.mark.parametrize(("code", "fault"), BAD.values(), ids=BAD)
def test_an_extractor_that_breaks_its_contract_is_named_in_two_lines(folder, shic, install, code, fault):
    install("extractors", "dots", code)
    status, out, err = shic("features", "imgs", "--extractor", "dots", "--device", "cpu")
    lines = err.splitlines()
    assert (status, out, len(lines)) == (1, "", 2), err
    assert lines[0].startswith("shic: error: extractor dots (someones_dots:") and fault in lines[0]
    assert "docs/contracts.md" in lines[1] and "shic_cli.parts.extractors.contract" in lines[1]
    assert not list(folder.glob("features.h5*"))


def test_an_import_that_fails_is_status_3(folder, shic, install):
    install("extractors", "dots", "import no_such_package_here\n")
    status, _, err = shic("features", "imgs", "--extractor", "dots")
    assert status == 3 and "no_such_package_here" in err and "docs/contracts.md" in err


def test_errors_that_a_part_raises_itself_stay_as_they_are(folder, shic, install):
    raising = 'raise SettingError("cells are odd", "give an even number")\n        self.cells,'
    code = broken("        self.cells,", f"        {raising}")
    install("extractors", "dots", f"from shic_cli.base.errors import SettingError\n{code}")
    status, _, err = shic("features", "imgs", "--extractor", "dots")
    assert status == 2 and err.splitlines() == ["shic: error: cells are odd", "  give an even number"]


CONSTRUCTOR = "    def __init__(self, argument='', *, device='cpu'): pass\n"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("rgb[..., 0]", "gave a mask that is uint8 (40, 60), not bool (40, 60)"),
        ("rgb[:5, :, 0] > 0", "gave a mask that is bool (5, 60), not bool (40, 60)"),
        ("None", "gave NoneType, not a mask or a list of Found"),
        ("[rgb[..., 0] > 0]", "gave a list that holds ndarray, not Found with an array as its mask"),
    ],
)
def test_a_masker_that_breaks_its_contract_ends_the_run(tmp_path, shic, install, answer, fault):
    install("maskers", "odd", f"class Odd:\n{CONSTRUCTOR}    def __call__(self, rgb): return {answer}\n")
    (tmp_path / "imgs").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"imgs/{name}.png").write_bytes(encode(np.full((40, 60, 3), 90, np.uint8)))
    status, _, err = shic("mask", "imgs", "--masker", "odd", "-o", "found")
    assert status == 1 and err.splitlines()[-2] == f"shic: error: masker odd (someones_odd:Odd): {fault}"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("__call__ = lambda self, scene, rng: scene.normal", "gave a picture that is float32 (48, 48, 3)"),
        (
            "__call__ = lambda self, scene, rng: None",
            "gave a picture that is NoneType, not uint8 (48, 48, 3)",
        ),
        ("side = lambda self, size: size / 2", "has no method __call__"),
        (
            "side = __call__ = lambda self, size, rng=None: size / 2",
            "its side(64) is 32.0, not a whole number",
        ),
    ],
)
def test_a_generator_that_breaks_its_contract_ends_the_run(folder, shic, install, body, fault):
    install("generators", "odd", f"class Odd:\n{CONSTRUCTOR}    {body}\n")
    status, _, err = shic("synth", "--generator", "odd", "--number", "2", "--size", "48", "--poses", "0")
    assert status == 1 and f"generator odd (someones_odd:Odd): {fault}" in err.splitlines()[-2]


def test_a_renderer_that_breaks_its_contract_is_named(small_template, install):
    install(
        "renderers",
        "loop",
        LOOP.replace("torch.full((n, size, size), -1)", "torch.full((n, size, size), -1.0)"),
    )
    config = RenderConfig(azimuths=1, elevations=(10.0,), size=16, renderer="loop")
    with pytest.raises(
        PartError, match=r"gave fragments whose face is torch.float32 \(1, 16, 16\), not torch.int64"
    ):
        render_views(small_template, config)


def test_a_part_that_is_a_network_works(install):
    """torch.nn.Module has a __call__ and a metaclass of its own ways."""
    code = DOTS.replace("class Dots:", "class Dots(torch.nn.Module):").replace("__call__", "forward")
    install(
        "extractors",
        "dots",
        code.replace("        self.name =", "        super().__init__()\n        self.name ="),
    )
    made = registry.make("extractors", "dots")
    assert made(torch.ones(2, 3, 64, 64), torch.ones(2, 1, 64, 64)).shape == (2, 4, 8, 8)
