"""Keypoint transfer between photos: the percentage of correct keypoints, PCK (sec. 4.3)."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from shic_cli.base.devices import chance
from shic_cli.base.errors import Failures, counted, some
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.result_settings import PckConfig
from shic_cli.evaluation.geodesic import ROUNDS, bootstrap
from shic_cli.files.checks import check_indices
from shic_cli.files.items import ItemReader
from shic_cli.files.keypoints import Pair, image_names, with_itself
from shic_cli.files.layouts import Surface, Template
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.names import check_template, meet
from shic_cli.files.photo_lists import ImageFile
from shic_cli.stages.match import Distances, Paths, Side, ThroughTemplate, make_side

if TYPE_CHECKING:
    from shic_cli.stages.predict import Predictor

log = logging.getLogger("shic")

CSM_PAIRS = 10_000  # CSM draws this many pairs
CSM_PADDING = 0.05  # CSM pads the box on each side by this share of it
Transfer = Callable[[Pair], np.ndarray | None]


class Straight:
    """Straight distances through space between a template's vertices, as in CSM, in place of `Paths`."""

    def __init__(self, verts: np.ndarray) -> None:
        self.verts = verts

    def nearest(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of the K vertices the nearest of `vertices` `(K,)`, and the distance to it `(K,)`."""
        distance, index = KDTree(self.verts[vertices]).query(self.verts)
        return vertices[index], distance


def make_paths(surface: Surface | Template, protocol: str) -> Distances:
    """The distances between vertices of `surface` that the protocol takes: along it, or through space."""
    return Straight(surface.verts) if protocol == "csm" else Paths(surface.verts, surface.faces)


def sides_of_maps(
    pairs: Sequence[Pair],
    maps: ItemReader,
    surface: Surface | Template,
    protocol: str = "image",
    track: Track = plain_track,
) -> dict[str, Side]:
    """The photos of `pairs` as `maps` shows them, by name; photos that are not in the file are left out.

    InputError if the file was made with another template.
    """
    check_template(maps, surface.fingerprint)
    paths, sides = make_paths(surface, protocol), {}
    name_in_maps = meet(image_names(pairs), maps.names, stems=True)
    failures = Failures()
    for name, item_name in track(name_in_maps.items(), len(name_in_maps), "read"):
        if item_name is not None:
            item = maps[item_name]
            check_indices(item.vertex, len(surface.verts), f"{maps.path}: {item_name}: vertex", lowest=-1)
            with failures.catch(item_name):
                sides[name] = ThroughTemplate(item_name, item.vertex, item.score, paths)
    return sides


def sides_of_model(
    pairs: Sequence[Pair],
    images: list[ImageFile],
    masks: MaskSource,
    predictor: Predictor,
    config: PckConfig,
    track: Track = plain_track,
) -> dict[str, Side]:
    """The photos of `pairs` as a model sees them, by name.

    Photos that are not among `images`, or that can't be used, are left out.
    """
    paths = make_paths(predictor.surface, config.protocol)
    return _over_images(
        pairs,
        images,
        masks,
        lambda image: make_side(predictor, masks.read(image), config.via, paths, config.target),
        track,
        "predict",
    )


def masks_of_images(
    pairs: Sequence[Pair], images: list[ImageFile], masks: MaskSource, track: Track = plain_track
) -> dict[str, np.ndarray]:
    """The masks `(H, W)` of the photos of `pairs`, by name.

    Photos that are not among `images`, or that can't be used, are left out.
    """
    return _over_images(pairs, images, masks, lambda image: masks.read(image).mask, track, "read")


def _over_images(
    pairs: Sequence[Pair],
    images: list[ImageFile],
    masks: MaskSource,
    make: Callable[[ImageFile], Any],
    track: Track,
    word: str,
) -> dict[str, Any]:
    """The result of `make` for each photo of `pairs` that is among `images` and can be used, by name."""
    results, files = {}, {image.name: image for image in images}
    file_of_name = meet(image_names(pairs), list(files), stems=True)
    masks.prepare([files[file] for file in file_of_name.values() if file is not None])
    failures = Failures()
    for name, file in track(file_of_name.items(), len(file_of_name), word):
        if file is not None:
            with failures.catch(file):
                results[name] = make(files[file])
    masks.notes.tell()
    return results


def through(sides: dict[str, Side]) -> Transfer:
    """A transfer through `sides`, which has both photos of the pair: pixels `(P, 2)` in the target photo."""

    def transfer(pair: Pair) -> np.ndarray:
        return sides[pair.target].find(sides[pair.source].describe(np.floor(pair.source_yx)))[0]

    return transfer


def pck(
    pairs: Sequence[Pair],
    sides: dict[str, Side],
    config: PckConfig,
    seed: int = 0,
    track: Track = plain_track,
    said: set[str] | None = None,
) -> dict[str, Any]:
    """PCK of keypoints that are transferred through `sides`, which are photos by name; see `score`."""
    masks = {name: side.mask for name, side in sides.items()}
    how = {"via": config.via} | ({"target": config.target} if config.via == "template" else {})
    return {**score(pairs, through(sides), masks, config, seed, track, said), **how}


def score(
    pairs: Sequence[Pair],
    transfer: Transfer,
    masks: dict[str, np.ndarray],
    config: PckConfig,
    seed: int = 0,
    track: Track = plain_track,
    said: set[str] | None = None,
) -> dict[str, Any]:
    """The figures of PCK: the share of transferred keypoints that are nearer than alpha times a length.

    The length is the longer side of the target photo, or of CSM's crop; positions are compared as
    `Pair.compared` says.
    `masks` has the photos' objects by name. Keypoints of a pair without a photo or an answer count as wrong.
    The figures of the first alpha stand at the top; if there are several alphas, all their figures are under
    `alphas`. What is missing is logged, unless it is among the messages `said`.
    """
    if config.protocol == "csm":
        pairs, weights = draw_csm(pairs, config.self_pairs != "off")
    else:
        weights = np.ones(len(pairs), int)
    missing, unanswered, right = set(), 0, []
    for pair in track(pairs, len(pairs), "transfer"):
        absent = {pair.source, pair.target} - set(masks)
        answer = None if absent else transfer(pair)
        if answer is None:
            missing |= absent
            unanswered += not absent
            answer = np.full(pair.target_yx.shape, np.nan)
        length = _length(masks[pair.target], config.protocol) if pair.target in masks else 1.0
        distance = np.linalg.norm(answer - pair.compared(pair.target_yx), axis=1)
        right.append(distance[:, None] < np.array(config.alpha) * length)  # NaN is not less
    _warn(sorted(missing), unanswered, len(pairs), set() if said is None else said)
    missed = {"missing_images": len(missing), "missing_pairs": unanswered}
    draws = {"draws": int(weights.sum())} if config.protocol == "csm" else {}
    return {
        "metric": "pck",
        "protocol": config.protocol,
        "average": config.average,
        **_figures(pairs, right, weights, config, seed),
        **draws,
        **missed,
    }


def _warn(missing: list[str], unanswered: int, total: int, said: set[str]) -> None:
    """Log which images and how many pairs lack an answer, where that is not among the messages `said`."""
    images, left = counted(len(missing), "annotated images"), "whose keypoints count as errors"
    messages = [f"no prediction for {images}, {left}: {some(missing)}"] if missing else []
    messages += [f"no answer for {unanswered} of {total} pairs, {left}"] if unanswered else []
    for message in messages:
        if message not in said:
            log.warning("%s", message)
    said.update(messages)


def _length(mask: np.ndarray, protocol: str) -> float:
    """The length in pixels that alpha multiplies: the photo's longer side, or that of CSM's padded box."""
    if protocol == "image":
        return float(max(mask.shape))
    return max(np.ptp(np.flatnonzero(mask.any(axis))) + 1 for axis in (0, 1)) * (1 + 2 * CSM_PADDING)


def draw_csm(pairs: Sequence[Pair], self_pairs: bool = True) -> tuple[list[Pair], np.ndarray]:
    """CSM's draw: the ordered pairs that were drawn, and how often each was drawn `(N,)`.

    10,000 pairs of images are drawn with replacement, in CSM's order of random numbers, and taken in both
    directions. Draws of images that share
    no keypoint are dropped, and without `self_pairs` those of one image twice.
    """
    by_names = {(pair.source, pair.target): pair for pair in pairs}
    by_names |= {
        (pair.target, pair.source): pair.turned()
        for pair in pairs
        if (pair.target, pair.source) not in by_names
    }
    if self_pairs:
        by_names |= {(pair.source, pair.source): pair for pair in with_itself(pairs)}
    names, size = image_names(pairs), CSM_PAIRS
    random = np.random.RandomState(len(names))
    drawn = np.stack([random.randint(len(names), size=size) for _ in range(2)], 1).tolist()
    counts = Counter(
        (names[i], names[j])
        for a, b in drawn
        for i, j in ((a, b), (b, a))
        if (names[i], names[j]) in by_names
    )
    return [by_names[key] for key in counts], np.array(list(counts.values()))


def _figures(
    pairs: Sequence[Pair], right: list[np.ndarray], weights: np.ndarray, config: PckConfig, seed: int
) -> dict[str, Any]:
    """The figures of pairs at the first alpha, then at each alpha, then by class.

    `right` `(P, A)` says for each pair which keypoints are right at which alpha.
    """
    sums, counts = _weighed(pairs, right, weights, config.average)
    rows: dict[str, list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        rows[pair.category].append(i)
    parts = {name: rows[name] for name in sorted(rows)} if set(rows) != {""} and len(rows) > 1 else {}
    classes = {
        name: _figures([pairs[i] for i in part], [right[i] for i in part], weights[part], config, seed)
        for name, part in parts.items()
    }
    by_alpha = []
    for i, alpha in enumerate(config.alpha):
        at_alpha: dict[str, Any] = {
            "alpha": alpha,
            "pck": float(sums[:, i].sum() / counts.sum()),
            "ci95": _interval(pairs, sums[:, i], counts, seed),
        }
        if classes:
            shares = [figures.get("alphas", [figures])[i]["pck"] for figures in classes.values()]
            numbers = [figures["pairs"] for figures in classes.values()]
            at_alpha |= {
                "mean_of_classes": float(np.mean(shares)),
                "mean_by_pairs": float(np.average(shares, weights=numbers)),
            }
        if config.protocol == "csm":
            at_alpha["mean_of_kinds"] = _mean_of_kinds(pairs, [hits[:, i] for hits in right], weights)
        by_alpha.append(at_alpha)
    several = {"alphas": by_alpha} if len(by_alpha) > 1 else {}
    return {
        "pairs": len(pairs),
        "keypoints": sum(map(len, right)),
        **by_alpha[0],
        **several,
        **({"classes": classes} if classes else {}),
    }


def _weighed(
    pairs: Sequence[Pair], right: list[np.ndarray], weights: np.ndarray, average: str
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair the right keypoints at each alpha `(P, A)`, and all keypoints `(P,)`.

    They are scaled so that the ratio of their sums is the mean over keypoints, pairs or classes.
    """
    numbers = np.array([len(hits) for hits in right])
    share = np.stack([hits.mean(0) for hits in right])
    counts = weights * (1.0 if average == "image" else numbers)
    if average == "class":
        place = np.unique([pair.category for pair in pairs], return_inverse=True)[1].reshape(-1)
        counts = counts / np.bincount(place, counts)[place]
    return share * counts[:, None], counts


def _interval(pairs: Sequence[Pair], sums: np.ndarray, counts: np.ndarray, seed: int) -> list[float]:
    """The 95 % interval of sum(sums) / sum(counts), by bootstrap.

    Pairs of a list are drawn again. If keypoints have names, every two images are a pair, and images are
    drawn.
    """
    names = image_names(pairs)
    if not any(pair.kinds for pair in pairs) or len(names) < 3:
        return bootstrap(sums, counts, seed)
    place = {name: i for i, name in enumerate(names)}
    source, target = (np.array([place[getattr(pair, key)] for pair in pairs]) for key in ("source", "target"))
    random, shares = chance(seed, "bootstrap"), []
    for _ in range(ROUNDS):
        drawn = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        often = drawn[source] * drawn[target]
        if often.any():
            shares.append((often * sums).sum() / (often * counts).sum())
    return [float(value) for value in np.percentile(shares, [2.5, 97.5])]


def _mean_of_kinds(pairs: Sequence[Pair], right: list[np.ndarray], weights: np.ndarray) -> float | None:
    """The mean over kinds of keypoint of the share that is right; None if the file names no kinds.

    `right` `(P,)` says for each pair which keypoints are right.
    """
    shares: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for pair, hits, weight in zip(pairs, right, weights.tolist(), strict=True):
        for kind, hit in zip(pair.kinds, hits.tolist(), strict=False):
            shares[kind][0] += weight * hit
            shares[kind][1] += weight
    return float(np.mean([count / total for count, total in shares.values()])) if shares else None
