"""Maskers: which label a class name means, what counts as an object, and two families of models on random
weights.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_maskers import LABELS, save_grounding_dino, save_sam, save_sam2, save_sam3, save_segformer

from shic_cli.base.errors import Failures, InputError, MissingError, SettingError
from shic_cli.files.class_names import find_label
from shic_cli.parts import registry
from shic_cli.parts.contract import PartError
from shic_cli.parts.maskers import grounded_sam
from shic_cli.parts.maskers.contract import Found, main_object, pieces
from shic_cli.parts.maskers.grabcut import GrabCut
from shic_cli.parts.maskers.grounded_sam import Detector, GroundedSam, Segmenter
from shic_cli.parts.maskers.make import ObjectFinder
from shic_cli.parts.maskers.semantic import Semantic, _processor


def scene(height: int = 60, width: int = 90) -> np.ndarray:
    """A photo `(H, W, 3)` uint8: a bright ellipse on noise."""
    rgb = np.random.default_rng(0).integers(0, 90, (height, width, 3)).astype(np.uint8)
    return cv2.ellipse(
        rgb, (width // 2, height // 2), (width // 4, height // 3), 0, 0, 360, (230, 200, 120), -1
    )


def box(top: int, left: int, height: int, width: int, shape: tuple[int, int] = (60, 90)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("horse", 2),
        ("Horses", 2),
        (" HORSE ", 2),
        ("2", 2),
        ("aeroplane", 1),
        ("airplanes", 1),
        ("plane", 1),
        ("TV", 3),
        ("tv monitor", 3),
        ("televisions", 3),
        ("door", 4),
        ("Screen Doors", 5),
    ],
)
def test_labels_of_class_names(wanted: str, number: int) -> None:
    assert find_label(wanted, dict(enumerate(LABELS)), "w") == number


@pytest.mark.parametrize(
    ("wanted", "label"),
    [
        ("sheep", "sheep"),
        ("buses", "bus"),
        ("bus", "bus"),
        ("ponies", "pony"),
        ("wolves", "wolf"),
        ("people", "person"),
        ("glasses", "glass"),
        ("glass", "glass"),
        ("men", "man"),
        ("motorbike", "motorcycle"),
        ("sofas", "couch"),
        ("dining table", "diningtable"),
    ],
)
def test_plurals_and_what_other_data_sets_say(wanted: str, label: str) -> None:
    others = ["background", "asterisk", "wall; brick wall", "rug"]
    assert find_label(wanted, dict(enumerate([*others, label])), "w") == len(others)


def test_a_class_that_no_label_is() -> None:
    labels = dict(enumerate(LABELS))
    with pytest.raises(SettingError, match="none of its labels is 'hrse'") as caught:
        find_label("hrse", labels, "w")
    assert (
        "did you mean horse?" in caught.value.hint
        and "1 aeroplane, 2 horse, 3 tvmonitor" in caught.value.hint
    )
    with pytest.raises(SettingError, match="which of its labels"):
        find_label(" ", labels, "w")
    with pytest.raises(SettingError, match="fits several") as caught:
        find_label("screen", {0: "wall", 1: "crt, screen", 2: "silver, screen"}, "w")
    assert "1 crt, screen, 2 silver, screen" in caught.value.hint


def test_pieces_gaps_and_bridges() -> None:
    left, right, speck = box(10, 10, 20, 20), box(10, 36, 30, 20), box(50, 80, 1, 1)
    found = pieces(left | right | speck)
    assert (
        len(found) == 2 and np.array_equal(found[0], right) and np.array_equal(found[1], left)
    )  # the largest first, no speck
    (joined,) = pieces(left | right, gap=8)
    assert np.array_equal(joined, left | right)
    assert len(pieces(left | right, gap=2)) == 2
    rider = box(0, 28, 20, 10)
    (joined,) = pieces(left | right, bridge=rider)
    assert np.array_equal(joined, left | right)  # and without the rider
    assert len(pieces(left | right, bridge=box(0, 40, 9, 10))) == 2
    assert pieces(np.zeros((9, 9), bool)) == []


def test_main_object_is_the_largest_of_those_that_are_sure() -> None:
    large, small = box(0, 0, 30, 30), box(40, 40, 10, 10)
    assert main_object([Found(large, 0.5), Found(small, 0.9)]) == 0
    assert main_object([Found(large, 0.4), Found(small, 0.9)]) == 1
    assert main_object([Found(small), Found(large)]) == 1


class Plugin:
    """Another package's masker at its simplest: one mask, no options."""

    answer: ClassVar[Any] = None

    def __init__(self, argument: str = "", *, device: object = "cpu") -> None:
        self.side = 3

    def __call__(self, rgb: np.ndarray) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Named(Plugin):
    """One that wants the class's name."""

    needs_class = True

    def __init__(
        self, argument: str = "", *, class_name: str = "", weights: Path | None = None, device: object = "cpu"
    ) -> None:
        Plugin.answer = [Found(box(0, 0, 5, 5), 0.5), Found(box(20, 20, 9, 9), 0.75)]
        self.class_name, self.weights = class_name, weights


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PARTS["maskers"], "plain", f"{__name__}:Plugin")
    monkeypatch.setitem(registry.PARTS["maskers"], "named", f"{__name__}:Named")


