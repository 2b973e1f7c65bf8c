"""Keypoint transfer with answers worked out by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scoring import four_vertices, keypoints, one_map, side, write_maps

from shic_cli.base.errors import InputError
from shic_cli.base.result_settings import PckConfig
from shic_cli.evaluation import pck
from shic_cli.files.keypoints import Pair, read_pairs
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.photo_lists import ImageFile
from shic_cli.stages.match import ThroughTemplate, ThroughVertices

CSM = PckConfig(protocol="csm", self_pairs="off")


@pytest.fixture
def template() -> Template:
    return four_vertices()


@pytest.mark.parametrize(("x", "right"), [(13, 1), (14, 0), (13.9, 1)])
def test_pck_just_below_and_at_the_threshold(
    tmp_path: Path, template: Template, x: float, right: int
) -> None:
    pairs = read_pairs(keypoints(tmp_path / "k.json", a={"p": [5, 5]}, b={"p": [x, 5]}))[:1]
    sides = {"a": side(template, {(5, 5): 2}), "b": side(template, {(5, 10): 2, (9, 9): 1})}
    found = pck.pck(
        pairs, sides, PckConfig(alpha=(0.1,))
    )  # of 40 pixels: a distance of 4 is not below the threshold of 4
    assert (found["pairs"], found["keypoints"], found["pck"]) == (1, 1, right)


def test_pck_keypoints_off_the_mask_and_missing_images(tmp_path: Path, template: Template) -> None:
    path = keypoints(tmp_path / "k.json", a={"p": [5, 2]}, b={"p": [30, 10]}, c={"p": [0, 0]})
    sides = {"a": side(template, {(4, 5): 2, (15, 5): 1}), "b": side(template, {(10, 30): 2, (10, 2): 1})}
    found = pck.pck(read_pairs(path), sides, PckConfig())
    assert found["pairs"] == found["keypoints"] == 6 and found["missing_images"] == 1
    assert found["pck"] == pytest.approx(2 / 6)  # a to b and back; whatever has c is wrong
    assert found["ci95"][0] < found["pck"] < found["ci95"][1]


def test_maps_and_models_as_sides(tmp_path: Path, template: Template) -> None:
    pairs = read_pairs(keypoints(tmp_path / "k.json", a={"p": [3, 2]}, b={"p": [3, 2]}))
    maps = write_maps(
        tmp_path / "m.h5",
        {"d/a.jpg": one_map(), "empty.jpg": one_map(), "b.png": np.full((9, 9), -1)},
        template.fingerprint,
    )
    sides = pck.sides_of_maps(pairs, maps, template)
    assert list(sides) == ["a"]  # b has no labelled pixel: it is missing, and the run goes on
    with pytest.raises(InputError, match="another template"):
        pck.sides_of_maps(pairs, maps, replace(template, verts=template.verts * 2))


def to(*answers: list[float]) -> pck.Transfer:
    """Transfers every pair's keypoints to these pixels (y, x)."""
    return lambda pair: np.array(answers, float)[: len(pair.source_yx)]


def pair(target: str, *target_yx: list[float], category: str = "", kinds: tuple[str, ...] = ()) -> Pair:
    yx = np.array(target_yx, float)
    return Pair("a", target, np.zeros_like(yx), yx, kinds, category)


def blank(height: int = 20, width: int = 40) -> np.ndarray:
    """A mask of 10 rows and 5 columns."""
    mask = np.zeros((height, width), bool)
    mask[2:12, 3:8] = True
    return mask


def test_several_alphas() -> None:
    """Answers 3, 4 and 5 pixels away in 40: strictly below 4 is one, below 6 are three, below 8 too."""
    masks = {"a": blank(), "b": blank()}
    pairs = [pair("b", [0, 3], [0, 4], [0, 5])]
    found = pck.score(pairs, to([0, 0], [0, 0], [0, 0]), masks, PckConfig(alpha=(0.1, 0.15, 0.2)))
    assert [each["pck"] for each in found["alphas"]] == [pytest.approx(1 / 3), 1, 1]
    assert (found["alpha"], found["pck"], found["keypoints"]) == (0.1, pytest.approx(1 / 3), 3)
    assert "alphas" not in pck.score(pairs, to([0, 0], [0, 0], [0, 0]), masks, PckConfig())


