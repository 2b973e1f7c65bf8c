"""The seeds that are mutated, and for each sort what the commands do with such a file, on cases that take
milliseconds.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import trimesh
from gltf_files import rich
from PIL import Image

from shic_cli.base.result_settings import PckConfig
from shic_cli.base.settings import (
    FeatureConfig,
    MasksConfig,
    PredictConfig,
    PseudoGtConfig,
    RenderConfig,
    TemplateConfig,
)
from shic_cli.base.training_settings import TrainConfig
from shic_cli.cli.console import write_picture
from shic_cli.evaluation import geodesic, pck
from shic_cli.evaluation.external import GivenPairs
from shic_cli.evaluation.geodesic import MapsFile, open_predictions, scored, summary
from shic_cli.evaluation.gps import with_precision
from shic_cli.files.annotations import read_annotations
from shic_cli.files.arrays import read_template
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.keypoints import read_pairs
from shic_cli.files.layouts import Surface
from shic_cli.files.mask_checks import check_mask
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.masks import read_mask
from shic_cli.files.names import picture_path
from shic_cli.files.photo_lists import ImageFile, list_images
from shic_cli.files.photos import decode
from shic_cli.files.sheets import maps_sheet
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.examples import Examples
from shic_cli.learning.model_file import Saved, read_surface, save_model
from shic_cli.learning.views import read_views, write_views
from shic_cli.parts import registry
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages import info
from shic_cli.stages.features import write_photo_features, write_view_features
from shic_cli.stages.predict import Predictor, predict
from shic_cli.stages.prediction_pictures import Pictures
from shic_cli.stages.pseudo_gt import pseudo_gt
from shic_cli.stages.remap import OPACITY, load_texture, remap
from shic_cli.stages.render import render_views
from shic_cli.stages.template import prepare, write
from shic_cli.stages.train import open_maps
from shic_cli.surface.poses import Poser

CPU = torch.device("cpu")


def _masks(folder: Path) -> MaskSource:
    """The masks in a folder beside the photos."""
    return MaskSource(MasksConfig(masks=str(folder / "masks")))


SIZE = 24  # pixels a side of every picture


class Tiny:
    """Features `(B, 4, 8, 8)`: colours and mask in cells; a stand-in for a network, so that an input takes
    milliseconds.
    """

    name, side, dim = "tiny", 16, 4
    needs_mask = sees_whole_object = True
    fingerprint, settings = "tiny-1", {"name": "tiny"}

    def __init__(self, argument: str = "", *, device: object = "cpu") -> None:
        self.device = CPU

    def __call__(self, pictures: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(torch.cat([pictures, masks], 1), 2) + 0.1


def hurry() -> None:
    """Few rounds of the bootstrap, in a process of its own: its time says nothing about an input."""
    geodesic.ROUNDS = pck.ROUNDS = 5


def make_seeds(folder: Path) -> dict[str, list[Path]]:
    """Valid files of every sort in `folder`, by sort; and what the stages need beside a mutated one."""
    registry.PARTS["extractors"]["tiny"] = f"{__name__}:Tiny"
    folder.mkdir()
    chance = np.random.default_rng(0)
    ball = trimesh.creation.icosphere(subdivisions=1)
    ball.apply_scale([0.7, 0.8, 1.0])
    meshes = _meshes(folder, ball)
    config = TemplateConfig(vertices=0, eigenvectors=6)
    template = prepare(meshes[0], config)
    write(folder / "template.h5", template, config, meshes[0])
    views = render_views(template, RenderConfig(azimuths=3, elevations=(0.0,), size=16))
    write_views(folder / "views.h5", views, params={}, sources={})
    write_view_features(
        read_views(folder / "views.h5"), folder / "basis.h5", FeatureConfig("tiny", pca=3), CPU, sources={}
    )
    pictures = _pictures(folder / "imgs", folder / "masks", chance)
    photos = [ImageFile.at(path) for path in pictures[:2]]
    write_photo_features(photos, _masks(folder), folder / "features.h5", FeatureConfig("tiny"), CPU)
    write_photo_features(
        photos, _masks(folder), folder / "projected.h5", FeatureConfig(), CPU, basis=folder / "basis.h5"
    )
    for name, of in (("maps.h5", template.fingerprint), ("any.h5", "")):
        with ItemWriter(
            folder / name, "shic/maps", params={}, sources={}, attrs={"labels": "annotated", "template": of}
        ) as writer:
            for photo in photos:
                mask = read_mask(folder / "masks" / f"{photo.path.stem}.png").mask
                vertex = np.where(mask, chance.integers(len(template.verts), size=mask.shape), -1)
                writer.add(
                    photo.name,
                    encoded=np.frombuffer(photo.read(), np.uint8),
                    mask=mask,
                    vertex=vertex,
                    score=mask.astype(float),
                )
    torch.manual_seed(0)
    made = CanonicalMap("pointwise", Tiny.dim, 5, torch.from_numpy(template.eigenvectors)).eval()
    torch.nn.init.normal_(made.C)
    meta = {
        "encoder": {"name": "tiny"},
        "encoder_fingerprint": "tiny-1",
        "decoder": "pointwise",
        "channels": Tiny.dim,
        "dim": 5,
    }
    save_model(
        folder / "model.safetensors",
        Saved(made, Surface.of(template), {**meta, "template": template.fingerprint}),
        False,
    )
    annotations, keypoints = _annotations(folder, [photo.name for photo in photos])
    return {
        "template": [folder / "template.h5"],
        "views": [folder / "views.h5"],
        "features": [folder / "features.h5", folder / "projected.h5", folder / "basis.h5"],
        "maps": [folder / "maps.h5"],
        "model": [folder / "model.safetensors"],
        "image": pictures,
        "video": _videos(folder),
        "mesh": meshes,
        "annotations": [annotations],
        "keypoints": [keypoints],
        "csv": [_csv(folder, [photo.name for photo in photos])],
        "given": _given(folder, [photo.name for photo in photos]),
    }


def _videos(folder: Path) -> list[Path]:
    """A video of three frames in each container that is read."""
    found = []
    for name, code in (("clip.avi", "MJPG"), ("clip.mp4", "mp4v"), ("clip.mkv", "mp4v")):
        found.append(folder / name)
        writer = cv2.VideoWriter(str(found[-1]), cv2.VideoWriter_fourcc(*code), 10, (32, SIZE))
        for i in range(3):
            writer.write(np.full((SIZE, 32, 3), 60 * i, np.uint8))
        writer.release()
    return found


def _meshes(folder: Path, ball: trimesh.Trimesh) -> list[Path]:
    uv = np.asarray(ball.vertices)[:, :2] * 0.4 + 0.5
    painted = trimesh.Trimesh(
        ball.vertices, ball.faces, visual=trimesh.visual.TextureVisuals(uv=uv), process=False
    )
    found = [
        folder / f"ball{i}{suffix}"
        for i, suffix in enumerate((".ply", ".obj", ".off", ".stl", ".glb", ".ply", ".stl", ".gltf"))
    ]
    for i, path in enumerate(found[:5]):
        (painted if path.suffix in (".obj", ".glb") else ball).export(path)
        assert path.exists(), i
    ball.export(found[5], encoding="ascii")
    ball.export(found[6], file_type="stl_ascii")
    found.append(folder / "catalogue.pkl")
    found[-1].write_bytes(
        pickle.dumps({"vertices": np.asarray(ball.vertices), "faces": np.asarray(ball.faces)}, 2)
    )
    for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(ball)).items():
        (found[7] if name.endswith(".gltf") else folder / name).write_bytes(data)
    return [*found, rich().save(folder / "rich.glb")]


def _pictures(folder: Path, masks: Path, chance: np.random.Generator) -> list[Path]:
    """Pictures of every format and mode that is read, and a mask of each."""
    folder.mkdir()
    masks.mkdir()
    rgb = chance.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[4:18, 6:20] = 255
    color, clear = Image.fromarray(rgb), Image.fromarray(np.dstack([rgb, alpha]))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    made: list[tuple[str, Image.Image, dict[str, Any]]] = [
        (".png", color, {}),
        (".jpg", color, {"exif": exif}),
        (".png", clear, {}),
        (".png", color.convert("P"), {"transparency": 3}),
        (".png", Image.fromarray(rgb[..., 0].astype(np.uint16) * 200), {}),
        (".png", color.convert("1"), {"exif": exif}),
        (".jpg", color, {"progressive": True}),
        (".jpg", color.convert("CMYK"), {}),
        (".bmp", color, {}),
        (".gif", color, {}),
        (".tif", clear, {"compression": "tiff_lzw"}),
        (".tif", Image.fromarray(rgb[..., 0].astype(np.float32)), {}),
        (".tif", color, {"compression": "jpeg"}),
        (".webp", clear, {"lossless": True}),
        (".webp", color, {"exif": exif}),
        (".webp", color, {"save_all": True, "append_images": [color.rotate(90)]}),
        (".ppm", color, {}),
    ]
    for i, (suffix, picture, options) in enumerate(made):
        picture.save(folder / f"{i:02d}{suffix}", **options)
        Image.fromarray(alpha).save(masks / f"{i:02d}.png")
    return sorted(folder.iterdir())


def _annotations(folder: Path, names: list[str]) -> tuple[Path, Path]:
    data = {
        "images": [
            {"id": i, "file_name": name, "height": SIZE, "width": SIZE} for i, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "ball"}],
        "annotations": [
            {
                "image_id": i,
                "category_id": 1,
                "bbox": [4, 4, 14, 14],
                "dp_x": [30.0, 90.5],
                "dp_y": [5, 200],
                "dp_vertex": [3, 17],
            }
            for i in range(len(names))
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(data))
    points = {"images": {name: {"points": {"nose": [8, 9.5], "tail": [11, 12]}} for name in names}}
    (folder / "keypoints.json").write_text(json.dumps(points))
    return folder / "annotations.json", folder / "keypoints.json"


def _csv(folder: Path, names: list[str]) -> Path:
    lines = [
        "source_image,target_image,class,XA,YA,XB,YB",
        *(f"{a},{b},1,8;9.5,10;11,12;13,9;9" for a in names for b in names if a != b),
    ]
    (folder / "pairs.csv").write_text("\n".join(lines))
    return folder / "pairs.csv"


def _given(folder: Path, names: list[str]) -> list[Path]:
    """Another program's points, as a table and as arrays."""
    rows = [(name, x, y, i + 3, 0.5) for name in names for i, (x, y) in enumerate([(5, 4), (9, 15)])]
    (folder / "points.csv").write_text(
        "\n".join(["image,x,y,vertex,score", *(",".join(map(str, row)) for row in rows)])
    )
    columns = dict(
        zip(("image", "x", "y", "vertex", "score"), map(np.array, zip(*rows, strict=True)), strict=True)
    )
    np.savez(folder / "points.npz", **columns)
    return [folder / "points.csv", folder / "points.npz"]