def test_a_masker_may_give_one_mask_or_objects(
    plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masker = ObjectFinder("plain", class_name="horse")
    monkeypatch.setattr(Plugin, "answer", box(5, 5, 9, 9))
    assert np.array_equal(masker(scene()), box(5, 5, 9, 9)) and masker.objects(scene())[0].score is None
    monkeypatch.setattr(Plugin, "answer", np.zeros((60, 90), bool))
    assert not masker(scene()).any() and masker.objects(scene()) == []
    monkeypatch.setattr(Plugin, "answer", np.ones((3, 4), bool))
    with pytest.raises(PartError, match=r"gave a mask that is bool \(3, 4\), not bool \(60, 90\)"):
        masker(scene())
    named = ObjectFinder("named", weights=tmp_path, class_name=" horse ")
    assert [each.score for each in named.objects(scene())] == [0.75, 0.5]
    assert (named._made.class_name, named._made.weights) == ("horse", tmp_path)
    assert named.settings == {"masker": "named", "class": "horse"}
    with pytest.raises(SettingError, match="finds objects by the name of their class") as caught:
        ObjectFinder("named")
    assert "--class" in caught.value.hint
    with pytest.raises(SettingError, match="there is no option 'class_name'"):
        ObjectFinder("named,class_name=cow", class_name="horse")(scene())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("no"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9"),
    ],
)
def test_out_of_memory_says_what_saves_memory(
    plugins: None, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Plugin, "answer", error)
    with pytest.raises(InputError, match="plain: out of memory on a photo of 90 by 60 pixels") as caught:
        ObjectFinder("plain")(scene())
    assert "--device cpu" in caught.value.hint
    monkeypatch.setattr(Plugin, "answer", RuntimeError("another fault"))
    with pytest.raises(RuntimeError, match="another fault"):
        ObjectFinder("plain")(scene())


def test_a_masker_that_cant_be_made_ends_the_run(tmp_path: Path) -> None:
    """Every photo would meet the same error: it is raised for the first, with its own status, and is no fault
    of that photo.
    """
    failures, broken = Failures(), tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(InputError, match=r"config\.json"), failures.catch("a.jpg"):
        ObjectFinder(f"semantic:{broken}", class_name="horse")(scene())
    with pytest.raises(MissingError), failures.catch("a.jpg"):
        ObjectFinder("grounded-sam", class_name="horse")(scene())
    with pytest.raises(SettingError, match="none of its labels"), failures.catch("a.jpg"):
        ObjectFinder(f"semantic:{save_segformer(tmp_path / 'seg')}", class_name="zebra")(scene())
    assert failures.names == []


