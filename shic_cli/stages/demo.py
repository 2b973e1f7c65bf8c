"""The demo: photos of a posed T-Rex with exact labels, the pipeline's command lines, a summary picture."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from shic_cli.base.devices import chance
from shic_cli.base.errors import InputError, ShicError, counted
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.result_settings import DemoConfig
from shic_cli.base.settings import DP_SCALE, SynthConfig
from shic_cli.files.annotations import read_annotations
from shic_cli.files.arrays import read_template
from shic_cli.files.atomic import Journal, atomic
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Surface, Template
from shic_cli.files.photos import decode, encode
from shic_cli.files.pictures import color_map, contact_sheet
from shic_cli.stages.demo_animal import Animal
from shic_cli.stages.remap import lay, load_texture
from shic_cli.stages.synth import Synthesizer
from shic_cli.stages.synth_frames import Picture
from shic_cli.stages.template_pictures import sides_picture
from shic_cli.surface.surface_points import SurfacePoints

log = logging.getLogger("shic")

MESH_VERTICES = 2000
POINTS = 150  # annotated points in a photo
INSET = 3  # pixels between an annotated point and the outline, as an annotator would keep
TEXTURE = "checker"
MAPS = {"zero-shot": "zero_shot", "trained": "predictions"}  # name in the summary -> name of the maps file
# The files that the demo writes, and those that a stopped run of a command leaves beside them.
OUTPUTS = (
    *(
        "trex.obj",
        "annotations.json",
        "template.h5*",
        "views.*",
        "pgt.h5*",
        "synth.*",
        "model.*",
        "zero_shot.*",
        "predictions*",
    ),
    *(
        "remap/*",
        "predictions/*",
        "match.*",
        "view.html",
        "summary.png",
        "imgs/trex_*",
        "masks/trex_*",
        "test/imgs/trex_*",
        "test/masks/trex_*",
    ),
)


SUMMARY = "summary.png"  # the last file that the demo writes; beside it lies the journal until then
SCORE = "shic eval"  # begins the lines whose figures the demo shows


class Done:
    """The command lines of a demo that are done, with what each printed on stdout."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.outputs: dict[str, str] = dict(json.loads(record) for record in journal.records())

    def add(self, line: str, output: str) -> None:
        """Keep that `line` is done."""
        self.outputs[line] = output
        self.journal.append(json.dumps([line, output]).encode())

    def figures(self) -> list[dict[str, Any]]:
        """What each line of `eval` found, in their order."""
        return [json.loads(text) for line, text in self.outputs.items() if line.startswith(SCORE)]


