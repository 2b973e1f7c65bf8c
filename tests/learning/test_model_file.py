"""The model: E = U C, both decoders, and the file."""

import os
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from shic_cli.base.errors import InputError
from shic_cli.files.layouts import SURFACE, Surface
from shic_cli.learning import model_file
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.model_file import Saved, load_model, read_surface, save_model


def surface() -> Surface:
    verts = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    return Surface(
        verts, faces, np.arange(4, dtype=np.int32), np.zeros((4, 3), np.uint8), verts[:, :2].copy(), faces
    )


def saved(decoder: str = "pointwise") -> Saved:
    torch.manual_seed(0)
    found = CanonicalMap(decoder, 8, 16, torch.randn(4, 3)).eval()
    torch.nn.init.normal_(found.C)
    return Saved(
        found, surface(), {"decoder": decoder, "channels": 8, "dim": 16, "template": surface().fingerprint}
    )


def test_vertex_embeddings_are_the_eigenvectors_times_c_and_start_at_zero():
    eigenvectors = torch.randn(50, 6)
    found = CanonicalMap("pointwise", 8, 16, eigenvectors)
    assert not found.vertex_embeddings().any()
    torch.nn.init.normal_(found.C)
    torch.testing.assert_close(found.vertex_embeddings(), eigenvectors @ found.C)
    assert [name for name, _ in found.named_parameters() if "decoder" not in name] == ["C"]


def test_convolutional_decoder_gives_the_input_resolution_of_a_patch_14_encoder():
    with torch.no_grad():
        embedding, foreground = (
            CanonicalMap("convolutional", 384, 16, torch.randn(5, 3))
            .eval()
            .embed(torch.randn(1, 384, 16, 16))
        )
    assert embedding.shape == (1, 16, 224, 224) and foreground.shape == (1, 224, 224)


def test_convolutional_decoder_averages_finer_grids():
    found, grid = CanonicalMap("convolutional", 8, 16, torch.randn(5, 3)).eval(), torch.randn(1, 8, 16, 16)
    fine = grid.repeat_interleave(3, 2).repeat_interleave(3, 3)
    with torch.no_grad():
        for one, other in zip(found.embed(fine), found.embed(grid), strict=True):
            torch.testing.assert_close(one, other)
        assert found.embed(torch.randn(1, 8, 37, 37))[0].shape == (1, 16, 224, 224)
        assert found.embed(torch.randn(1, 8, 14, 14))[0].shape == (1, 16, 192, 192)


def test_a_unet_gives_half_the_resolution_and_sees_the_whole_picture():
    found = CanonicalMap("unet", 4, 16, torch.randn(5, 3)).eval()
    pixels = torch.randn(1, 4, 128, 128, requires_grad=True)
    embedding, foreground = found.embed(pixels)
    assert embedding.shape == (1, 16, 64, 64) and foreground is None
    (reach,) = torch.autograd.grad(embedding[0, :, 0, 0].sum(), pixels)
    assert reach[0, :, 100:, 100:].abs().sum() > 0  # the far corner


def test_pointwise_decoder_commutes_with_picking_pixels():
    found = saved().map
    features = torch.randn(2, 8, 5, 5)
    dense, foreground = found.embed(features)
    assert dense.shape == (2, 16, 5, 5) and foreground is None
    torch.testing.assert_close(dense[:, :, 3, 1], found.decoder(features[:, :, 3, 1]))