def test_the_longer_side_of_the_padded_image_counts() -> None:
    """A photo of 20 by 40 and one of 40 by 20 are both padded to 40."""
    for shape in ((20, 40), (40, 20)):
        masks = {"a": blank(), "b": blank(*shape)}
        assert pck.score([pair("b", [0, 3.9])], to([0, 0]), masks, PckConfig())["pck"] == 1
        assert pck.score([pair("b", [0, 4])], to([0, 0]), masks, PckConfig())["pck"] == 0


def test_classes_are_averaged_both_ways() -> None:
    """Horses: 3 of 4 keypoints in two pairs. Cows: 0 of 1 in one pair. Together 3 of 5."""
    masks = {name: blank() for name in "abc"}
    pairs = [
        pair("b", [0, 0], [0, 1], [0, 39], category="horse"),
        pair("c", [0, 0], category="horse"),
        pair("c", [19, 0], category="cow"),
    ]
    found = pck.score(pairs, to([0, 0], [0, 0], [0, 0]), masks, PckConfig())
    assert found["pck"] == pytest.approx(3 / 5)
    assert {
        name: (each["pairs"], each["keypoints"], each["pck"]) for name, each in found["classes"].items()
    } == {"horse": (2, 4, 0.75), "cow": (1, 1, 0)}
    assert found["mean_of_classes"] == pytest.approx(0.375) and found["mean_by_pairs"] == pytest.approx(
        (2 * 0.75 + 0) / 3
    )


def test_pairs_and_points_without_an_answer() -> None:
    masks = {name: blank() for name in "ab"}
    pairs = [pair("b", [0, 0], [0, 0]), pair("c", [0, 0])]
    found = pck.score(
        pairs, lambda each: np.array([[0, 0], [np.nan, np.nan]])[: len(each.source_yx)], masks, PckConfig()
    )
    assert found["pck"] == pytest.approx(1 / 3) and (found["missing_images"], found["missing_pairs"]) == (
        1,
        0,
    )
    found = pck.score(pairs[:1], lambda each: None, masks, PckConfig())
    assert found["pck"] == 0 and (found["missing_images"], found["missing_pairs"]) == (0, 1)


@pytest.mark.parametrize(("distance", "right"), [(1, 1), (2, 0)])
def test_csm_measures_by_the_box(distance: int, right: int) -> None:
    """The box of 10 by 5 pixels, padded and squared, has a side of 11: a tenth of it is 1.1 pixels."""
    found = pck.score([pair("b", [0, distance])], to([0, 0]), {"a": blank(), "b": blank()}, CSM)
    assert found["pck"] == (right + 1) / 2  # the way back, to (0, 0), is right
    assert (
        pck.score([pair("b", [0, distance])], to([0, 0]), {"a": blank(), "b": blank()}, PckConfig())["pck"]
        == 1
    )


def test_csm_draws_pairs_in_both_directions() -> None:
    """Of two images half of the draws are of two different ones, and each is taken both ways: as often there
    as back.
    """
    pairs, weights = pck.draw_csm([pair("b", [0, 0])], self_pairs=False)
    assert [(each.source, each.target) for each in pairs] in (
        [("a", "b"), ("b", "a")],
        [("b", "a"), ("a", "b")],
    )
    assert weights[0] == weights[1] == pytest.approx(5000, abs=200)
    again, _ = pck.draw_csm([pair("b", [0, 0])], self_pairs=False)
    assert [each.target for each in again] == [each.target for each in pairs]