def test_auto_takes_grounded_sam_where_its_weights_and_a_name_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ObjectFinder("auto", class_name="horse", weights=tmp_path).name == "grabcut"
    save_grounding_dino(tmp_path / "grounding-dino-tiny")
    assert (
        ObjectFinder("auto", class_name="horse", weights=tmp_path).name == "grabcut"
    )  # the other half is missing
    save_sam(tmp_path / "sam-base")
    caplog.set_level(logging.INFO, "shic")
    masker = ObjectFinder("auto", class_name="horse", weights=tmp_path)
    assert masker.name == "grounded-sam" and not caplog.messages  # nothing is said until it is needed
    assert ObjectFinder("auto", weights=tmp_path).name == "grabcut"
    masker._masker()
    assert caplog.messages == ["masker: auto took grounded-sam"]


@pytest.mark.parametrize("size", [(8, 8), (10, 8), (9, 200)])
def test_maskers_take_photos_of_few_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    rgb = scene(*size)
    save_grounding_dino(tmp_path / "gd"), save_sam(tmp_path / "sam"), save_segformer(tmp_path / "seg")
    for name in (
        f"semantic:{tmp_path}/seg",
        f"grounded-sam:{tmp_path}/gd,segmenter={tmp_path}/sam,side=96,threshold=0.01",
        "grabcut",
    ):
        for found in ObjectFinder(name, class_name="horse").objects(rgb):
            assert found.mask.shape == size and found.mask.dtype == bool and found.mask.any()


def test_grabcut_gives_every_piece() -> None:
    rgb = np.full((80, 120, 3), 40, np.uint8)
    cv2.circle(rgb, (40, 40), 20, (220, 200, 60), -1)
    cv2.circle(rgb, (90, 40), 12, (220, 200, 60), -1)
    found = GrabCut()(rgb)
    assert (
        [each.area for each in found] == pytest.approx([1257, 441], rel=0.05)
        and found[0].mask[40, 40]
        and found[1].mask[40, 90]
    )


def test_semantic_gives_what_the_network_says(tmp_path: Path) -> None:
    """Against transformers' own processor and post-processing, for whichever labels the random network gives
    most.
    """
    from transformers import SegformerForSemanticSegmentation, SegformerImageProcessorPil

    folder, rgb = save_segformer(tmp_path / "seg"), scene(96, 64)
    model = SegformerForSemanticSegmentation.from_pretrained(folder)
    processor = SegformerImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        out = model(**processor(images=Image.fromarray(rgb), return_tensors="pt"))
    wanted = processor.post_process_semantic_segmentation(out, [rgb.shape[:2]])[0].numpy()
    compared = 0
    for label in np.unique(wanted):
        found = Semantic(str(folder), label=str(label))(rgb)
        union = np.any([each.mask for each in found], 0) if found else np.zeros_like(wanted, bool)
        assert (union == (wanted == label)).mean() > 0.97
        assert all(1 / len(LABELS) < each.score <= 1 for each in found)
        compared += len(found)
    assert compared


def test_semantic_joins_what_a_rider_cuts_in_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_segformer(tmp_path / "seg")
    masker, shape = Semantic(str(folder), class_name="horse"), (100, 100)
    halves, rider = box(40, 10, 30, 35, shape) | box(40, 55, 30, 35, shape), box(10, 44, 60, 12, shape)
    number = np.where(halves, 2, np.where(rider, 3, 0))
    logits = torch.nn.functional.one_hot(torch.from_numpy(number), len(LABELS)).permute(2, 0, 1).float() * 4
    monkeypatch.setattr(masker, "_model", lambda pixels: SimpleNamespace(logits=logits[None]))
    (found,) = masker(np.zeros((*shape, 3), np.uint8))
    assert np.array_equal(found.mask, number == 2) and found.score == pytest.approx(
        np.exp(4) / (np.exp(4) + 5), abs=1e-5
    )
    masker.background = None  # as of a checkpoint whose labels have no background
    assert len(masker(np.zeros((*shape, 3), np.uint8))) == 2
    monkeypatch.setattr(masker, "_model", lambda pixels: SimpleNamespace(logits=logits[None] * torch.nan))
    with pytest.raises(InputError, match="not finite"):
        masker(np.zeros((*shape, 3), np.uint8))