@contextmanager
def opened(folder: Path, settings: dict[str, Any], overwrite: bool) -> Iterator[Done]:
    """The finished lines of the demo in `folder`, which is created; the block makes the others.

    A demo that was stopped goes on, if it was begun with the same `settings`. If no line is done, the files
    of an earlier demo are removed, and all others are kept. ShicError if the folder holds anything else than
    such a demo, unless `overwrite` is true.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is not a folder", "give another name")
    target = folder.absolute() / SUMMARY  # the lines run in the folder
    goes_on = target.with_name(f"{SUMMARY}.journal").is_file()
    if folder.exists() and any(folder.iterdir()) and not (goes_on or overwrite):
        raise ShicError(
            f"{folder}: exists and is not empty",
            "give another name, or --overwrite to replace an earlier demo",
        )
    folder.mkdir(parents=True, exist_ok=True)
    journal, finished = Journal(target, settings, replace=overwrite), False
    try:
        done = Done(journal)
        for path in (path for pattern in OUTPUTS for path in folder.glob(pattern) if not done.outputs):
            if path.is_file():
                path.unlink()
        yield done
        finished = True
    finally:
        journal.close(remove=finished)


def lines(config: DemoConfig, names: list[str], device: str = "auto", seed: int = 0) -> list[str]:
    """The pipeline's command lines, as a user types them in the demo's folder.

    `names` are the test photos.
    """
    device_option = "" if device == "auto" else f" --device {device}"
    seed_option = f" --seed {seed}" if seed else ""
    return [
        f"shic template prep trex.obj --vertices {config.vertices}",
        f"shic render --azimuths 8 --size {config.size} --contact-sheet views.png{device_option}",
        f"shic pseudo-gt imgs/ --extractor silhouette -o pgt.h5{device_option}",
        f"shic synth --number {config.synthetic} --size {config.size} --contact-sheet synth.png"
        f"{seed_option}{device_option}",
        f"shic train --encoder picture --start animals --fits 0 --epochs {config.epochs}"
        f"{seed_option}{device_option}",
        f"shic predict test/imgs/ -o predictions.maps.h5{device_option}",
        f"shic pseudo-gt test/imgs/ --extractor silhouette -o zero_shot.maps.h5{device_option}",
        f"{SCORE} geodesic zero_shot.maps.h5 --annotations annotations.json",
        f"{SCORE} geodesic predictions.maps.h5 --annotations annotations.json",
        f"shic remap predictions.maps.h5 --texture {TEXTURE} -o remap/",
        f"shic match test/imgs/{names[0]} test/imgs/{names[-1]} -o match.png{device_option}",
        "shic info model.safetensors",
        "shic view zero_shot.maps.h5 predictions.maps.h5 --annotations annotations.json -o view.html",
    ]


def write_example(
    folder: Path,
    config: DemoConfig,
    device: torch.device,
    seed: int = 0,
    track: Track = plain_track,
    is_there: bool = False,
) -> dict[str, np.ndarray]:
    """Write the mesh, photos, masks and annotations; the vertices `(H, W)` of each test photo by name.

    The files are trex.obj, imgs/, masks/, test/imgs/, test/masks/ and annotations.json. The vertices are
    those of trex.obj, -1 for none. The animal is posed in the photos, and at rest in the mesh. If the example
    `is_there`, nothing is written.
    """
    animal = Animal.make(MESH_VERTICES)
    maker = Synthesizer(
        animal.verts, animal.faces, SynthConfig(size=config.size, elevation=(-5, 30), fill=(0.6, 0.9)), device
    )
    plan = [("test/", i) for i in range(config.tests)]
    if not is_there:
        photos = counted(config.photos, "photos")
        log.info("demo: drawing %s of a posed T-Rex for training and %d for testing", photos, config.tests)
        plan = [("", i) for i in range(config.photos)] + plan
    truth: dict[str, np.ndarray] = {}
    for part, i in track(plan, len(plan), "photos"):
        rng = chance(seed, "demo", part, i)
        picture = maker.make(rng, animal.pose(rng))
        name = f"trex_{i:04d}"
        if part:
            truth[f"{name}.jpg"] = picture.vertex
        if not is_there:
            write_photo(folder / part, name, picture)
    if is_there:
        return truth
    write_obj(folder / "trex.obj", animal.verts, animal.faces)
    annotations = annotate(truth, "trex", chance(seed, "demo", "points"))
    with atomic(folder / "annotations.json") as partial:
        partial.write_text(json.dumps(annotations), "utf-8")
    return truth


def write_obj(path: Path, verts: np.ndarray, faces: np.ndarray) -> None:
    """Write a mesh as v and f lines, with its vertices in their order."""
    rows = ["v {:.6f} {:.6f} {:.6f}".format(*vertex) for vertex in verts] + [
        "f {} {} {}".format(*face) for face in faces + 1
    ]
    with atomic(path) as partial:
        partial.write_text("\n".join(rows) + "\n", "utf-8")


def write_photo(folder: Path, name: str, picture: Picture, photos: str = "imgs") -> None:
    """Write `photos`/NAME.jpg and masks/NAME.png below `folder`."""
    for kind, suffix, image in (
        (photos, ".jpg", picture.rgb),
        ("masks", ".png", picture.mask[..., None].repeat(3, -1) * np.uint8(255)),
    ):
        target = folder / kind / f"{name}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as partial:
            partial.write_bytes(encode(image, suffix))


def annotate(truth: dict[str, np.ndarray], kind: str, rng: np.random.Generator) -> dict[str, list]:
    """A DensePose-style annotation file of the class `kind`, as JSON values.

    It has random points at least INSET pixels inside each object, with exact vertices.
    """
    images, annotations = [], []
    for i, (name, vertex) in enumerate(truth.items(), 1):
        height, width = vertex.shape
        images.append({"id": i, "file_name": name, "width": width, "height": height})
        mask = (vertex >= 0).astype(np.uint8)
        inner = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 5)[1:-1, 1:-1] > INSET
        rows, columns = np.nonzero(inner if inner.any() else mask)
        chosen = rng.choice(len(rows), min(POINTS, len(rows)), replace=False)
        rows, columns = rows[chosen], columns[chosen]
        left, top, wide, high = cv2.boundingRect(mask)
        points = {
            "dp_x": ((columns + 0.5 - left) * DP_SCALE / wide).round(4).tolist(),
            "dp_y": ((rows + 0.5 - top) * DP_SCALE / high).round(4).tolist(),
            "dp_vertex": vertex[rows, columns].tolist(),
        }
        box = {"bbox": [left, top, wide, high], "area": int(mask.sum()), "iscrowd": 0, "ref_model": kind}
        annotations.append({"id": i, "image_id": i, "category_id": 1, **box, **points})
    return {"images": images, "categories": [{"id": 1, "name": kind}], "annotations": annotations}


def chance_error(template: Template, annotations: Path) -> float:
    """The mean geodesic error of random vertices, all equally likely, at the annotated points."""
    vertex = np.concatenate([points.vertex for points in read_annotations(annotations)])
    return float(template.geodesic[:, template.source_to_vertex[vertex]].mean())


def figures(folder: Path, zero_shot: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """The demo's results: the geodesic error of chance, and what `eval` said of both kinds of map."""
    by_chance = chance_error(read_template(folder / "template.h5"), folder / "annotations.json")
    return {"chance": {"mean": by_chance}, "zero_shot": zero_shot, "trained": trained}