def test_csm_counts_an_image_beside_itself(tmp_path: Path) -> None:
    """A draw of one image twice has all keypoints of the image, also those that no other image has."""
    path = keypoints(tmp_path / "k.json", a={"p": [1, 2], "q": [3, 4]}, b={"p": [5, 6]})
    for pairs in (read_pairs(path), list(read_pairs(path))):
        drawn, weights = pck.draw_csm(pairs)
        found = {
            (each.source, each.target): (each, int(weight))
            for each, weight in zip(drawn, weights, strict=True)
        }
        assert sorted(found) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
        itself, often = found["b", "b"]
        assert itself.source_yx.tolist() == itself.target_yx.tolist() == [[6, 5]] and itself.kinds == ("p",)
        assert often % 2 == 0 and often == pytest.approx(5000, abs=300)  # both directions of one draw
    assert found["a", "a"][0].kinds == ("p",), "a list of pairs knows the keypoints of its pairs alone"
    every, _ = pck.draw_csm(read_pairs(path))
    assert next(each for each in every if each.source == each.target == "a").kinds == ("p", "q")
    unnamed = Pair("a", "b", np.array([[1.0, 2], [3, 4]]), np.array([[5.0, 6], [7, 8]]))
    one = next(each for each in pck.draw_csm([unnamed])[0] if each.source == each.target == "b")
    assert one.source_yx.tolist() == [[5, 6], [7, 8]] and one.kinds == ()


def test_csms_pairs_are_those_of_its_code() -> None:
    """All sources are drawn before all targets, as two calls of `RandomState(N).choice` draw them."""
    names = [f"{i}" for i in range(5)]
    every = [Pair(a, b, np.zeros((1, 2)), np.zeros((1, 2))) for a in names for b in names if a != b]
    drawn, weights = pck.draw_csm(every)
    random = np.random.RandomState(5)
    one, other = (random.choice(names, pck.CSM_PAIRS) for _ in range(2))
    expected = Counter(zip([*one, *other], [*other, *one], strict=True))
    assert {(p.source, p.target): w for p, w in zip(drawn, weights.tolist(), strict=True)} == expected