@cache
def _template(seeds: Path) -> Any:
    return read_template(seeds / "template.h5")


@cache
def _predictor(seeds: Path) -> Predictor:
    return Predictor(seeds / "model.safetensors", CPU)


def describe(path: Path, seeds: Path) -> None:
    """`shic info`."""
    json.dumps(info.describe(path)).encode()


def use_template(path: Path, seeds: Path) -> None:
    """`shic eval`, `remap`, `render`, `synth`, `train` with this template."""
    template, maps = read_template(path), ItemReader(seeds / "any.h5", "shic/maps")
    _score(MapsFile(maps, template), seeds / "annotations.json", template)
    surface = read_surface(path)
    _transfer(maps, surface, read_pairs(seeds / "pairs.csv"))
    _remap(maps, surface, "grid")
    Poser.of(template)(np.random.default_rng(0))
    render_views(template, RenderConfig(azimuths=1, elevations=(0.0,), size=16))
    open_maps([seeds / "any.h5"], template, TrainConfig())


def use_views(path: Path, seeds: Path) -> None:
    """`shic features`, `pseudo-gt --views`."""
    views = read_views(path)
    write_view_features(views, Path("features.h5"), FeatureConfig("tiny"), CPU, sources={})
    photos = [ImageFile.at(seeds / "imgs" / "00.png")]
    config = PseudoGtConfig(extractor="tiny")
    pseudo_gt(_template(seeds), photos, _masks(seeds), Path("pgt.h5"), config, CPU, sources={}, views=views)