def summary(folder: Path, truth: dict[str, np.ndarray], rows: int = 4, side: int = 208) -> np.ndarray:
    """The demo in one picture `(H, W, 3)` uint8: the template, and for some test photos the results.

    A photo's row has the maps, the truth and a texture. The captions give each map's mean geodesic error over
    all of the object's pixels.
    """
    template = read_template(folder / "template.h5")
    surface = Surface.of(template)
    texture, finder = load_texture(TEXTURE, surface), SurfacePoints(surface)
    files = {kind: ItemReader(folder / f"{name}.maps.h5", "shic/maps") for kind, name in MAPS.items()}
    tiles, captions = [], []
    for name in list(truth)[:rows]:
        photo = decode((folder / "test/imgs" / name).read_bytes(), name)[0]
        exact = np.where(truth[name] >= 0, template.source_to_vertex[truth[name]], -1)
        maps = {kind: reader[name].vertex for kind, reader in files.items()}
        both = {kind: (vertex >= 0) & (exact >= 0) for kind, vertex in maps.items()}
        errors = {
            kind: template.geodesic[vertex[both[kind]], exact[both[kind]]].mean()
            for kind, vertex in maps.items()
        }
        tiles += [photo, *(color_map(photo, vertex, surface.colors) for vertex in (*maps.values(), exact))]
        tiles.append(lay(photo, maps["trained"], finder, texture))
        captions += [
            "photo",
            *(f"{kind}: error {error:.1f}" for kind, error in errors.items()),
            "truth",
            "texture by the trained map",
        ]
    sheet = contact_sheet(tiles, 5, captions, side)
    width = sheet.shape[1]
    sides = cv2.resize(sides_picture(template), (width, width // 4), interpolation=cv2.INTER_AREA)
    return np.concatenate([sides, sheet])