def test_what_counts_the_same_in_the_mean() -> None:
    """Horses: 2 of 4 and 1 of 1. Cows: 0 of 1."""
    masks = {name: blank() for name in "abc"}
    pairs = [
        pair("b", [0, 0], [0, 1], [0, 39], [19, 39], category="horse"),
        pair("c", [0, 0], category="horse"),
        pair("c", [19, 0], category="cow"),
    ]
    answers = to([0, 0], [0, 0], [0, 0], [0, 0])
    found = {
        average: pck.score(pairs, answers, masks, PckConfig(average=average))
        for average in ("keypoint", "image", "class")
    }
    assert found["keypoint"]["pck"] == pytest.approx(3 / 6)
    assert found["image"]["pck"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["class"]["pck"] == pytest.approx((3 / 5 + 0) / 2) == found["keypoint"]["mean_of_classes"]
    assert found["image"]["classes"]["horse"]["pck"] == pytest.approx(0.75)
    assert all(each["ci95"][0] <= each["pck"] <= each["ci95"][1] for each in found.values())


def test_positions_of_a_csv_are_not_rounded_to_pixels() -> None:
    """A tenth of 38 pixels is 3.8: an answer 3.9 away is too far, but its pixel is only 3 away."""
    masks = {"a": blank(20, 38), "b": blank(20, 38)}
    for x, named, unnamed in ((3.9, 1, 0), (3.7, 1, 1)):
        for kinds, right in ((("p",), named), ((), unnamed)):
            found = pck.score([pair("b", [0, x], kinds=kinds)], to([0, 0]), masks, PckConfig())
            assert found["pck"] == right


class Painted:
    """Embeddings of a photo, given pixel by pixel `(H, W, D)`."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = torch.from_numpy(vectors).float()

    def at(self, yx: np.ndarray) -> torch.Tensor:
        return self.vectors[tuple(np.asarray(yx, int).T)]


def test_the_three_ways_from_a_vertex_to_a_pixel(template: Template) -> None:
    """Pixel 0 has vertex 0 in the map, pixel 1 has nearly its direction, and at pixel 2 it is likeliest,
    because the long vector of vertex 1 points the other way.
    """
    vertices = torch.tensor([[1.0, 0.0], [1.8, 2.4]])
    painted = Painted(np.array([[[0.0, 1.0], [1.0, -0.2], [2.0, -2.0]]]))
    by_map = ThroughTemplate("a", np.array([[0, 1, 1]]), np.ones((1, 3)), pck.make_paths(template, "image"))
    wanted = np.array([0])
    found = {"surface": by_map.find(wanted)[0].tolist()}
    for target in ("probability", "embedding"):
        side = ThroughVertices(by_map, painted, vertices, target)  # pyright: ignore[reportArgumentType]
        pixel, score = side.find(wanted)
        found[target] = pixel.tolist()
        assert 0 < score[0] <= 1 and side.describe(np.array([[0, 1]])).tolist() == [1]
    assert found == {"surface": [[0, 0]], "embedding": [[0, 1]], "probability": [[0, 2]]}


def test_csm_averages_kinds_too(tmp_path: Path) -> None:
    """p is right in both directions, q in neither; r, right, only two of three images have: the mean over
    kinds is not that over points.
    """
    path = keypoints(tmp_path / "k.json", a={"p": [0, 0], "q": [30, 30]}, b={"p": [0, 0], "q": [30, 30]})
    masks = {"a": blank(40, 40), "b": blank(40, 40)}
    found = pck.score(read_pairs(path), to([0, 0], [0, 0]), masks, CSM)
    assert found["mean_of_kinds"] == 0.5 and found["draws"] == pytest.approx(10_000, abs=400)
    one = keypoints(
        tmp_path / "k.json", a={"p": [0, 0], "q": [30, 30]}, b={"p": [0, 0], "q": [30, 30]}, c={"p": [0, 0]}
    )
    found = pck.score(read_pairs(one), to([0, 0], [0, 0]), masks | {"c": blank(40, 40)}, CSM)
    assert found["mean_of_kinds"] == 0.5 and found["pck"] == pytest.approx(
        3 / 4, abs=0.02
    )  # p of three couples, q of one


def test_straight_is_through_space() -> None:
    verts = np.array([[0, 0, 0], [1, 0, 0], [0.1, 0, 0.1], [5, 0, 0]], float)
    nearest, distance = pck.Straight(verts).nearest(np.array([1, 3]))
    assert nearest.tolist() == [1, 1, 1, 3] and distance[[0, 1]].tolist() == [1, 0]


def test_interval_draws_images_where_all_of_them_are_paired(tmp_path: Path) -> None:
    """Ten images of which one is always wrong: the 18 pairs with it go together, which drawing pairs would
    not know.
    """
    names = "abcdefghij"
    path = keypoints(tmp_path / "k.json", **{name: {"p": [39 if name == "j" else 0, 0]} for name in names})
    pairs, masks = read_pairs(path), {name: blank() for name in names}
    found = pck.score(pairs, lambda each: each.source_yx, masks, PckConfig())
    assert found["pck"] == pytest.approx(72 / 90)
    low, high = found["ci95"]
    assert high == 1 and low < 0.6  # an image that is wrong is drawn not at all, or three times
    listed = [replace(each, kinds=()) for each in pairs]
    low, high = pck.score(listed, lambda each: each.source_yx, masks, PckConfig())[
        "ci95"
    ]  # a csv: pairs are drawn
    assert 0.7 < low < 0.8 < high < 0.9


def test_of_two_images_the_pairs_are_drawn() -> None:
    """Drawing the images would give both or none: the share itself, without an interval."""
    pairs = [pair("b", [0, 0], kinds=("p",)), pair("b", [39, 0], kinds=("q",))]
    found = pck.score(pairs, to([0, 0]), dict.fromkeys("ab", blank()), PckConfig())
    assert found["pck"] == 0.5 and found["ci95"] == [0, 1]


def test_the_interval_of_paired_images_is_that_of_a_ratio_of_sums(tmp_path: Path) -> None:
    """Of 30 images 15 have a second keypoint, which is always wrong: 0.81 of the points are right, but the
    mean over pairs is 0.88.
    """
    points = {f"i{i:02d}": {"p": [0, 0]} | ({"q": [39, 0]} if i % 2 else {}) for i in range(30)}
    pairs = read_pairs(keypoints(tmp_path / "k.json", **points))
    found = pck.score(pairs, to([0, 0], [0, 0]), dict.fromkeys(points, blank()), PckConfig())
    assert found["pck"] == pytest.approx(870 / 1080)
    assert found["ci95"][0] < 0.74 and found["ci95"][1] < 0.94


def test_kinds_are_weighed_by_how_often_their_pairs_are_drawn(tmp_path: Path) -> None:
    """Only what goes to a is right; its share is that of its draws, which chance makes unequal."""
    names = "abcde"
    pairs = read_pairs(keypoints(tmp_path / "k.json", **{name: {"p": [0, 0]} for name in names}))
    masks, one = dict.fromkeys(names, blank()), PckConfig(protocol="csm", self_pairs="on")
    answer = {True: np.zeros((1, 2)), False: np.full((1, 2), 19.0)}
    found = pck.score(pairs, lambda each: answer[each.target == "a"], masks, one)
    drawn, often = pck.draw_csm(pairs)
    share = sum(often[i] for i, each in enumerate(drawn) if each.target == "a") / often.sum()
    assert found["mean_of_kinds"] == pytest.approx(share, abs=1e-12) != 1 / 5


def test_a_position_stands_for_the_pixel_that_it_falls_in(template: Template) -> None:
    """(0.9, 5.8) is in the pixel (0, 5), which has vertex 2, not in (1, 6), which has vertex 1."""
    sides = {"a": side(template, {(0, 5): 2, (1, 6): 1}), "b": side(template, {(0, 0): 2, (9, 9): 1})}
    one = Pair("a", "b", np.array([[0.9, 5.8]]), np.zeros((1, 2)))
    found = pck.through(sides)(one)
    assert found is not None and found.tolist() == [[0, 0]]


def test_vertices_that_the_template_lacks_are_named(tmp_path: Path, template: Template) -> None:
    pairs = read_pairs(keypoints(tmp_path / "k.json", a={"p": [3, 2]}, b={"p": [3, 2]}))
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map() + 2}, template.fingerprint)
    with pytest.raises(InputError, match=r"a\.jpg: vertex holds numbers outside -1 to 3"):
        pck.sides_of_maps(pairs, maps, template)


def test_csm_takes_distances_through_space_and_the_other_protocol_along_the_surface(
    small_template: Template,
) -> None:
    """From the foremost vertex to all others: none is longer through space, some are much shorter."""
    start = int(small_template.verts[:, 2].argmax())
    straight, along = (
        pck.make_paths(small_template, protocol).nearest(np.array([start]))[1]
        for protocol in ("csm", "image")
    )
    np.testing.assert_allclose(
        straight, np.linalg.norm(small_template.verts - small_template.verts[start], axis=1), atol=1e-6
    )
    assert (along > straight - 1e-5).all() and (along / straight.clip(1e-9)).max() > 1.1


def test_the_seed_of_the_interval_is_0_unless_another_is_given() -> None:
    pairs = [pair("b", *([0, 3 * (i % (2 + j))] for j in range(1 + i % 5))) for i in range(31)]
    masks, config, answer = {"a": blank(), "b": blank()}, PckConfig(alpha=(0.05,)), to(*([0, 0],) * 5)
    default, zero, one = (pck.score(pairs, answer, masks, config, *seed)["ci95"] for seed in ((), (0,), (1,)))
    assert default == zero != one


def test_the_masks_of_the_photos_of_pairs_are_found_before_the_first_is_read() -> None:
    """So that weights that are missing are told before anything is computed."""
    asked: list[str] = []

    class Masks(MaskSource):
        def prepare(self, images: Sequence[ImageFile]) -> None:
            asked.extend(image.name for image in images)

        def read(self, image: ImageFile) -> Photo:
            assert image.name in asked
            return Photo(image.name, b"", np.zeros((20, 40, 3), np.uint8), blank())

    images = [ImageFile(Path(), name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    found = pck.masks_of_images([pair("b"), pair("z")], images, Masks())
    assert asked == ["a.jpg", "b.jpg"] and list(found) == ["a", "b"]