def use_features(path: Path, seeds: Path) -> None:
    """`shic pseudo-gt FEATURES`, `shic features --basis`."""
    views, masks = read_views(seeds / "views.h5"), _masks(seeds)
    if "basis" not in json.dumps(info.describe(path)["params"]):
        reader = ItemReader(path, "shic/features")
        pseudo_gt(
            _template(seeds), reader, masks, Path("pgt.h5"), PseudoGtConfig(), CPU, sources={}, views=views
        )
        return
    photos = [ImageFile.at(seeds / "imgs" / "00.png")]
    write_photo_features(photos, masks, Path("features.h5"), FeatureConfig(), CPU, basis=path)


def use_maps(path: Path, seeds: Path) -> None:
    """`shic eval`, `remap`, `train`, and the contact sheet of `synth`."""
    template = _template(seeds)
    surface, reader = Surface.of(template), ItemReader(path, "shic/maps")
    _score(MapsFile(reader, template), seeds / "annotations.json", template)
    _transfer(reader, surface, read_pairs(seeds / "pairs.csv"))
    _remap(reader, surface, "colors")
    maps_sheet(path, template.colors, 2)
    readers = open_maps([path], template, TrainConfig())
    settings = {
        "points": 10,
        "vertices": len(template.verts),
        "augment": True,
        "variants": 1,
        "flip": True,
        "at_points": True,
        "seed": 0,
    }
    examples = Examples(readers, make_extractor("tiny", CPU), **settings)
    examples.get_all(range(len(examples)), 0)


