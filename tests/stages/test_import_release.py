"""The authors' release as a model file. Its layout is written out here a second time, from their description,
with plain functions.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch.nn import functional as F

from shic_cli.base.errors import InputError
from shic_cli.base.result_settings import ReleaseConfig
from shic_cli.base.settings import TemplateConfig
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import Photo
from shic_cli.files.photos import encode
from shic_cli.learning.encode import cut
from shic_cli.learning.model_file import Saved, save_model
from shic_cli.parts.extractors.positions import resized_positions
from shic_cli.stages import import_release
from shic_cli.stages.predict import Predictor
from shic_cli.stages.template import prepare
from shic_cli.surface.geometry import laplacian_basis

Shic = Callable[..., tuple[int, str, str]]
WIDTH, DEPTH, HEADS, DIM, Q = 128, 2, 2, 16, 24
FILES = ("horse.pth", "horse_cse.pth", "horse_lbo.pth")


def image_model() -> dict[str, torch.Tensor]:
    """A state dictionary of the release's names and shapes, but for a narrower and shallower DINOv2, with
    random numbers.
    """
    chance = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "dinov2.cls_token": (1, 1, WIDTH),
        "dinov2.pos_embed": (1, 1 + 37 * 37, WIDTH),
        "dinov2.mask_token": (1, WIDTH),
        "dinov2.patch_embed.proj.weight": (WIDTH, 3, 14, 14),
        "dinov2.patch_embed.proj.bias": (WIDTH,),
    }
    for i in range(DEPTH):
        sizes = {
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }
        for name, shape in {**sizes, "norm1": (WIDTH,), "norm2": (WIDTH,)}.items():
            shapes |= {f"dinov2.blocks.{i}.{name}.weight": shape, f"dinov2.blocks.{i}.{name}.bias": shape[:1]}
        shapes |= {f"dinov2.blocks.{i}.ls1.gamma": (WIDTH,), f"dinov2.blocks.{i}.ls2.gamma": (WIDTH,)}
    shapes |= {"dinov2.norm.weight": (WIDTH,), "dinov2.norm.bias": (WIDTH,)}
    shapes |= {
        "classlayer_224.conv.weight": (512, WIDTH, 1, 1),
        "classlayer_224.conv.bias": (512,),
        "to_224.0.weight": (512, 512, 5, 5),
    }
    for i, (a, b) in {2: (512, 256), 6: (256, 128), 10: (128, 64)}.items():
        shapes[f"to_224.{i}.weight"] = (b, a, 3, 3)
        shapes |= {
            f"to_224.{i + 1}.{name}": (b,) for name in ("weight", "bias", "running_mean", "running_var")
        }
    shapes |= {
        "to_224.14.weight": (32, 64, 3, 3),
        "conv2class.weight": (DIM, 32, 3, 3),
        "conv2class.bias": (DIM,),
    }
    state = {}
    for (
        name,
        shape,
    ) in shapes.items():  # weights scaled so that signals neither fade nor grow from layer to layer
        state[name] = (
            torch.randn(shape, generator=chance)
            * (2 / math.prod(shape[1:]) if len(shape) in (2, 4) else 0.1) ** 0.5
        )
        if name.endswith("running_var") or ("norm" in name and name.endswith("weight")):
            state[name] = state[name].abs() + 0.5
    return state | {f"to_224.{i}.num_batches_tracked": torch.tensor(7) for i in (3, 7, 11)}


def written_out(state: dict[str, torch.Tensor], image: torch.Tensor, training: bool = False) -> torch.Tensor:
    """The embeddings `(1, D, 224, 224)` of an image `(1, 3, 224, 224)` in 0..1 by the release's layout."""
    dino = {
        name.removeprefix("dinov2."): value for name, value in state.items() if name.startswith("dinov2.")
    }

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, dino[f"{name}.weight"], dino[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), dino[f"{name}.weight"], dino[f"{name}.bias"], 1e-6)

    x = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    x = (
        F.conv2d(x, dino["patch_embed.proj.weight"], dino["patch_embed.proj.bias"], stride=14)
        .flatten(2)
        .transpose(1, 2)
    )
    grid = dino["pos_embed"][:, 1:].view(1, 37, 37, WIDTH).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=(16 + 0.1) / 37, mode="bicubic").flatten(2).transpose(1, 2)
    x = torch.cat([dino["cls_token"] + dino["pos_embed"][:, :1], x + grid], 1)
    for i in range(DEPTH):
        qkv = (
            linear(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", x))
            .unflatten(-1, (3, HEADS, WIDTH // HEADS))
            .permute(2, 0, 3, 1, 4)
        )
        weights = (qkv[0] @ qkv[1].transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        x = x + dino[f"blocks.{i}.ls1.gamma"] * linear(
            f"blocks.{i}.attn.proj", (weights @ qkv[2]).transpose(1, 2).flatten(2)
        )
        hidden = F.gelu(linear(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", x)))
        x = x + dino[f"blocks.{i}.ls2.gamma"] * linear(f"blocks.{i}.mlp.fc2", hidden)
    x = norm("norm", x)[:, 1:].transpose(1, 2).unflatten(2, (16, 16))
    x = F.selu(F.conv2d(x, state["classlayer_224.conv.weight"], state["classlayer_224.conv.bias"]))
    x = F.conv2d(x, state["to_224.0.weight"], padding=1)
    for i in (2, 6, 10):
        x = F.conv2d(F.interpolate(x, scale_factor=2), state[f"to_224.{i}.weight"], padding=1)
        mean, var, weight, bias = (
            state[f"to_224.{i + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        mean, var = mean.clone(), var.clone()  # training changes them
        x = F.relu(F.batch_norm(x, mean, var, weight, bias, training))
    x = F.relu(F.conv2d(F.interpolate(x, scale_factor=2), state["to_224.14.weight"], padding=1))
    return F.conv2d(x, state["conv2class.weight"], state["conv2class.bias"], padding=1)


def write_obj(path: Path, verts: np.ndarray, faces: np.ndarray) -> None:
    lines = [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in verts] + [
        "f {} {} {}".format(*face) for face in faces + 1
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def released(small_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with horse.pth, horse_cse.pth, horse_lbo.pth and horse.obj."""
    folder = tmp_path_factory.mktemp("released")
    write_obj(folder / "horse.obj", 3 * small_template.verts + [1, 2, 3], small_template.faces)
    vectors, _, _ = laplacian_basis(small_template.verts.astype(float), small_template.faces, Q)
    torch.save(image_model(), folder / FILES[0])
    torch.save(
        {"weight_matrix": torch.randn(Q, DIM, generator=torch.Generator().manual_seed(1)) * 4},
        folder / FILES[1],
    )
    torch.save(torch.from_numpy(vectors).float(), folder / FILES[2])
    return folder


def import_from(folder: Path, **settings: Any) -> Saved:
    return import_release.import_release(
        *(folder / name for name in FILES), folder / "horse.obj", ReleaseConfig(**settings)
    )


@pytest.fixture(scope="session")
def imported(released: Path) -> Saved:
    return import_from(released)


@pytest.fixture
def here(released: Path, tmp_path: Path) -> Path:
    """The release's files, as links, and a photo with its mask, in the test's own folder."""
    for path in released.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "imgs").mkdir()
    (tmp_path / "masks").mkdir()
    chance = np.random.default_rng(0)
    for name in "ab":
        mask = np.zeros((90, 120), np.uint8)
        mask[20:70, 30:100] = 255
        (tmp_path / "imgs" / f"{name}.png").write_bytes(
            encode(cv2.blur(chance.integers(0, 256, (90, 120, 3), np.uint8), (5, 5)))
        )
        (tmp_path / "masks" / f"{name}.png").write_bytes(encode(np.repeat(mask[..., None], 3, 2)))
    return tmp_path


def test_embeddings_are_those_of_the_layout_written_out(imported: Saved, tmp_path: Path) -> None:
    save_model(tmp_path / "horse.safetensors", imported, overwrite=False)
    predictor = Predictor(tmp_path / "horse.safetensors", torch.device("cpu"))
    rgb = np.random.default_rng(1).integers(0, 256, (100, 90, 3), np.uint8)
    mask = np.zeros((100, 90), bool)
    mask[10:80, 20:60] = True
    photo = Photo("x", b"", rgb, mask)
    found = predictor.embed(photo)
    expected = written_out(image_model(), cut(photo, 224, pillow=True)[1][None])[0]
    assert expected.shape == found.grid.shape == (DIM, 224, 224) and expected.std() > 0.1
    torch.testing.assert_close(found.grid, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert found.foreground is None and predictor.needs_mask
    assert (
        predictor.meta["class"] == "horse"
        and predictor.meta["encoder_fingerprint"] == predictor.encoder.fingerprint
    )


def test_a_model_file_without_all_of_its_encoder_is_refused(imported: Saved, tmp_path: Path) -> None:
    tensors = dict(imported.encoder or {})
    del tensors["encoder.layer.1.norm2.bias"]
    save_model(tmp_path / "m.safetensors", replace(imported, encoder=tensors), overwrite=False)
    with pytest.raises(InputError, match=r"the model's encoder: .*norm2\.bias"):
        Predictor(tmp_path / "m.safetensors", torch.device("cpu"))


def test_a_model_file_without_its_encoders_settings_is_refused(imported: Saved, tmp_path: Path) -> None:
    for encoder in ({"name": "carried"}, None):
        save_model(
            tmp_path / "m.safetensors",
            replace(imported, meta={**imported.meta, "encoder": encoder}),
            overwrite=True,
        )
        with pytest.raises(
            InputError, match=r"m\.safetensors: (carries an encoder, but not its settings|.* \(encoder is)"
        ):
            Predictor(tmp_path / "m.safetensors", torch.device("cpu"))


def test_vertices_keep_their_order_and_their_embeddings(
    imported: Saved, released: Path, small_template: Template
) -> None:
    basis, weights = torch.load(released / FILES[2]), torch.load(released / FILES[1])["weight_matrix"]
    torch.testing.assert_close(imported.map.vertex_embeddings(), basis @ weights)
    np.testing.assert_allclose(imported.surface.verts, small_template.verts, atol=1e-6)
    np.testing.assert_array_equal(imported.surface.faces, small_template.faces)


def test_the_surface_is_that_of_a_template_of_the_same_mesh(imported: Saved, released: Path) -> None:
    for settings in ({}, {"up": "+z", "front": "-y"}):
        made = imported if not settings else import_from(released, **settings)
        template = prepare(released / "horse.obj", TemplateConfig(vertices=0, **settings))
        assert made.meta["template"] == made.surface.fingerprint == template.fingerprint
        for name in ("mirror", "colors", "uv", "face_uv"):
            np.testing.assert_array_equal(getattr(made.surface, name), getattr(template, name))


def test_rows_of_vertices_that_the_file_repeats(
    released: Path, tmp_path: Path, small_template: Template, imported: Saved
) -> None:
    """Eigenvectors of the file's vertices, of which some are doubles that merge, or of what is left
    of them.
    """
    verts, faces = small_template.verts, small_template.faces.copy()
    faces[np.argwhere(faces[:, 0] == 5)[0, 0], 0] = 9
    faces[faces >= 9] += 1
    faces[faces == 10] = np.where(small_template.faces[faces == 10] == 5, 9, 10)
    write_obj(tmp_path / "horse.obj", np.insert(verts, 9, verts[5], 0), faces)
    for name in FILES[:2]:
        (tmp_path / name).symlink_to(released / name)
    basis = torch.load(released / FILES[2])
    for rows in (basis, torch.cat([basis[:9], basis[5:6], basis[9:]])):
        torch.save(rows, tmp_path / FILES[2])
        torch.testing.assert_close(
            import_from(tmp_path).map.vertex_embeddings(), imported.map.vertex_embeddings()
        )


def test_position_embeddings_are_sampled_at_the_hub_models_places() -> None:
    """Of a table that grows by 1 a column, each value is where it was sampled."""
    table = torch.cat([torch.zeros(1, 1, 1), torch.arange(37.0).repeat(37)[None, :, None]], 1)
    row = resized_positions(table, 16)[0, 1:, 0].view(16, 16)[7, 1:-1]
    places = (torch.arange(1, 15) + 0.5) * 37 / 16.1 - 0.5
    assert (row - places).abs().max() < 0.06  # torch's bicubic kernel is not exact on slopes
    assert (row - ((torch.arange(1, 15) + 0.5) * 37 / 16 - 0.5)).abs().max() > 0.15
    assert resized_positions(torch.randn(1, 257, 3), 16).shape == (1, 257, 3)


def test_from_the_command_line_to_a_score(shic: Shic, here: Path) -> None:
    words = ("models", "import", *FILES, "--mesh", "horse.obj", "-o", "model.safetensors")
    assert shic(*words)[0] == 0
    status, _, err = shic(*words)
    assert status == 1 and "is there already" in err
    status, out, _ = shic("info", "model.safetensors", "--json")
    said = json.loads(out)
    assert (
        status == 0
        and said["class"] == "horse"
        and said["decoder"] == "released"
        and said["fields"]["eigenvectors"] == [642, Q]
    )
    assert said["encoder_tensors"] > 40 and not any(name.startswith("encoder.") for name in said["fields"])
    assert shic("predict", "imgs/a.png", "--remap", "checker")[0] == 0
    assert (here / "a.colors.png").exists() and (here / "a.remap.png").exists()
    assert shic("remap", "a.maps.h5", "--texture", "colors", "-o", "x.png")[0] == 0
    for via in ("template", "embedding"):
        status, out, _ = shic("match", "imgs/a.png", "imgs/b.png", "--via", via, "--json", "--overwrite")
        assert status == 0 and json.loads(out)["matches"]
    assert shic("template", "prep", "horse.obj", "--vertices", "0")[0] == 0
    image = {"id": 1, "file_name": "a.png", "height": 90, "width": 120}
    points = {
        "dp_x": [100.0],
        "dp_y": [100.0],
        "dp_vertex": [3],
        "bbox": [30, 20, 70, 50],
        "image_id": 1,
        "category_id": 1,
        "id": 1,
    }
    Path("points.json").write_text(
        json.dumps({"images": [image], "categories": [{"id": 1, "name": "horse"}], "annotations": [points]})
    )
    status, out, err = shic("eval", "geodesic", "a.maps.h5", "--annotations", "points.json", "--json")
    assert status == 0 and json.loads(out)["points"] == 1 and 0 <= json.loads(out)["mean"] < 228, err


def test_without_a_mask_there_is_no_prediction(shic: Shic, here: Path) -> None:
    assert shic("models", "import", *FILES, "--mesh", "horse.obj")[0] == 0
    (here / "masks" / "a.png").unlink()
    status, _, err = shic("predict", "imgs/a.png", "--model", "horse.safetensors", "--masker", "none")
    assert status == 1 and "a.png: has no mask" in err and "--masks" in err


class Trap:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_not_run(released: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()  # the trap works
    sprung.unlink()
    torch.save({"weight_matrix": Trap(sprung)}, tmp_path / "zip.pth")
    torch.save({"weight_matrix": Trap(sprung)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(sprung)))
    for name in ("zip", "old", "plain"):
        for read in (import_release.read_state, import_release.read_basis):
            with pytest.raises(InputError, match="code in a file is never run"):
                read(tmp_path / f"{name}.pth")
    assert not sprung.exists()


def without(state: dict, *names: str) -> dict:
    return {name: value for name, value in state.items() if name not in names}


BAD = {
    "missing": (0, lambda s: without(s, "to_224.0.weight"), "horse.pth: .*lacks to_224.0.weight"),
    "many missing": (0, lambda s: {"a": s["conv2class.bias"]}, "lacks .* and [0-9]+ more; does not know a"),
    "unknown": (
        0,
        lambda s: {**s, "dinov2.register_tokens": torch.zeros(1, 4, WIDTH)},
        "does not know dinov2.register_tokens",
    ),
    "other size": (
        0,
        lambda s: {**s, "conv2class.bias": torch.zeros(3)},
        r"conv2class.bias is \(3,\), not \(16,\)",
    ),
    "odd width": (0, lambda s: {**s, "dinov2.cls_token": torch.zeros(1, 1, 50)}, "not a multiple of 64"),
    "no square": (0, lambda s: {**s, "dinov2.pos_embed": torch.zeros(1, 100, WIDTH)}, "pos_embed"),
    "not finite": (
        0,
        lambda s: {**s, "conv2class.bias": torch.full((16,), torch.nan)},
        "conv2class.bias: .*not finite",
    ),
    "no state": (0, lambda s: [1, 2], "horse.pth: holds no state dictionary"),
    "other C": (
        1,
        lambda s: {"weight_matrix": torch.zeros(Q + 1, DIM)},
        r"horse_cse.pth: .*\(25, 16\), not \(24, 16\)",
    ),
    "no C": (1, lambda s: {}, "horse_cse.pth: .*lacks weight_matrix"),
    "no basis": (2, lambda s: {"weight_matrix": s}, "horse_lbo.pth: .*eigenvectors"),
    "flat basis": (2, lambda s: s[:, 0], r"horse_lbo.pth: .*\(642,\)"),
    "other K": (2, lambda s: s[:-1], "horse_lbo.pth: has 641 rows, but .*horse.obj has 642 vertices"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_file_that_is_not_the_releases_is_refused(released: Path, tmp_path: Path, how: str) -> None:
    number, change, said = BAD[how]
    for path in released.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / FILES[number]).unlink()
    torch.save(change(torch.load(released / FILES[number])), tmp_path / FILES[number])
    with pytest.raises(InputError, match=said):
        import_from(tmp_path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_a_file_that_can_not_be_read_is_not_called_damaged(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(type(error)):
        import_release.read_state(here / FILES[1])


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 not a zip", b"\x00" * 100])
def test_a_file_that_torch_did_not_write_is_refused(shic: Shic, here: Path, content: bytes | None) -> None:
    (here / FILES[1]).unlink()
    if content is not None:
        (here / FILES[1]).write_bytes(content)
    status, out, err = shic("models", "import", *FILES, "--mesh", "horse.obj")
    assert status == 1 and out == "" and "horse_cse.pth: " in err and len(err.splitlines()) == 2
    assert not (here / "horse.safetensors").exists()


def test_eigenvectors_of_another_mesh_are_refused(released: Path, tmp_path: Path) -> None:
    """Also if only a quarter of the rows are out of order."""
    for path in released.iterdir():
        (tmp_path / path.name).symlink_to(path)
    basis, chance = torch.load(released / FILES[2]), torch.Generator().manual_seed(0)
    some = torch.randperm(642, generator=chance)[:160]
    mixed = basis.clone()
    mixed[some] = basis[some.roll(1)]
    for rows in (basis[torch.randperm(642, generator=chance)], mixed):
        (tmp_path / FILES[2]).unlink()
        torch.save(rows, tmp_path / FILES[2])
        with pytest.raises(InputError, match="jump from vertex to vertex"):
            import_from(tmp_path)


def test_doubles_that_come_first_do_not_mix_up_the_rows(
    released: Path, tmp_path: Path, small_template: Template, imported: Saved
) -> None:
    """A quarter of the vertices stand at the top of the file too, where no face uses them. The release's
    reader drops those, so its order is not that of the first of equal vertices.
    """
    verts, faces = small_template.verts, small_template.faces
    doubles = np.random.default_rng(0).permutation(len(verts))[:160]
    write_obj(tmp_path / "horse.obj", np.concatenate([verts[doubles], verts]), faces + len(doubles))
    for name in FILES:
        (tmp_path / name).symlink_to(released / name)
    found = import_from(tmp_path)
    distance, place = KDTree(imported.surface.verts).query(found.surface.verts)
    assert distance.max() < 1e-5 and not np.array_equal(place, np.arange(len(verts)))
    torch.testing.assert_close(found.map.vertex_embeddings(), imported.map.vertex_embeddings()[place])


def test_batch_statistics_are_those_of_each_picture(
    released: Path, imported: Saved, tmp_path: Path, shic: Shic
) -> None:
    """As the release's notebook computes them, one picture at a time, whatever else is in the batch."""
    files = [str(released / name) for name in (*FILES, "horse.obj")]
    own_file = str(tmp_path / "own.safetensors")
    line = ("models", "import", *files[:3], "--mesh", files[3], "--batch-statistics", "-o", own_file)
    assert shic(*line)[0] == 0
    save_model(tmp_path / "trained.safetensors", imported, overwrite=False)
    chance, photos = np.random.default_rng(1), []
    for name in "ab":
        mask = np.zeros((100, 90), bool)
        mask[10:80, 20:60] = True
        photos.append(Photo(name, b"", chance.integers(0, 256, (100, 90, 3), np.uint8), mask))
    own, trained = (
        Predictor(tmp_path / f"{name}.safetensors", torch.device("cpu")) for name in ("own", "trained")
    )
    for photo, found in zip(photos, own.embed_all(photos), strict=True):
        expected = written_out(image_model(), cut(photo, 224, pillow=True)[1][None], training=True)[0]
        torch.testing.assert_close(found.grid, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert (found.grid - trained.embed(photo).grid).abs().max() > 0.1 * expected.std()
