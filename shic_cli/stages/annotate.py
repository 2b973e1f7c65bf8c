"""`shic annotate`: clicked points of photos, as keypoints and as DensePose points on the template.

The work is kept in a folder: `keypoints.json` holds everything and is what `shic eval pck` reads;
`annotations.json` is made of it, for `shic eval geodesic`.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.base.settings import DP_SCALE
from shic_cli.files.annotations import get, pixels, read_json
from shic_cli.files.atomic import atomic
from shic_cli.files.checks import check_indices, parse_json
from shic_cli.files.items import Item, ItemReader
from shic_cli.files.layouts import Surface, Template
from shic_cli.files.locks import Lock
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.names import check_template
from shic_cli.files.photo_lists import ImageFile
from shic_cli.files.photos import decode
from shic_cli.stages.local_server import Answer, LocalServer, Request
from shic_cli.stages.page import jpeg, packed, photo_data, shown_size, surface_data, write_page

KEYPOINTS, ANNOTATIONS = "keypoints.json", "annotations.json"
SILENT = 15.0  # seconds without a sign of life after which a tab is taken to be closed
LONGEST = 80  # characters of a point's name


class Work:
    """The annotations of a folder: `state` is what keypoints.json holds, saved whole by `save`.

    `names` are the points' names, `vertices` their template vertices where they are known; of each image
    `points` are the pixels [x, y] by name, `free` points without a name as [x, y, vertex], `size`, `box` and
    `area` what DensePose's format wants. InputError if the file that is there is of another template."""

    def __init__(self, folder: Path, template: Template, names: Sequence[str], category: str) -> None:
        self.folder, self.template, self.category = folder, template, category
        self.source_of = sources_of(template)
        path = folder / KEYPOINTS
        self.state: dict[str, Any] = {"names": [], "vertices": {}, "images": {}}
        if path.exists():
            self.state |= self._read(path)
        self.state["template"] = template.fingerprint
        self.state["names"] = list(dict.fromkeys([*self.state["names"], *names]))

    def _read(self, path: Path) -> dict[str, Any]:
        """The state in `path`, checked; another program's keypoints have no vertices yet."""
        held = read_json(path)
        images = get(held, "images", dict, str(path))
        made_with = held.get("template", self.template.fingerprint)
        if made_with != self.template.fingerprint:
            raise InputError(
                f"{path}: was made on another template", "give that one, or another folder with -o"
            )
        vertices = get({"vertices": {}, **held}, "vertices", dict, str(path))
        self._check_vertices(list(vertices.values()), f"{path}: vertices")
        used: dict[str, None] = {}
        for name, entry in images.items():
            where = f"{path}: images.{name}"
            for key, value in get(entry, "points", dict, where).items():
                pixels(value, (2,), f"{where}.points.{key}")
                used[key] = None
            free = pixels(
                get({"free": [], **entry}, "free", list, where) or np.zeros((0, 3)), (None, 3), where
            )
            self._check_vertices(free[:, 2].tolist(), f"{where}.free")
        names = get({"names": [], **held}, "names", list, str(path))
        return {**held, "names": list(dict.fromkeys([*map(str, names), *used])), "vertices": vertices}

    def _check_vertices(self, vertices: Sequence[Any], where: str) -> None:
        if not all(isinstance(vertex, int | float) and vertex == int(vertex) for vertex in vertices):
            raise InputError(f"{where}: holds something that is no vertex", "correct the file")
        check_indices(np.array(vertices, int), len(self.template.verts), where)

    def entry(self, name: str) -> dict[str, Any]:
        """What is known of an image."""
        return self.state["images"].get(name, {"points": {}, "free": []})

    def put(self, name: str, points: dict[str, Any], free: list[Any], about: dict[str, Any]) -> None:
        """Keep the points of an image and what is known `about` it; an image without points is left out."""
        width, height = about["size"]
        for place in [*points.values(), *(place[:2] for place in free)]:
            x, y = pixels(place, (2,), name)
            if not (0 <= x < width and 0 <= y < height):
                raise InputError(f"{name}: the point {x:g}, {y:g} is outside the photo", "")
        self._check_vertices([place[2] for place in free], name)
        if points or free:
            self.state["images"][name] = {
                **self.entry(name), "class": self.category, "points": points, "free": free, **about
            }  # fmt: skip
        else:
            self.state["images"].pop(name, None)

    def put_names(self, names: list[Any], vertices: dict[str, Any]) -> None:
        """Keep the names of points and their vertices. InputError if one is no name, or no vertex."""
        if not all(
            isinstance(name, str) and 0 < len(name) <= LONGEST and name.isprintable() for name in names
        ):
            raise InputError("a point's name is empty, too long or not printable", "give it another one")
        self._check_vertices(list(vertices.values()), "vertices")
        self.state |= {"names": list(dict.fromkeys(names)), "vertices": vertices}

    def save(self) -> None:
        """Write both files, each whole or not at all."""
        for name, value in ((KEYPOINTS, self.state), (ANNOTATIONS, self.densepose())):
            with atomic(self.folder / name) as partial:
                partial.write_text(json.dumps(value, indent=1), encoding="utf-8")

    def densepose(self) -> dict[str, Any]:
        """The points that have a vertex, as DensePose has them in a COCO file: an object an image."""
        images, annotations = [], []
        for name, entry in sorted(self.state["images"].items()):
            points = [
                (*entry["points"][key], vertex)
                for key, vertex in self.state["vertices"].items()
                if key in entry["points"]
            ]
            points += [tuple(point) for point in entry.get("free", [])]
            if points and "size" in entry:
                number, (width, height) = len(images) + 1, entry["size"]
                images.append({"id": number, "file_name": name, "width": width, "height": height})
                annotations.append(self._object(number, entry, points))
        categories = [{"id": 1, "name": self.category}]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _object(self, number: int, entry: dict[str, Any], points: list[tuple]) -> dict[str, Any]:
        """One object. Its box takes in every point, since dp_x and dp_y run over it."""
        x, y, vertex = (np.array(column) for column in zip(*points, strict=True))
        left, top, width, height = entry["box"]
        right, bottom = max(left + width, int(x.max()) + 1), max(top + height, int(y.max()) + 1)
        left, top = min(left, int(x.min())), min(top, int(y.min()))
        box = [left, top, right - left, bottom - top]
        places = (
            (np.floor(at) + 0.5 - low) / size * DP_SCALE
            for at, low, size in ((x, left, box[2]), (y, top, box[3]))
        )
        dp_x, dp_y = (place.tolist() for place in places)
        return {
            "id": number,
            "image_id": number,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": box,
            "area": entry["area"],
            "dp_x": dp_x,
            "dp_y": dp_y,
            "dp_vertex": self.source_of[vertex.astype(int)].tolist(),
        }


