"""What mask files say: binary masks of every sort, label maps by label, class and table, and what is
refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from shic_cli.base.errors import InputError
from shic_cli.files.arrays import read_arrays
from shic_cli.files.items import ItemReader
from shic_cli.files.label_tables import VOC_COLORS
from shic_cli.files.masks import read_mask

Run = Callable[..., tuple[int, str, str]]
Y, X = np.mgrid[:90, :120]
OBJECT = ((Y - 45) / 24.0) ** 2 + ((X - 60) / 34.0) ** 2 < 1
OTHER = ((Y - 14) / 9.0) ** 2 + ((X - 14) / 11.0) ** 2 < 1
RIM = cv2.dilate(OBJECT.astype(np.uint8), np.ones((7, 7))) != cv2.erode(
    OBJECT.astype(np.uint8), np.ones((7, 7))
)
INNER = OBJECT & ~RIM
SOFT = cv2.GaussianBlur(OBJECT.astype(np.float32), (0, 0), 2)
SMOOTH = cv2.resize(
    cv2.resize(OBJECT * 1.0, (480, 360), interpolation=cv2.INTER_NEAREST),
    (120, 90),
    interpolation=cv2.INTER_AREA,
)
NOISE = cv2.normalize(
    cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8), (0, 0), 4),
    None, 0, 255, cv2.NORM_MINMAX,
)  # fmt: skip


def grey(values: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Numbers as the grey levels of an image file."""
    keep = values.dtype == np.uint16 or kind == "TIFF"
    values = values if keep else values.astype(np.uint8)
    return saved(Image.fromarray(values), kind, **options)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette(indices: np.ndarray, colors: tuple[int, ...] = VOC_COLORS, kind: str = "PNG") -> bytes:
    """Indices as a picture with a palette of colours 0xRRGGBB."""
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image.putpalette(
        [channel for color in colors for channel in (color >> 16, color >> 8 & 255, color & 255)]
    )
    image.frombytes(indices.astype(np.uint8).tobytes())
    return saved(image, kind)