def test_semantic_sees_the_whole_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that would crop does not; `side` limits what the network gets."""
    settings = {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "size": {"shortest_edge": 32},
        "do_center_crop": True,
    }
    folder = save_segformer(tmp_path / "seg", **settings, crop_size={"height": 32, "width": 32})
    assert _processor(folder)(Image.fromarray(scene(40, 80))).shape == (1, 3, 32, 64)
    save_segformer(tmp_path / "as-it-is", do_resize=False)
    masker, seen = Semantic(str(tmp_path / "as-it-is"), class_name="horse", side=48), []
    monkeypatch.setattr(
        masker,
        "_model",
        lambda pixels: seen.append(pixels.shape) or SimpleNamespace(logits=torch.zeros(1, 6, 4, 4)),
    )
    masker(scene(60, 90))
    assert seen == [(1, 3, 32, 48)]


def test_semantic_says_what_is_wrong_with_a_folder(tmp_path: Path, tiny_vit: Any) -> None:
    with pytest.raises(SettingError, match="names no model"):
        Semantic()
    with pytest.raises(InputError, match="can't be loaded as AutoModelForSemanticSegmentation"):
        Semantic(str(tiny_vit("vit")), class_name="horse")
    folder = save_segformer(tmp_path / "seg")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(InputError, match=r"preprocessor_config\.json can't be used"):
        Semantic(str(folder), class_name="horse")


@pytest.mark.parametrize("family", ["GroundingDino", "MMGroundingDino"])
@pytest.mark.parametrize("size", [(60, 90), (90, 240)])
def test_detector_agrees_with_the_library(
    tmp_path: Path, family: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same input, boxes and scores as transformers' image processor and post-processing give."""
    import transformers as tf

    folder, rgb = save_grounding_dino(tmp_path / "gd", family), scene(*size)
    detector = Detector(folder, "A horse.", 64, torch.device("cpu"))
    text = tf.AutoTokenizer.from_pretrained(folder)("a horse.", return_tensors="pt")
    assert torch.equal(detector._text["input_ids"], text["input_ids"])
    processor = tf.GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 106})
    given = processor(images=Image.fromarray(rgb), return_tensors="pt")
    same_input(given["pixel_values"], monkeypatch)
    boxes, scores = detector(rgb, 0.001)
    model = getattr(tf, f"{family}ForObjectDetection").from_pretrained(folder)
    with torch.no_grad():
        out = model(**given, **text)
    found = processor.post_process_object_detection(out, threshold=0.001, target_sizes=[size])[0]
    wanted, order = found["scores"].sort(descending=True)
    assert len(scores) == len(wanted) > 3
    torch.testing.assert_close(scores, wanted)
    torch.testing.assert_close(
        boxes, found["boxes"][order].clamp(0).minimum(boxes.new_tensor([size[1], size[0]] * 2))
    )