def sources_of(template: Template) -> np.ndarray:
    """For each template vertex `(K,)` a vertex of the mesh file that is nearest to it there: the first whose
    nearest template vertex it is; for those that no vertex of the file is nearest to, -1."""
    source = np.full(len(template.verts), -1)
    vertices, first = np.unique(template.source_to_vertex, return_index=True)
    source[vertices] = first
    return source


def read_names(text: str) -> list[str]:
    """The names in a list separated by commas, or in a file with one a line."""
    path = Path(text)
    lines = text.split(",")
    if path.suffix in (".txt", ".json"):
        held = path.read_text(encoding="utf-8") if path.is_file() else None
        if held is None:
            raise InputError(
                f"{path}: there is no such file", "one name a line, or a keypoint JSON with `names`"
            )
        lines = (
            held.splitlines() if path.suffix == ".txt" else get(parse_json(held, text), "names", list, text)
        )
    return [name for name in (str(line).strip() for line in lines) if name]


class Annotator:
    """The page of `shic annotate`: `server` shows photos and saves every click.

    One tab writes at a time: another may look, or take over. Used as a context manager it keeps other
    processes from the folder."""

    def __init__(
        self, work: Work, images: Sequence[ImageFile], maps: ItemReader | None, masks: MaskSource, side: int,
        port: int,
    ) -> None:  # fmt: skip
        if maps is not None:
            check_template(maps, work.template.fingerprint)
        self.work, self.images, self.maps, self.masks, self.side = work, images, maps, masks, side
        self.surface = Surface.of(work.template)
        self.lock, self.writer, self.heard = threading.Lock(), "", 0.0
        routes = {
            ("GET", ""): self._page,
            ("GET", "photo"): self._photo,
            ("GET", "state"): self._state,
            ("POST", "claim"): self._claim,
            ("POST", "release"): self._release,
            ("POST", "save"): self._save,
        }
        self.server = LocalServer(port, routes)

    def __enter__(self) -> Annotator:
        self.held = Lock(self.work.folder / KEYPOINTS.replace(".json", ""))
        return self

    def __exit__(self, *_: object) -> None:
        self.held.release()

    def _page(self, request: Request) -> Answer:
        data = {
            "photos": [image.name for image in self.images],
            "class": self.work.category,
            "surface": surface_data(self.surface),
            "usable": packed([(self.work.source_of >= 0).astype("u1")]),
            "folder": str(self.work.folder),
            "suggests": self.maps is not None,
        }
        stream = io.StringIO()
        write_page(stream, "annotate", self.work.category, (), lambda: data, served=True)
        return Answer.html(stream.getvalue())

    def _image(self, text: str) -> ImageFile:
        if not (text.isascii() and text.isdigit() and int(text) < len(self.images)):
            raise InputError(f"there is no photo {text[:20]}", "open the page again")
        return self.images[int(text)]

    def _photo(self, request: Request) -> Answer:
        """A photo, with its map if there is one."""
        image = self._image(request.rest)
        rgb, _ = decode(image.read(), image.name)
        size = shown_size(rgb.shape[:2], self.side)
        listed: dict[str, Any] = {"name": image.name, "shape": rgb.shape[:2], "size": size, "layers": [None]}
        body = {"jpeg": base64.b64encode(jpeg(rgb, size)).decode(), "maps": [None]}
        if self.maps is not None and image.name in self.maps.keys:
            item = self.maps[image.name]
            if item.vertex.shape == rgb.shape[:2]:
                item = Item(item.name, {**item.arrays, "encoded": np.frombuffer(image.read(), np.uint8)})
                listed, body = photo_data([item], [str(self.maps.path)], self.surface, self.side)
        return Answer.json({"photo": listed, "body": body})

    def _about(self, image: ImageFile) -> dict[str, Any]:
        """Size, box and area of a photo's object, of the whole photo where it has no mask."""
        known = self.work.entry(image.name)
        if {"size", "box", "area"} <= set(known):
            return {key: known[key] for key in ("size", "box", "area")}
        try:
            mask = self.masks.read(image).mask
        except InputError:  # it has no mask, which annotating does not need
            mask = np.ones(decode(image.read(), image.name)[0].shape[:2], bool)
        y, x = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        box = [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)]
        height, width = map(int, mask.shape)
        return {"size": [width, height], "box": box, "area": int(mask.sum())}

    def _state(self, request: Request) -> Answer:
        with self.lock:
            return Answer.json({key: self.work.state[key] for key in ("names", "vertices", "images")})

    def _claim(self, request: Request) -> Answer:
        """Whether the tab that asks may write: the first, one whose predecessor is silent, or by force."""
        asked = parse_json(request.body, "the request")
        session, force = get(asked, "session", str, "the request"), asked.get("force") is True
        with self.lock:
            now = time.monotonic()
            if force or session == self.writer or not self.writer or now - self.heard > SILENT:
                self.writer, self.heard = session, now
            return Answer.json({"writes": session == self.writer})

    def _release(self, request: Request) -> Answer:
        with self.lock:
            if self.writer == get(parse_json(request.body, "the request"), "session", str, "the request"):
                self.writer = ""
        return Answer.json({})

    def _save(self, request: Request) -> Answer:
        """Keep the points of one photo; 409 for a tab that may not write."""
        where = "the request"
        sent = parse_json(request.body, where)
        image = self._image(str(get(sent, "image", int, where)))
        points, free = get(sent, "points", dict, where), get(sent, "free", list, where)
        names, vertices = get(sent, "names", list, where), get(sent, "vertices", dict, where)
        with self.lock:
            if get(sent, "session", str, where) != self.writer:
                return Answer.refusal(409, "another tab writes now", "Take over to go on here.")
            self.heard = time.monotonic()
            self.work.put(image.name, points, free, self._about(image))
            self.work.put_names(names, vertices)
            self.work.save()
        return Answer.json({"saved": len(points) + len(free)})
