"""Keypoint transfer between photos: the percentage of correct keypoints, PCK (sec. 4.3)."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from shic_cli.base.devices import chance
from shic_cli.base.errors import Failures, some
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import PckConfig
from shic_cli.evaluation.geodesic import ROUNDS, bootstrap
from shic_cli.files.checks import check_indices
from shic_cli.files.items import ItemReader
from shic_cli.files.keypoints import Pair, image_names
from shic_cli.files.names import check_template, meet
from shic_cli.files.photos import ImageFile, MaskSource
from shic_cli.stages.match import Paths, Side, ThroughTemplate, make_side

log = logging.getLogger("shic")

CSM_PAIRS = 10_000  # that CSM draws
CSM_PADDING = 0.05  # of the box, on each side
Transfer = Callable[[Pair], np.ndarray | None]


class Straight:
    """Distances through space between the vertices of a template, in the place of `Paths`: CSM's way."""

    def __init__(self, verts: np.ndarray) -> None:
        self.verts = verts

    def nearest(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of the K vertices the nearest of `vertices`, `(K,)`, and the distance to it `(K,)`."""
        distance, index = cKDTree(self.verts[vertices]).query(self.verts)
        return vertices[index], distance


def make_paths(surface: Any, protocol: str) -> Any:
    """How far vertices of `surface` are from each other, by the protocol: along the surface, or through
    space.
    """
    return Straight(surface.verts) if protocol == "csm" else Paths(surface.verts, surface.faces)


def sides_of_maps(
    pairs: list[Pair], maps: ItemReader, surface: Any, protocol: str = "image", track: Track = plain_track
) -> dict[str, Side]:  # fmt: skip
    """The photos of `pairs` by their maps; what the file lacks is left out. InputError if it is of another
    template.
    """
    check_template(maps, surface.fingerprint)
    paths, sides = make_paths(surface, protocol), {}
    met = meet(image_names(pairs), maps.names, stems=True)
    failures = Failures()
    for name, found in track(met.items(), len(met), "read"):
        if found is not None:
            item = maps[found]
            check_indices(item.vertex, len(surface.verts), f"{maps.path}: {found}: vertex", lowest=-1)
            with failures.catch(found):
                sides[name] = ThroughTemplate(found, item.vertex, item.score, paths)
    return sides


def sides_of_model(
    pairs: list[Pair], images: list[ImageFile], masks: MaskSource, predictor: Any, via: str, protocol: str = "image",
    track: Track = plain_track,
) -> dict[str, Side]:  # fmt: skip
    """The photos of `pairs` as a model (a Predictor) sees them; those that are not among `images` or can't be
    used are left out.
    """
    paths = make_paths(predictor.surface, protocol)
    return _over_images(
        pairs, images, lambda image: make_side(predictor, masks.read(image), via, paths), track, "predict"
    )


def masks_of_images(
    pairs: list[Pair], images: list[ImageFile], masks: MaskSource, track: Track = plain_track
) -> dict[str, np.ndarray]:
    """The masks `(H, W)` of the photos of `pairs`; those that are not among `images` or can't be used are
    left out.
    """
    return _over_images(pairs, images, lambda image: masks.read(image).mask, track, "read")


def _over_images(
    pairs: list[Pair], images: list[ImageFile], make: Callable[[ImageFile], Any], track: Track, word: str
) -> dict[str, Any]:
    found, files = {}, {image.name: image for image in images}
    met = meet(image_names(pairs), list(files), stems=True)
    failures = Failures()
    for name, file in track(met.items(), len(met), word):
        if file is not None:
            with failures.catch(file):
                found[name] = make(files[file])
    return found


def through(sides: dict[str, Side]) -> Transfer:
    """Takes the keypoints of a pair to the target photo: pixels `(P, 2)`, or None if one of the photos is not
    among `sides`.
    """

    def transfer(pair: Pair) -> np.ndarray | None:
        if pair.source not in sides or pair.target not in sides:
            return None
        return sides[pair.target].find(sides[pair.source].describe(np.floor(pair.source_yx)))[0]

    return transfer


def pck(
    pairs: list[Pair], sides: dict[str, Side], config: PckConfig, seed: int = 0, track: Track = plain_track
) -> dict[str, Any]:
    """PCK of keypoints that go through `sides`, which has the photos by the names of the pairs; see `score`."""
    masks = {name: side.mask for name, side in sides.items()}
    return {**score(pairs, through(sides), masks, config, seed, track), "via": config.via}


def score(
    pairs: list[Pair],
    transfer: Transfer,
    masks: dict[str, np.ndarray],
    config: PckConfig,
    seed: int = 0,
    track: Track = plain_track,
) -> dict[str, Any]:
    """PCK of transferred keypoints: the share that lands nearer than alpha times a length of the target
    photo; pixels are compared.

    The length is the longer side of the photo, or CSM's crop. `masks` has the objects by the names of the
    pairs. Keypoints of a pair that lacks a photo or an answer count as wrong. The first alpha's figures stand
    in front; with several all of them are under `alphas`.
    """
    pairs, weights = draw_csm(pairs) if config.protocol == "csm" else (pairs, np.ones(len(pairs), int))
    missing, unanswered, right = set(), 0, []
    for pair in track(pairs, len(pairs), "transfer"):
        lack = {pair.source, pair.target} - set(masks)
        found = None if lack else transfer(pair)
        if found is None:
            missing |= lack
            unanswered += not lack
            found = np.full(pair.target_yx.shape, np.nan)
        length = _length(masks[pair.target], config.protocol) if pair.target in masks else 1.0
        distance = np.linalg.norm(found - np.floor(pair.target_yx), axis=1)
        right.append(distance[:, None] < np.array(config.alpha) * length)  # NaN is not less
    if missing:
        log.warning(
            "%d annotated images have no prediction; their keypoints count as errors: %s",
            len(missing),
            some(sorted(missing)),
        )
    if unanswered:
        log.warning("%d of %d pairs have no answer; their keypoints count as errors", unanswered, len(pairs))
    missed = {"missing_images": len(missing), "missing_pairs": unanswered}
    draws = {"draws": int(weights.sum())} if config.protocol == "csm" else {}
    return {
        "metric": "pck",
        "protocol": config.protocol,
        **_figures(pairs, right, weights, config, seed),
        **draws,
        **missed,
    }


def _length(mask: np.ndarray, protocol: str) -> float:
    """What alpha is a share of, in pixels: the photo's longer side, or the side of the square around the
    object's box and its padding.
    """
    if protocol == "image":
        return float(max(mask.shape))
    return max(np.ptp(np.flatnonzero(mask.any(axis))) + 1 for axis in (0, 1)) * (1 + 2 * CSM_PADDING)


def draw_csm(pairs: list[Pair]) -> tuple[list[Pair], np.ndarray]:
    """CSM's draw: 10,000 pairs of images with replacement, both directions; the ordered pairs and how often
    each was drawn `(N,)`.

    Images that share no keypoint, or an image with itself, say nothing and are drawn for nothing.
    """
    both = {(pair.source, pair.target): pair for pair in pairs}
    both |= {
        (pair.target, pair.source): pair.turned() for pair in pairs if (pair.target, pair.source) not in both
    }
    names = image_names(pairs)
    drawn = np.random.RandomState(len(names)).randint(len(names), size=(CSM_PAIRS, 2)).tolist()
    counts = Counter(
        (names[i], names[j]) for a, b in drawn for i, j in ((a, b), (b, a)) if (names[i], names[j]) in both
    )
    return [both[key] for key in counts], np.array(list(counts.values()))


def _figures(
    pairs: list[Pair], right: list[np.ndarray], weights: np.ndarray, config: PckConfig, seed: int
) -> dict[str, Any]:
    """The figures of pairs whose keypoints are `right` (P, A) or not at each alpha: at the first, then at
    each, then by class.
    """
    counts = np.array([len(each) for each in right]) * weights
    sums = np.stack([each.sum(0) for each in right]) * weights[:, None]
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
        found = {
            "alpha": alpha,
            "pck": float(sums[:, i].sum() / counts.sum()),
            "ci95": _interval(pairs, sums[:, i], counts, seed),
        }
        if classes:
            shares = [each.get("alphas", [each])[i]["pck"] for each in classes.values()]
            number = [each["pairs"] for each in classes.values()]
            found |= {
                "mean_of_classes": float(np.mean(shares)),
                "mean_by_pairs": float(np.average(shares, weights=number)),
            }
        if config.protocol == "csm":
            found["mean_of_kinds"] = _mean_of_kinds(pairs, [each[:, i] for each in right], weights)
        by_alpha.append(found)
    several = {"alphas": by_alpha} if len(by_alpha) > 1 else {}
    return {
        "pairs": len(pairs),
        "keypoints": sum(map(len, right)),
        **by_alpha[0],
        **several,
        **({"classes": classes} if classes else {}),
    }


def _interval(pairs: list[Pair], sums: np.ndarray, counts: np.ndarray, seed: int) -> list[float]:
    """The 95 % interval: pairs of a list are drawn again; of named keypoints, where every two images are a
    pair, images are.
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


def _mean_of_kinds(pairs: list[Pair], right: list[np.ndarray], weights: np.ndarray) -> float | None:
    """The mean over kinds of keypoint of the share of each that is `right` (P,); None where the file names no
    kinds.
    """
    shares: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for pair, each, weight in zip(pairs, right, weights.tolist(), strict=True):
        for kind, hit in zip(pair.kinds, each.tolist(), strict=False):
            shares[kind][0] += weight * hit
            shares[kind][1] += weight
    return float(np.mean([hits / total for hits, total in shares.values()])) if shares else None