def same_input(wanted: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that our input is `wanted` but for rounding, and go on with that, for a random network makes much
    of little.
    """
    ours = grounded_sam._normalised

    def checked(*given: Any) -> torch.Tensor:
        pixels = ours(*given)
        theirs = wanted[..., : pixels.shape[2], : pixels.shape[3]]  # without what fills up a square
        torch.testing.assert_close(pixels, theirs, atol=0.02, rtol=0)  # one level of 255 is 0.017
        assert pixels.shape == wanted.shape or not (
            wanted[..., pixels.shape[2] :, :].any() or wanted[..., pixels.shape[3] :].any()
        )
        return theirs

    monkeypatch.setattr(grounded_sam, "_normalised", checked)


def test_segmenter_agrees_with_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers as tf

    folder, rgb = save_sam(tmp_path / "sam"), scene(60, 90)
    boxes = torch.tensor([[10.0, 5.0, 70.0, 50.0], [30.0, 20.0, 50.0, 40.0]])
    processor = tf.SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    given = processor(images=Image.fromarray(rgb), return_tensors="pt")
    same_input(given["pixel_values"], monkeypatch)
    masks = Segmenter(folder, torch.device("cpu"), torch.float32)(rgb, boxes)
    scale = boxes.new_tensor([64 / 90, 43 / 60] * 2)
    with torch.no_grad():
        out = tf.SamModel.from_pretrained(folder)(
            given["pixel_values"], input_boxes=(boxes * scale)[None], multimask_output=False
        )
    sizes = given["original_sizes"], given["reshaped_input_sizes"]
    wanted = processor.post_process_masks(out.pred_masks, *sizes, pad_size={"height": 64, "width": 64})[0][
        :, 0
    ].numpy()
    assert np.array_equal(masks, wanted) and 0 < wanted.mean() < 1


SAVE = {
    "sam": save_sam,
    "sam_hq": lambda folder: save_sam(folder, "SamHQ"),
    "sam2": save_sam2,
    "sam2_video": lambda folder: save_sam2(
        folder, "sam2_video"
    ),  # what the released weights of SAM 2.1 call themselves
    "sam3_tracker": save_sam3,
}


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (37, 111)])
def test_masks_come_back_to_the_photos_own_pixels(
    tmp_path: Path, kind: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that fills the boxes that it gets gives masks that fill the boxes in the photo."""
    segmenter = Segmenter(SAVE[kind](tmp_path / "sam"), torch.device("cpu"), torch.float32)
    side = segmenter.side

    def fill(
        pixel_values: torch.Tensor, input_boxes: torch.Tensor, multimask_output: bool
    ) -> SimpleNamespace:
        assert pixel_values.shape == (1, 3, side, side)
        centre = torch.arange(side) + 0.5
        x0, y0, x1, y1 = input_boxes[0].T[..., None]
        inside = ((centre > y0) & (centre < y1))[:, :, None] & ((centre > x0) & (centre < x1))[:, None]
        return SimpleNamespace(pred_masks=(inside.float() * 2 - 1)[None, :, None])

    segmenter(
        scene(*shape), torch.tensor([[1.0, 2.0, 20.0, 30.0]])
    )  # the network itself takes what it is given
    monkeypatch.setattr(segmenter, "_model", fill)
    wanted = box(9, 12, 21, 30, shape)
    (found,) = segmenter(scene(*shape), torch.tensor([[12.0, 9.0, 42.0, 30.0]]))
    assert (found & wanted).sum() / (found | wanted).sum() > 0.85


def test_grounded_sam_drops_repeats_and_finds_nothing_above_a_high_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = save_grounding_dino(tmp_path / "gd"), save_sam2(tmp_path / "sam2")
    masker = GroundedSam(
        str(folders[0]), segmenter=str(folders[1]), class_name="horse", side=96, threshold=0.01
    )
    monkeypatch.setattr(
        masker, "detector", lambda rgb, threshold: (torch.zeros(3, 4), torch.tensor([0.9, 0.8, 0.7]))
    )
    same, other = box(10, 10, 20, 20), box(40, 40, 10, 10)
    monkeypatch.setattr(masker, "segmenter", lambda rgb, boxes: [same, box(10, 10, 20, 18), other])
    assert [(each.area, round(each.score, 1)) for each in masker(scene())] == [(400, 0.9), (100, 0.7)]
    monkeypatch.undo()
    masker.threshold = 0.99999999
    assert masker(scene()) == []
    with pytest.raises(SettingError, match="out of range"):
        GroundedSam(str(folders[0]), segmenter=str(folders[1]), class_name="horse", side=64)
    with pytest.raises(InputError, match="can't be loaded as AutoModelForZeroShot"):
        GroundedSam(str(folders[1]), segmenter=str(folders[1]), class_name="horse")


def test_half_precision_keeps_the_detector_in_float32(tmp_path: Path) -> None:
    folders = save_grounding_dino(tmp_path / "gd"), save_sam(tmp_path / "sam")
    made = [
        GroundedSam(
            str(folders[0]),
            segmenter=str(folders[1]),
            class_name="horse",
            side=96,
            threshold=0.01,
            precision=precision,
        )
        for precision in ("float32", "bfloat16")
    ]
    whole, half = (masker(scene()) for masker in made)
    assert [each.score for each in whole][:1] == [each.score for each in half][:1] and half[0].mask.shape == (
        60,
        90,
    )