def two_colors(bright: tuple[int, ...], dark: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
    return np.where(OBJECT[..., None], bright, dark).astype(np.uint8)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def colored(red: int, **other: int) -> Image.Image:
    """The object in red, the other one in green or blue."""
    channels = [OBJECT * red, OTHER * other.get("green", 0), OTHER * other.get("blue", 0)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


RED_AND_GREEN = saved(colored(200, green=200))
RED_AND_BLUE = saved(colored(255, blue=255), "JPEG")
BINARY = {
    "0 and 1": grey(OBJECT),
    "0 and 255": grey(OBJECT * 255),
    "0 and 38": grey(OBJECT * 38),
    "10 and 245": grey(np.where(OBJECT, 245, 10)),
    "1 bit": saved(Image.fromarray(OBJECT)),
    "16 bit": grey((OBJECT * 65535).astype(np.uint16)),
    "16 bit, 0 and 1": grey(OBJECT.astype(np.uint16)),
    "float": grey(OBJECT.astype(np.float32), "TIFF"),
    "float probabilities": grey(SOFT * np.float32(0.4), "TIFF"),
    "soft edge": grey(SOFT * 255),
    "smooth edge of 3 levels": grey(np.round(SMOOTH * 2) * 127.5),
    "smooth edge of 5 levels": grey(np.round(SMOOTH * 4) * 63.75),
    "white in two levels": grey(np.where(OBJECT, np.where(X > 60, 254, 255), 0)),
    "a stray pixel": grey(np.where((Y == 3) & (X == 3), 77, OBJECT * 255)),
    **{f"JPEG of quality {q}": grey(OBJECT * 255, "JPEG", quality=q) for q in (5, 30, 75, 95)},
    "soft JPEG": grey(SOFT * 255, "JPEG"),
    "JPEG in colour channels": saved(Image.fromarray(two_colors((255, 255, 255))), "JPEG", quality=60),
    "WebP": saved(Image.fromarray(two_colors((255, 255, 255))), "WEBP", quality=60),
    "GIF": grey(OBJECT * 255, "GIF"),
    "bright and dark colour": saved(Image.fromarray(two_colors((253, 231, 36), (68, 1, 84)))),
    "bright and dark colour, JPEG": saved(Image.fromarray(two_colors((253, 231, 36), (68, 1, 84))), "JPEG"),
    "red on black": saved(Image.fromarray(two_colors((200, 0, 0)))),
    "red on black, JPEG": saved(Image.fromarray(two_colors((200, 0, 0))), "JPEG"),
    "red on black, smooth edge": saved(Image.fromarray((SMOOTH[..., None] * [230, 10, 30]).astype(np.uint8))),
    "palette with white first": palette(~OBJECT, (0xFFFFFF, 0)),
    "one class in VOC's palette": palette(OBJECT * 13),
    "alpha": saved(Image.fromarray(np.dstack([NOISE, OBJECT * np.uint8(255)]))),
    "one colour and alpha": saved(Image.fromarray(np.dstack([NOISE * 0 + 90, OBJECT * np.uint8(255)]))),
}


@pytest.mark.parametrize("kind", BINARY)
def test_binary_masks(kind: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(BINARY[kind])
    assert overlap(read_mask(tmp_path / "m").mask, OBJECT) > 0.97


LABEL_MAPS = {
    "Oxford-Pet trimap": (grey(np.where(RIM, 3, np.where(OBJECT, 1, 2))), (), INNER),
    "1 with 255 as void": (grey(np.where(RIM, 255, OBJECT)), (), INNER),
    "VOC palette with void": (palette(np.where(RIM, 255, OBJECT * 13)), (), INNER),
    "VOC palette, GIF": (palette(np.where(RIM, 255, OBJECT * 13), kind="GIF"), (), INNER),
    "VOC palette, by class": (
        palette(np.where(RIM, 255, OBJECT * 13 + OTHER * 15)),
        ("--class", "horse"),
        INNER,
    ),
    "VOC numbers, by class": (
        grey(np.where(RIM, 255, OBJECT * 13 + OTHER * 15)),
        ("--class", "horses"),
        INNER,
    ),
    "COCO-stuff, by class": (
        grey(np.where(OBJECT, 18, np.where(OTHER, 255, 123))),
        ("--class", "horse"),
        OBJECT,
    ),
    "COCO-stuff, by its name": (
        grey(np.where(OBJECT, 18, OTHER * 19)),
        ("--label", "coco-stuff:horse"),
        OBJECT,
    ),
    "ids 1 and 2, by number": (grey(OBJECT + 2 * OTHER), ("--label", "1"), OBJECT),
    "ids 1 and 2, both": (grey(OBJECT + 2 * OTHER), ("--label", "1,2"), OBJECT | OTHER),
    "colours": (RED_AND_GREEN, ("--label", "#c80000"), OBJECT),
    "numbers in the red channel": (
        saved(Image.fromarray(((OBJECT * 4 + OTHER * 10)[..., None] * [1, 0, 0]).astype(np.uint8))),
        ("--label", "4"),
        OBJECT,
    ),
    "ids of 16 bits": (
        grey(np.where(OBJECT, 26001, OTHER * 24001).astype(np.uint16)),
        ("--label", "26001"),
        OBJECT,
    ),
    "matting trimap": (grey(np.where(RIM, 128, OBJECT * 255)), (), INNER),
    "inverted, by label": (grey(~OBJECT * 255), ("--label", "0"), OBJECT),
}


def masked(shic: Run, folder: Path, mask: bytes, *words: str) -> tuple[int, str]:
    """Status and stderr of `shic features` of a photo with that mask file."""
    (folder / "imgs").mkdir()
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "imgs/h.jpg"), NOISE)
    (folder / "masks/h.png").write_bytes(mask)
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette", *words)
    return status, err


@pytest.mark.parametrize("kind", LABEL_MAPS)
def test_label_maps(kind: str, shic: Run, tmp_path: Path) -> None:
    """The object of a label map comes out exactly, and the files say by which rule."""
    mask, words, wanted = LABEL_MAPS[kind]
    status, err = masked(shic, tmp_path, mask, *words)
    assert status == 0, err
    [item] = ItemReader(tmp_path / "features.h5", "shic/features")
    assert np.array_equal(item.mask, wanted)
    params = read_arrays(tmp_path / "features.h5", "shic/features")[1].params
    assert params["mask_rule"] == "binary or label map"
    assert params.get("label", "") == (words[1] if "--label" in words else "")


REFUSED = {
    "ids 1 and 2": (grey(OBJECT + 2 * OTHER), (), "is a label map: 0 (73.", "--label 1"),
    "objects by grey level": (grey(OBJECT * 255 + OTHER * 128), (), "0 (73.", "--label 255"),
    "objects by grey level, JPEG": (grey(OBJECT * 255 + OTHER * 128, "JPEG"), (), "lossy file", "PNG"),
    "VOC classes": (palette(OBJECT * 13 + OTHER * 15), (), "13 horse (23.", "--label 13"),
    "VOC without the class": (
        palette(np.where(RIM, 255, OBJECT * 15)),
        ("--class", "horse"),
        "called horse",
        "15",
    ),
    "no background": (grey(np.where(OBJECT, 1, 2)), (), "2 (76.", "--label 2"),
    "a number and void alone": (grey(np.where(OBJECT, 1, 255)), (), "255 void", "--label 1"),
    "a label that is not there": (grey(OBJECT + 2 * OTHER), ("--label", "7"), "has no label 7", "it has 0"),
    "a name that is not there": (
        palette(OBJECT * 13 + OTHER * 15),
        ("--label", "cat"),
        "called 'cat'",
        "13 horse",
    ),
    "a label of a binary mask": (grey(OBJECT * 255), ("--label", "13"), "has no label 13", "0 and 255"),
    "an endless number": (
        grey(OBJECT + 2 * OTHER),
        ("--label", "9" * 5000),
        "none of its labels",
        "--label NUMBER",
    ),
    "two colours, JPEG": (RED_AND_BLUE, (), "many colours", "PNG"),
    "a photo": (saved(Image.fromarray(NOISE), "JPEG"), (), "is no mask", "black"),
    "a grey photo": (grey(NOISE[..., 0], "JPEG"), (), "is no mask", "black"),
    "an empty mask": (grey(OBJECT * 0), (), "is empty", "black"),
    "a full mask": (grey(OBJECT * 0 + 255), (), "is full", "black"),
    "void alone": (palette(np.where(RIM, 255, 0)), (), "marks no object", "255 void"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_masks_that_do_not_tell_the_object(kind: str, shic: Run, tmp_path: Path) -> None:
    mask, words, fact, advice = REFUSED[kind]
    status, err = masked(shic, tmp_path, mask, *words)
    assert status == 1 and fact in err and advice in err.partition(fact)[2]
    assert not (tmp_path / "features.h5").exists()


def test_void_is_neither_object_nor_background(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(palette(np.where(RIM, 255, OBJECT * 13)))
    found = read_mask(tmp_path / "m.png")
    assert np.array_equal(found.void, RIM) and not (found.mask & RIM).any() and found.label == "13 horse"
    (tmp_path / "b.png").write_bytes(grey(OBJECT * 255))
    assert read_mask(tmp_path / "b.png").void is None


def test_the_lone_label_of_a_video_frame_is_no_aeroplane(tmp_path: Path) -> None:
    """DAVIS numbers a frame's objects from 1 in VOC's colours, where 1 is an aeroplane."""
    (tmp_path / "m.png").write_bytes(palette(np.where(RIM, 255, OBJECT)))
    assert np.array_equal(read_mask(tmp_path / "m.png", class_name="horse").mask, INNER)


def test_an_inverted_mask_is_warned_of(shic: Run, tmp_path: Path) -> None:
    status, err = masked(shic, tmp_path, grey(~OBJECT * 255))
    assert status == 0 and "h.jpg: its mask is on 100% of the photo's border" in err


def test_colours_are_named_as_colours_and_those_of_a_palette_as_numbers(tmp_path: Path) -> None:
    rgb = np.zeros((90, 120, 3), np.uint8)
    rgb[OBJECT], rgb[OTHER] = (255, 10, 0), (0, 20, 255)
    (tmp_path / "m.png").write_bytes(saved(Image.fromarray(rgb)))
    with pytest.raises(InputError, match=r"is a label map: .*#ff0a00") as raised:
        read_mask(tmp_path / "m.png")
    assert "--label #ff0a00" in raised.value.hint
    found = read_mask(tmp_path / "m.png", label="#0014FF")
    assert np.array_equal(found.mask, OTHER) and found.label == "#0014ff"
    for label in ("#12", "abcdef1", "#12345g", "#0014ff80"):
        with pytest.raises(InputError, match=f"none of its labels is called '{label}'"):
            read_mask(tmp_path / "m.png", label=label)
    (tmp_path / "p.png").write_bytes(palette(OBJECT * 1 + OTHER * 2, (0, 0xFF0A00, 0x0014FF)))
    found = read_mask(tmp_path / "p.png", label="2")
    assert np.array_equal(found.mask, OTHER) and found.label == "2"


def test_grey_noise_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120)).astype(np.uint8)
    (tmp_path / "m.png").write_bytes(saved(Image.fromarray(noise)))
    with pytest.raises(InputError, match="is no mask: half of it is neither bright nor dark"):
        read_mask(tmp_path / "m.png")


def test_of_two_colours_the_one_that_looks_brighter_is_the_object(tmp_path: Path) -> None:
    """Of many shades, as a lossy file has them; a red of 106 grey levels, a green of 102."""
    noise = np.random.default_rng(0).integers(-4, 5, (90, 120, 3))
    picture = two_colors((240, 56, 8), (8, 168, 8)) + noise
    (tmp_path / "m.png").write_bytes(saved(Image.fromarray(picture.astype(np.uint8))))
    assert overlap(read_mask(tmp_path / "m.png").mask, OBJECT) > 0.97


def test_a_mask_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="can't be read as an image") as raised:
        read_mask(tmp_path / "m.png")
    assert "0x" not in str(raised.value)
    with pytest.raises(InputError, match="can't be read"):
        read_mask(tmp_path / "none.png")


def test_void_counts_neither_for_the_border_nor_as_background(shic: Run, tmp_path: Path) -> None:
    """An object on the whole border that is not void is warned of; without any background it is refused."""
    beyond = (Y < 4) | (Y > 85) | (X < 60)
    mask = np.where(beyond, 255, np.where(Y < 70, 13, 0))
    status, err = masked(shic, tmp_path, palette(mask))
    assert status == 0 and "its mask is on 80% of the photo's border" in err
    (tmp_path / "masks/h.png").write_bytes(palette(np.where(beyond, 255, 13)))
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette", "--label", "13", "--overwrite")
    assert status == 1 and "h.jpg: its mask leaves no background beside void pixels" in err


def test_the_two_sides_of_a_binary_mask_are_named_by_their_values(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(grey(np.where(OBJECT, np.where(X > 60, 254, 255), 0)))
    for label, wanted in (("255", OBJECT), ("254", OBJECT), ("0", ~OBJECT)):
        assert np.array_equal(read_mask(path, label).mask, wanted)
    for level, label in ((0, "0"), (1, "1"), (255, "255")):
        path.write_bytes(grey(np.full((90, 120), level)))
        assert read_mask(path).mask.all() == bool(level) and read_mask(path, label).mask.all()
        with pytest.raises(InputError, match="has no label 13"):
            read_mask(path, "13")


@pytest.mark.parametrize(
    ("low", "high", "binary"),
    [(100, 164, True), (100, 163, False), (34, 255, True), (33, 255, False), (0, 1, True), (1, 2, False)],
)
def test_two_values_are_sides_if_they_differ_like_black_and_white_and_are_no_label_and_void(
    tmp_path: Path, low: int, high: int, binary: bool
) -> None:
    (tmp_path / "m.png").write_bytes(grey(np.where(OBJECT, high, low)))
    if binary:
        assert np.array_equal(read_mask(tmp_path / "m.png").mask, OBJECT)
        return
    with pytest.raises(InputError, match="is a label map"):
        read_mask(tmp_path / "m.png")


def stripes(*values: int) -> np.ndarray:
    """Upright stripes of these numbers, the first one widest."""
    edges = np.linspace(40, 120, len(values))
    return np.array(values)[np.searchsorted(edges, X, side="right").clip(0, len(values) - 1)]


@pytest.mark.parametrize(
    ("values", "void"),
    [
        ((0, 85, 170, 255), False),  # objects that were numbered by grey levels
        ((0, 84, 171, 255), False),
        ((0, 60, 200, 255), True),
        ((0, 7, 33, 255), True),
        ((0, 128, 255), False),  # a whole area of it beside a lone number
    ],
)
def test_255_is_void_beside_small_or_uneven_numbers(
    tmp_path: Path, values: tuple[int, ...], void: bool
) -> None:
    (tmp_path / "m.png").write_bytes(grey(stripes(*values)))
    with pytest.raises(InputError, match="is a label map") as raised:
        read_mask(tmp_path / "m.png")
    assert ("255 void" in raised.value.message) == void


def test_a_trimap_has_its_third_number_between_the_others(tmp_path: Path) -> None:
    """Else three numbers are three labels, and three grey levels three objects."""
    for numbers in ((1, 2, 3), (255, 0, 128), (255, 0, 127)):
        of_object, of_rest, third = numbers
        (tmp_path / "m.png").write_bytes(grey(np.where(OTHER, third, np.where(OBJECT, of_object, of_rest))))
        with pytest.raises(InputError, match="is a label map"):
            read_mask(tmp_path / "m.png")
        (tmp_path / "m.png").write_bytes(grey(np.where(RIM, third, np.where(OBJECT, of_object, of_rest))))
        found = read_mask(tmp_path / "m.png")
        assert np.array_equal(found.mask, INNER) and np.array_equal(found.void, RIM)


def test_the_rim_of_a_trimap_may_be_as_thin_as_a_soft_edge(tmp_path: Path) -> None:
    """Three levels of which the middle one has an inside of its own are no edge that was drawn soft."""
    large = cv2.resize(OBJECT.astype(np.uint8), (480, 360), interpolation=cv2.INTER_NEAREST)
    rim = cv2.dilate(large, np.ones((7, 7))) != cv2.erode(large, np.ones((7, 7)))
    (tmp_path / "m.png").write_bytes(grey(np.where(rim, 128, large * 255)))
    found = read_mask(tmp_path / "m.png")
    assert np.array_equal(found.mask, (large > 0) & ~rim) and np.array_equal(found.void, rim)


def test_of_many_labels_the_largest_eight_are_listed(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(grey(stripes(*range(1, 9))))
    with pytest.raises(InputError, match=r"is a label map: 1 \(3[34]\..*, 8 \(") as raised:
        read_mask(tmp_path / "m.png")
    assert "more" not in raised.value.message and raised.value.hint.endswith("--label 1")
    (tmp_path / "m.png").write_bytes(grey(stripes(*range(1, 11))))
    with pytest.raises(InputError, match="and 2 more") as raised:
        read_mask(tmp_path / "m.png", label="²")
    assert raised.value.hint.count("%") == 8


def test_an_alpha_channel_over_labels_leaves_them_to_be_told_apart(tmp_path: Path) -> None:
    rgb = np.asarray(colored(200, green=200))
    path = tmp_path / "m.png"
    path.write_bytes(saved(Image.fromarray(np.dstack([rgb, (OBJECT | OTHER) * np.uint8(255)]))))
    with pytest.raises(InputError, match="is a label map"):
        read_mask(path)
    assert np.array_equal(read_mask(path, label="#c80000").mask, OBJECT)
