"""`shic export`: each file is read back by the library that its users use."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import trimesh

from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Surface, Template
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.photo_lists import list_images
from shic_cli.files.photos import encode
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.encode import cut, decoder_input
from shic_cli.learning.model_file import Saved, save_model
from shic_cli.parts.extractors.picture import Picture
from shic_cli.stages.export_mesh import make_atlas
from shic_cli.stages.predict import Predictor
from shic_cli.stages.template_pictures import uv_picture

Shic = Callable[..., tuple[int, str, str]]


@pytest.fixture
def painted(small_template: Template, small_template_file: Path) -> Path:
    """maps.h5 of two photos that show the front and the back half of the template from its left, each pixel
    in its vertex's own colour.
    """
    path = small_template_file.with_name("maps.h5")
    attrs = {"labels": "predicted", "template": small_template.fingerprint}
    z, y = (small_template.verts[:, axis] for axis in (2, 1))
    left = small_template.verts[:, 0] > 0.02
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for name, half in (("back.png", z < 0.05), ("front.png", z > -0.05)):
            shown = np.flatnonzero(left & half)
            pixels = np.stack([(0.5 - y[shown]) * 90 + 5, (z[shown] + 0.5) * 110 + 5], 1).round().astype(int)
            grid = np.stack(np.meshgrid(np.arange(100), np.arange(120), indexing="ij"), -1)
            away = np.linalg.norm(grid[:, :, None] - pixels[None, None], axis=-1)
            vertex = np.where(away.min(-1) < 4, shown[away.argmin(-1)], -1)
            rgb = np.where((vertex >= 0)[..., None], small_template.colors[vertex], 255).astype(np.uint8)
            data = np.frombuffer(encode(rgb), np.uint8)
            writer.add(name, encoded=data, mask=vertex >= 0, vertex=vertex, score=(vertex >= 0) * 0.5)
    return path


@pytest.mark.parametrize("suffix", [".glb", ".ply"])
def test_a_template_keeps_its_vertices_faces_and_colours(
    shic: Shic, small_template: Template, small_template_file: Path, suffix: str
) -> None:
    assert shic("export", "template.h5", "-o", f"t{suffix}")[0] == 0
    mesh: Any = trimesh.load(small_template_file.with_name(f"t{suffix}"), process=False, force="mesh")
    assert np.abs(mesh.vertices - small_template.verts).max() < 1e-6
    assert (mesh.faces == small_template.faces).all()
    assert (np.asarray(mesh.visual.vertex_colors)[:, :3] == small_template.colors).all()
    status, _, err = shic("export", "template.h5", "-o", f"t{suffix}")
    assert status == 1 and "is there already" in err


def test_a_template_has_a_texture_to_paint_on(
    shic: Shic, small_template: Template, small_template_file: Path
) -> None:
    assert shic("export", "template.h5", "-o", "paint.png")[0] == 0
    picture = cv2.imread(str(small_template_file.with_name("paint.png")))
    assert (picture == uv_picture(small_template)[..., ::-1]).all() and len(np.unique(picture)) > 50


def test_a_model_has_its_mesh_too_and_an_unknown_ending_is_told(shic: Shic, small_model_file: Path) -> None:
    assert shic("export", "model.safetensors", "-o", "t.ply")[0] == 0
    mesh: Any = trimesh.load(small_model_file.with_name("t.ply"), process=False)
    assert len(mesh.vertices) == 642
    for ending in (".txt", ".csv"):
        status, _, err = shic("export", "model.safetensors", "-o", f"t{ending}")
        assert (
            status == 1 and f"a template is not written as {ending}" in err and "known here: .glb .ply" in err
        )
        assert len(err.strip().splitlines()) == 2
    assert shic("export", "model.safetensors")[0] == 2


def test_texels_of_an_atlas_are_where_uv_says(small_template: Template) -> None:
    atlas = make_atlas(Surface.of(small_template), 128)
    uv = np.einsum("pi,pij->pj", atlas.bary, small_template.uv[small_template.face_uv[atlas.face]])
    at = np.stack([uv[:, 0] * 128 - 0.5, (1 - uv[:, 1]) * 128 - 0.5], 1)
    off = np.linalg.norm(at - np.stack([atlas.column, atlas.row], 1), axis=1)
    assert np.quantile(off, 0.95) < 1.5  # the fill takes texels beside a face
    assert np.median(off) < 1e-3 and len(atlas.row) > 1000


def test_a_baked_texture_shows_the_photos_colours_at_their_vertices(
    shic: Shic, painted: Path, small_template: Template
) -> None:
    pygltflib = pytest.importorskip("pygltflib")
    assert shic("export", "maps.h5", "-o", "seen.ply")[0] == 0
    mesh: Any = trimesh.load(painted.with_name("seen.ply"), process=False)
    colors = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(float)
    seen = np.unique(np.concatenate([item.vertex.ravel() for item in ItemReader(painted, "shic/maps")]))[1:]
    off = np.abs(colors[seen] - small_template.colors[seen]).mean(1)
    assert np.median(off) < 8 and len(seen) > 150
    hidden = small_template.verts[:, 0] < -0.05
    assert (
        np.abs(colors[hidden] - small_template.colors[hidden]).mean() < 90
        and (colors[hidden].sum(1) < 765).all()
    )
    assert shic("export", "maps.h5", "-o", "seen.glb", "--size", "256")[0] == 0
    scene = pygltflib.GLTF2().load(str(painted.with_name("seen.glb")))
    assert scene.meshes[0].primitives[0].attributes.TEXCOORD_0 is not None and len(scene.images) == 1
    mesh: Any = trimesh.load(painted.with_name("seen.glb"), process=False, force="mesh")
    assert len(mesh.faces) == len(small_template.faces)
    corners = mesh.vertices[mesh.faces]
    assert np.abs(corners - small_template.verts[small_template.faces]).max() < 1e-6
    uv = mesh.visual.uv[mesh.faces]
    assert np.abs(uv - small_template.uv[small_template.face_uv]).max() < 1e-5
    assert mesh.visual.material.baseColorTexture.size == (256, 256)


def test_a_baked_texture_on_charts_of_its_own(small_template: Template) -> None:
    from shic_cli.stages.export_mesh import bake

    columns = 36  # a chart a face, in a grid
    number = np.arange(len(small_template.faces))
    corner = np.stack([number % columns, number // columns], 1)[:, None] / columns
    uv = (corner + np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]]) / columns).reshape(-1, 2).astype(np.float32)
    arrays = {key: getattr(small_template, key) for key in ("verts", "faces", "mirror", "colors")}
    surface = Surface(**arrays, uv=uv, face_uv=np.arange(len(uv), dtype=np.int32).reshape(-1, 3))
    order = np.argsort(small_template.verts[:, 2], kind="stable")
    vertex = np.repeat(np.repeat(order[:640].reshape(20, 32), 4, 0), 4, 1)
    rgb = small_template.colors[vertex]
    picture = bake(surface, [(rgb, vertex, np.ones(vertex.shape))], 36 * 12)
    atlas = make_atlas(surface, 36 * 12)
    wanted = np.einsum(
        "pi,pij->pj", atlas.bary, small_template.colors[surface.faces[atlas.face]].astype(float)
    )
    off = np.abs(picture[atlas.row, atlas.column] - wanted).mean(1)
    assert np.median(off) < 12 and off.mean() < 20  # colours run smoothly over the surface


def test_points_score_as_the_maps_do(shic: Shic, folder: Path, album: Path, small_template: Template) -> None:
    shic("pseudo-gt", "imgs", "-o", "pgt.h5")
    assert (
        shic("export", "pgt.h5", "-o", "points.csv")[0]
        == shic("export", "pgt.h5", "-o", "points.npz")[0]
        == 0
    )
    assert shic("export", "pgt.h5", "-o", "coco.json", "--number", "40", "--class", "beast")[0] == 0
    results = [
        json.loads(shic("eval", "geodesic", file, "--annotations", "coco.json", "--json")[1])
        for file in ("pgt.h5", "points.csv", "points.npz")
    ]
    assert all(result["mean"] == 0 and result["points"] == 240 for result in results)  # its own points
    with open(folder / "points.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    reader = ItemReader(folder / "pgt.h5", "shic/maps")
    assert len(rows) == sum(int((item.vertex >= 0).sum()) for item in reader)
    row = rows[len(rows) // 2]
    item = reader[row["image"]]
    at = int(float(row["y"])), int(float(row["x"]))
    assert item.vertex[at] == int(row["template_vertex"]) and float(row["score"]) == pytest.approx(
        item.score[at], rel=1e-3
    )
    with np.load(folder / "points.npz") as held:
        assert set(held) == set(rows[0]) and len(held["x"]) == len(rows)
    assert shic("export", "pgt.h5", "-o", "one.csv", "--only", "photo3*")[0] == 0
    with open(folder / "one.csv", newline="") as stream:
        assert {row["image"] for row in csv.DictReader(stream)} == {"photo3.png"}
    status, _, err = shic("export", "pgt.h5", "-o", "none.csv", "--only", "x*")
    assert status == 1 and "none of 6 photos is called like x*" in err


def test_coco_tools_read_masks_and_keypoints(
    shic: Shic, folder: Path, album: Path, small_template: Template
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    shutil_maps = ItemReader(album / "truth.h5", "shic/maps")
    (folder / "truth.h5").write_bytes((album / "truth.h5").read_bytes())
    first = next(iter(shutil_maps))
    vertex = int(first.vertex[first.vertex >= 0][7])
    state = {"template": small_template.fingerprint, "vertices": {"spot": vertex, "far": 0}, "images": {}}
    (folder / "k.json").write_text(json.dumps(state))
    assert shic("export", "truth.h5", "-o", "coco.json", "--points", "k.json", "--near", "5")[0] == 0
    held = coco.COCO(str(folder / "coco.json"))
    assert held.loadCats(1)[0]["keypoints"] == ["spot", "far"]
    for image in held.loadImgs(held.getImgIds()):
        item = shutil_maps[image["file_name"]]
        (annotation,) = held.loadAnns(held.getAnnIds(imgIds=image["id"]))
        assert (held.annToMask(annotation).astype(bool) == (item.mask | (item.vertex >= 0))).all()
        x, y, v = annotation["keypoints"][:3]
        seen = np.unique(item.vertex[item.vertex >= 0])
        distance = small_template.geodesic[vertex][seen].min()  # path lengths, as Paths' but for the scale
        assert v == 2 or distance > 3
        assert v == 0 or small_template.geodesic[vertex, item.vertex[y, x]] < 7
        assert annotation["num_keypoints"] == sum(annotation["keypoints"][2::3]) // 2
    state["template"] = "0" * 64
    (folder / "k.json").write_text(json.dumps(state))
    status, _, err = shic("export", "truth.h5", "-o", "b.json", "--points", "k.json")
    assert status == 1 and "another template" in err


@pytest.mark.parametrize("words", [(), ("--texture", "checker"), ("--beside",)])
def test_a_video_has_a_frame_a_photo(
    shic: Shic, painted: Path, small_template: Template, words: tuple
) -> None:
    av = pytest.importorskip("av")
    assert shic("export", "maps.h5", "-o", "clip.mp4", "--fps", "5", *words)[0] == 0
    with av.open(str(painted.with_name("clip.mp4"))) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264" and float(stream.average_rate) == 5
    width = 240 if words == ("--beside",) else 120
    assert [frame.shape for frame in frames] == [(100, width, 3)] * 2
    video = cv2.VideoCapture(str(painted.with_name("clip.mp4")))
    assert video.read()[0] and video.read()[0] and not video.read()[0]
    vertex = ItemReader(painted, "shic/maps")["front.png"].vertex
    inside = cv2.erode((vertex >= 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    shown = frames[1][:, -120:][inside].astype(float)
    assert (np.abs(shown - small_template.colors[vertex[inside]]).mean() < 45) == (
        words != ("--texture", "checker")
    )


def save_unet(path: Path, template: Template) -> None:
    """An untrained U-Net of this template."""
    encoder = Picture()
    torch.manual_seed(0)
    made = CanonicalMap("unet", encoder.dim, 16, torch.from_numpy(template.eigenvectors)).eval()
    torch.nn.init.normal_(made.C)
    meta = {"encoder": {"name": "picture"}, "encoder_fingerprint": encoder.fingerprint, "decoder": "unet"}
    meta |= {"channels": encoder.dim, "dim": 16, "template": template.fingerprint}
    save_model(path, Saved(made, Surface.of(template), meta), overwrite=True)


def test_onnx_gives_the_models_embeddings(shic: Shic, folder: Path, small_template: Template) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    save_unet(folder / "unet.safetensors", small_template)
    assert shic("export", "unet.safetensors", "-o", "unet.onnx")[0] == 0
    predictor = Predictor(folder / "unet.safetensors", torch.device("cpu"))
    photos = [MaskSource(None).read(image) for image in list_images(["imgs"])[:3]]
    session = runtime.InferenceSession(str(folder / "unet.onnx"), providers=["CPUExecutionProvider"])
    _, images, masks = zip(*(cut(photo, 128) for photo in photos), strict=True)
    found, vertices = session.run(
        None, {"image": torch.stack(images).numpy(), "mask": torch.stack(masks).numpy()}
    )
    wanted = torch.stack([each.grid for each in predictor.embed_all(photos)]).numpy()
    assert found.shape == wanted.shape == (3, 16, 64, 64)
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.abs(vertices - predictor.vertex_embeddings.numpy()).max() < 1e-5


def test_onnx_of_another_encoder_takes_features(shic: Shic, folder: Path, small_model_file: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    assert shic("export", "model.safetensors", "-o", "decoder.onnx")[0] == 0
    predictor = Predictor(small_model_file, torch.device("cpu"))
    photo = MaskSource(None).read(list_images(["imgs"])[0])
    _, image, mask = cut(photo, predictor.encoder.side)
    features = decoder_input(predictor.encoder, image[None], mask[None])
    session = runtime.InferenceSession(str(folder / "decoder.onnx"), providers=["CPUExecutionProvider"])
    found, _ = session.run(None, {"features": features.numpy()})
    wanted = predictor.embed(photo).grid.numpy()
    assert np.abs(found[0] - wanted).max() < 1e-4 * np.abs(wanted).max()