def use_model(path: Path, seeds: Path) -> None:
    """`shic predict`, `match`, `eval pck`, `remap --template` with this model."""
    predictor = Predictor(path, CPU, PredictConfig(side=32))
    _predict(predictor, [ImageFile.at(seeds / "imgs" / "01.jpg")], _masks(seeds), "checker")
    surface = read_surface(path)
    _remap(ItemReader(seeds / "any.h5", "shic/maps"), surface, str(seeds / "imgs" / "00.png"))


def use_image(path: Path, seeds: Path) -> None:
    """`shic predict` of a photo with a mask from elsewhere, or with its own alpha channel; the picture as a
    texture.
    """
    shutil.copy(path, "00.png")
    _predict(_predictor(seeds), [ImageFile.at(Path("00.png"))], _masks(seeds), None)
    load_texture(str(path), _predictor(seeds).surface)


def use_mask(path: Path, seeds: Path) -> None:
    """The picture as a mask."""
    check_mask(read_mask(path).mask, (SIZE, SIZE), path.name)


def use_video(path: Path, seeds: Path) -> None:
    """Every frame of the file as a photo."""
    for image in list_images([str(path)]):
        decode(image.read(), image.name)


def use_mesh(path: Path, seeds: Path) -> None:
    """`shic template prep`, as it is, made finer and made coarser."""
    for vertices in (0, 60, 20):
        config = TemplateConfig(vertices=vertices, eigenvectors=6)
        prepared = prepare(path, config)
        write(Path("template.h5"), prepared, config, path, overwrite=True)


def use_annotations(path: Path, seeds: Path) -> None:
    """`shic eval geodesic --annotations`."""
    _score(MapsFile(ItemReader(seeds / "maps.h5", "shic/maps"), _template(seeds)), path, _template(seeds))


def use_pairs(path: Path, seeds: Path) -> None:
    """`shic eval pck --keypoints`."""
    _transfer(ItemReader(seeds / "maps.h5", "shic/maps"), Surface.of(_template(seeds)), read_pairs(path))


def use_given(path: Path, seeds: Path) -> None:
    """`shic eval geodesic` of another program's points."""
    _score(open_predictions(path, _template(seeds)), seeds / "annotations.json", _template(seeds))


def use_csv(path: Path, seeds: Path) -> None:
    """`shic eval pck`, as the pairs and as another program's answers to them."""
    use_pairs(path, seeds)
    given = GivenPairs(path)
    for pair in read_pairs(seeds / "pairs.csv"):
        given(pair)


def _score(predictions: Any, annotations: Path, template: Any) -> None:
    found = scored(predictions, read_annotations(annotations), template)
    json.dumps(with_precision(summary(found), found)).encode()


def _transfer(maps: ItemReader, surface: Any, pairs: list) -> None:
    pck.pck(pairs, pck.sides_of_maps(pairs, maps, surface), PckConfig())


def _remap(maps: ItemReader, surface: Any, texture: str) -> None:
    def save(name: str, picture: np.ndarray) -> None:
        target = picture_path(Path("remapped"), name, ".remap.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_picture(target, picture, True)

    remap(maps, surface, load_texture(texture, surface), save, OPACITY, CPU)


def _predict(predictor: Predictor, photos: list[ImageFile], masks: MaskSource, texture: str | None) -> None:
    path = Path("predictions.maps.h5")
    pictures = Pictures(path, predictor.surface, texture, CPU, single=True)
    predict(predictor, photos, masks, path, sources={}, overwrite=True, pictures=pictures)


STAGES: dict[str, list[Callable[[Path, Path], None]]] = {
    "template": [describe, use_template],
    "views": [describe, use_views],
    "features": [describe, use_features],
    "maps": [describe, use_maps],
    "model": [describe, use_model],
    "image": [use_image, use_mask],
    "video": [use_video],
    "mesh": [use_mesh],
    "annotations": [use_annotations],
    "keypoints": [use_pairs],
    "csv": [use_csv],
    "given": [use_given],
}