@pytest.mark.parametrize("decoder", ["pointwise", "convolutional", "released", "unet"])
def test_a_model_comes_back_from_its_file_as_it_was(tmp_path, decoder):
    one, path = saved(decoder), tmp_path / "m.safetensors"
    save_model(path, one, overwrite=False)
    other = load_model(path)
    features = torch.randn(1, 8, 32, 32) if decoder == "unet" else torch.randn(1, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(one.map.embed(features)[0], other.map.embed(features)[0])
    torch.testing.assert_close(one.map.vertex_embeddings(), other.map.vertex_embeddings())
    for name in SURFACE:
        assert np.array_equal(getattr(one.surface, name), getattr(other.surface, name))
    assert other.meta["template"] == other.surface.fingerprint
    assert read_surface(path).fingerprint == other.surface.fingerprint
    assert model_file.describe(path)["kind"] == "shic/model"


def test_an_encoder_travels_in_the_file_and_is_counted_apart(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, replace(saved(), encoder={"w": torch.ones(3)}), overwrite=False)
    assert load_model(path).encoder["w"].tolist() == [1, 1, 1]
    found = model_file.describe(path)
    assert found["encoder_tensors"] == 1 and found["fields"]["C"] == [3, 16]
    assert not any(name.startswith(model_file.ENCODER) for name in found["fields"])
    save_model(path, saved(), overwrite=True)
    assert load_model(path).encoder is None and "encoder_tensors" not in model_file.describe(path)


def test_a_surface_is_found_where_none_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"neither model\.safetensors nor template\.h5 is here"):
        model_file.find_surface(None)
    save_model(tmp_path / "other.safetensors", saved(), overwrite=False)
    assert model_file.find_surface(tmp_path / "other.safetensors").fingerprint == surface().fingerprint
    save_model(tmp_path / "model.safetensors", saved(), overwrite=False)
    assert model_file.find_surface(None).fingerprint == surface().fingerprint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.safetensors", b"not a model", "can't be read as safetensors"),
        ("m.safetensors", None, "there is no such file"),
        ("m.h5", b"not a model", "is an HDF5 file, not a model"),
        ("m.h5", None, "there is no such file"),
    ],
)
def test_why_a_file_is_no_model(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: {said}"):
        load_model(tmp_path / name)


def damage(tensors: dict, meta: dict, how: str) -> None:
    if how == "missing tensor":
        del tensors["C"]
    elif how == "other size":
        tensors["C"] = tensors["C"][:, :5].contiguous()
    elif how == "other type":
        tensors["C"] = tensors["C"].double()
    elif how in ("float16", "float64"):
        tensors["surface.verts"] = tensors["surface.verts"].to(getattr(torch, how))
    elif how in ("int16", "int64"):
        tensors["surface.faces"] = tensors["surface.faces"].to(getattr(torch, how))
    elif how == "no surface":
        del tensors["surface.uv"]
    elif how == "endless":
        meta["meta"] = meta["meta"].replace('"dim": 16', f'"dim": {1 << 70}')
    elif how == "not finite":
        tensors["C"][0, 0] = torch.nan
    elif how == "more eigenvectors":
        tensors["eigenvectors"] = torch.randn(5, 3)
    elif how == "fewer eigenvectors":
        tensors["eigenvectors"] = torch.randn(3, 3)
    elif how == "index out of range":
        tensors["surface.faces"][0, 0] = 99
    elif how == "other format":
        meta["format"] = "someone/else"
    elif how in ("newer version", "older version"):
        meta["format_version"] = "2" if how == "newer version" else "0"
    else:
        meta["meta"] = "{"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing tensor", r"a tensor is missing or has another size \('C'\)"),
        ("other size", r"another size \(size mismatch for C: .*\[3, 5\].*\[3, 16\]"),
        ("other type", r"C is torch.float64, expected torch.float32"),
        *((how, f"surface.verts is {how}, expected float32") for how in ("float16", "float64")),
        *((how, f"surface.faces is {how}, expected int32") for how in ("int16", "int64")),
        ("no surface", r"a tensor is missing or has another size \('surface\.uv'\)"),
        ("endless", "a tensor is missing or has another size"),
        ("not finite", "C is not finite"),
        ("more eigenvectors", "surface.verts and eigenvectors differ in length"),
        ("fewer eigenvectors", "surface.verts and eigenvectors differ in length"),
        ("index out of range", "faces holds numbers outside 0 to 3"),
        ("other format", "expected shic/model 1, found someone/else 1"),
        ("newer version", "expected shic/model 1, found shic/model 2"),
        ("older version", "expected shic/model 1, found shic/model 0"),
        ("broken metadata", "its metadata: is not JSON"),
    ],
)
def test_a_damaged_model_is_refused_and_said_what_is_wrong(tmp_path, how, said):
    path = tmp_path / "m.safetensors"
    save_model(path, saved(), overwrite=False)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        meta = dict(file.metadata())
    damage(tensors, meta, how)
    save_file(tensors, path, metadata=meta)
    with pytest.raises(InputError, match=said):
        load_model(path)


def test_the_numbers_of_a_model_begin_at_a_multiple_of_eight_bytes(tmp_path):
    """As readers that map the file into memory expect."""
    for letters in range(8):
        path = tmp_path / f"{letters}.safetensors"
        model_file.write_tensors(path, {"C": torch.ones(2)}, {"name": "x" * letters})
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
        assert load_file(path)["C"].tolist() == [1, 1]


def header(text: str, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with the header `text`, which says that it is `length` bytes long."""
    return struct.pack("<Q", len(text) if length is None else length) + text.encode() + data


def tensor(shape: str, begin: int, end: int, dtype: str = "F32") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}'


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"not a model",
        b"\xff" * 64,
        header("{}"),
        header("{}", length=1 << 63),
        header("{}", length=90 << 20),
        header("[" * 100_000),
        header('{"__metadata__":{"format":1}}'),
        header('{"C":' + tensor(f"[{1 << 40}]", 0, 1 << 42) + "}"),
        header('{"C":' + tensor(f"[{1 << 62},{1 << 62}]", 0, 8) + "}", bytes(8)),
        header('{"C":' + tensor("[2]", 8, 0) + "}", bytes(8)),
        header('{"C":' + tensor("[2]", 0, 8) + ',"D":' + tensor("[2]", 4, 12) + "}", bytes(12)),
        header('{"C":' + tensor("[2]", 0, 8, "X9") + "}", bytes(8)),
        header('{"C":' + tensor("[0]", 0, 0) + ',"C":' + tensor("[2]", 0, 8) + "}", bytes(8)),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "m.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.safetensors"):
        load_model(path)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("kind", [OSError, ValueError, TypeError, KeyError])
def test_whatever_the_reader_of_tensors_raises_names_the_file(tmp_path, monkeypatch, kind):
    def fails(*_):
        raise kind("odd")

    save_model(tmp_path / "m.safetensors", saved(), overwrite=False)
    monkeypatch.setattr(model_file, "safe_open", fails)
    with pytest.raises(InputError, match=r"m\.safetensors: can't be read as safetensors \(.*odd"):
        load_model(tmp_path / "m.safetensors")
