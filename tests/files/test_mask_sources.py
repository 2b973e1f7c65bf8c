"""Where masks come from: the order of the sources, the names of mask files, photos that EXIF turns."""

from __future__ import annotations

import io
import logging
import unicodedata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from shic_cli.base.errors import InputError
from shic_cli.base.settings import MasksConfig
from shic_cli.files.alpha import cut_out
from shic_cli.files.arrays import read_arrays
from shic_cli.files.items import ItemReader
from shic_cli.files.mask_checks import check_mask
from shic_cli.files.mask_sources import MaskFolder, MaskSource
from shic_cli.files.photo_lists import ImageFile, list_images
from shic_cli.files.photos import orientation, turn

Run = Callable[..., tuple[int, str, str]]
BLOB = np.zeros((60, 80), bool)
BLOB[20:40, 20:70] = True
BLOB[35:52, 25:30] = BLOB[35:52, 58:63] = True
RGB = np.where(BLOB[..., None], (190, 120, 60), (60, 90, 60)).astype(np.uint8)


def write_mask(path: Path, mask: np.ndarray = BLOB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).convert("L").save(path)
    return path


def write_photo(path: Path, alpha: np.ndarray | None = None, flag: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = flag
    rgb = RGB if alpha is None else np.dstack([RGB, alpha * np.uint8(255)])
    Image.fromarray(rgb).save(path, exif=exif)
    return path


def masker(rgb: np.ndarray) -> np.ndarray:
    """A masker that finds a diagonal, which no other source gives."""
    return np.eye(*rgb.shape[:2], dtype=bool)


def one(path: Path) -> ImageFile:
    [image] = list_images([str(path)])
    return image


def test_a_mask_file_wins_over_alpha_and_alpha_over_the_masker(tmp_path: Path) -> None:
    photo = one(write_photo(tmp_path / "imgs/h.png", alpha=BLOB))
    sides = {}
    for i, folder in enumerate(("masks", "other")):
        sides[folder] = np.zeros(BLOB.shape, bool)
        sides[folder][10:50, 10 : 30 + i] = True
        write_mask(tmp_path / folder / "h.png", sides[folder])
    other = MasksConfig(masks=str(tmp_path / "other"))
    assert np.array_equal(MaskSource(other, masker).read(photo).mask, sides["other"])
    assert np.array_equal(MaskSource(None, masker).read(photo).mask, sides["masks"])
    (tmp_path / "masks/h.png").unlink()
    assert np.array_equal(MaskSource(None, masker).read(photo).mask, BLOB)
    (tmp_path / "other/h.png").unlink()
    assert np.array_equal(MaskSource(other).read(photo).mask, BLOB)
    plain = one(write_photo(tmp_path / "imgs/plain.png"))
    assert np.array_equal(MaskSource(None, masker).read(plain).mask, masker(RGB))
    with pytest.raises(InputError, match=r"plain\.png: has no mask in .*other"):
        MaskSource(other, masker).read(plain)
    with pytest.raises(InputError, match=r"plain\.png: has no mask"):
        MaskSource().read(plain)
    with pytest.raises(InputError, match="there is no such folder"):
        MaskSource(MasksConfig(masks=str(tmp_path / "none")))


def corners(radius: int) -> np.ndarray:
    y, x = np.mgrid[:60, :80]
    outside = [np.maximum(radius - side, side - (length - 1 - radius)) for side, length in ((y, 60), (x, 80))]
    return np.hypot(*np.maximum(outside, 0)) <= radius


def frame(top: int, left: int) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    mask[top : 60 - top, left : 80 - left] = True
    return mask


@pytest.mark.parametrize(
    ("alpha", "said"),
    [
        (np.pad(np.zeros((6, 6), bool), ((0, 54), (0, 74)), constant_values=True), "hides only 0.75% of it"),
        (corners(14), "hides only its corners"),
        (frame(8, 0), "hides only a frame"),
        (frame(5, 5), "hides only a frame"),
        (np.zeros((60, 80), bool), "hides everything"),
    ],
)  # fmt: skip
def test_alpha_of_a_screenshot_is_no_mask(alpha: np.ndarray, said: str, shic: Run, tmp_path: Path) -> None:
    """The good mask beside it is taken, and without it what the masker finds; that is said."""
    write_photo(tmp_path / "imgs/h.png", alpha)
    write_mask(tmp_path / "masks/h.png")
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette")
    assert status == 0 and f"h.png: its alpha channel {said}: it is no mask" in err
    [item] = ItemReader(tmp_path / "features.h5", "shic/features")
    assert np.array_equal(item.mask, BLOB)
    status, _, err = shic("mask", "imgs/", "--masker", "grabcut", "-o", "found")
    assert status == 0 and said in err
    found = np.asarray(Image.open(tmp_path / "found/h.png")) > 0
    assert (found & BLOB).sum() / (found | BLOB).sum() > 0.9


def test_alpha_that_cuts_out_an_object_is_its_mask() -> None:
    for alpha in (BLOB, corners(3) & BLOB, frame(20, 30)):
        assert np.array_equal(cut_out(alpha * np.uint8(255)).mask, alpha)
    assert cut_out(None).mask is None and not cut_out(np.full((9, 9), 255, np.uint8)).reason


NAMES = (
    *("h.png", "h.jpg", "h.PNG", "h.jpg.png", "h_mask.png", "h-mask.Png", "h.jpg_mask.png"),
    *("h.bmp", "h.TIF", "h.gif", "h.webp", "sub/h.png"),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["masks", "mask", "imgs/masks", "elsewhere"])
def test_names_of_masks(name: str, folder: str, tmp_path: Path) -> None:
    photo = "sub/h.jpg" if name.startswith("sub/") else "h.jpg"
    write_photo(tmp_path / "imgs" / photo)
    mask = write_mask(tmp_path / folder / name)
    [image] = list_images([str(tmp_path / "imgs")])
    config = MasksConfig(masks=str(tmp_path / folder)) if folder == "elsewhere" else None
    found = MaskSource(config).read(image).mask
    assert image.name == photo
    assert (found & BLOB).sum() / (found | BLOB).sum() > 0.99, mask


def test_nothing_is_said_of_a_plain_photo_with_its_mask(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks/h.png")
    source = MaskSource(None, masker)
    source.read(one(write_photo(tmp_path / "imgs/h.png")))
    assert not source.notes.names


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_umlauts_are_one_letter_or_two(forms: tuple[str, str], tmp_path: Path) -> None:
    photo, mask = (unicodedata.normalize(form, "Fräulein Zoë") for form in forms)
    write_photo(tmp_path / "imgs" / f"{photo}.jpg")
    write_mask(tmp_path / "masks" / f"{mask}.png")
    assert np.array_equal(MaskSource().read(one(tmp_path / "imgs" / f"{photo}.jpg")).mask, BLOB)


def test_masks_of_photos_in_folders_below(tmp_path: Path) -> None:
    """The mask in the photo's own folder wins over one with the bare name."""
    write_photo(tmp_path / "imgs/x/a.png")
    write_mask(tmp_path / "masks/a.png", ~BLOB)
    write_mask(tmp_path / "masks/x/a.png")
    [image] = list_images([str(tmp_path / "imgs")])
    assert np.array_equal(MaskSource().read(image).mask, BLOB)


def test_a_folder_of_masks_that_fits_no_photo(shic: Run, tmp_path: Path, small_template_file: Path) -> None:
    for i in range(3):
        write_photo(tmp_path / f"imgs/photo{i}.jpg")
        write_mask(tmp_path / f"masks/{i}_seg.png")
    for command in (("features",), ("pseudo-gt", "--azimuths", "2", "--elevations", "0")):
        status, _, err = shic(*command, "imgs/", "--extractor", "silhouette", "-o", "out.h5")
        assert status == 1 and "masks: none of its 3 files has the name of a photo" in err
        assert "0_seg.png and 1_seg.png" in err and "photo0.jpg and photo1.jpg" in err
    assert not (tmp_path / "out.h5").exists()
    status, _, err = shic("features", "imgs/", "--masks", "masks", "--extractor", "silhouette")
    assert status == 1 and "none of its 3 files" in err


def test_masks_that_fit_no_photo_beside_their_folder(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks/z_seg.png")
    photo = one(write_photo(tmp_path / "a.png"))
    with pytest.raises(InputError, match="none of its 1 files has the name of a photo"):
        MaskSource(None, masker).prepare([photo])


def test_masks_of_other_photos_are_no_error(tmp_path: Path) -> None:
    """A new photo in the folder that holds imgs/ and masks/."""
    write_photo(tmp_path / "imgs/a.jpg")
    write_mask(tmp_path / "masks/a.png")
    new = one(write_photo(tmp_path / "new.jpg"))
    masks = MaskSource(None, masker)
    masks.prepare([new])
    assert np.array_equal(masks.read(new).mask, masker(RGB))


def test_photos_without_a_mask_are_counted_and_named(shic: Run, tmp_path: Path) -> None:
    for i in range(6):
        write_photo(tmp_path / f"imgs/photo{i}.jpg")
    write_mask(tmp_path / "masks/photo3.png")
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette", "--masker", "grabcut")
    assert status == 0
    assert "no mask file for 5 of 6 photos: photo0.jpg, photo1.jpg, photo2.jpg, photo4.jpg, photo5.jpg" in err
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette", "--masks", "masks", "-o", "b.h5")
    assert status == 4 and "no mask file for 5 of 6 photos" in err
    assert ItemReader(tmp_path / "b.h5", "shic/features").names == ["photo3.jpg"]


def stored(mask: np.ndarray, flag: int) -> np.ndarray:
    """`mask` as it is stored so that the EXIF flag turns it upright; by Pillow, that turns it back."""
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[flag]
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = undo
    Image.fromarray(mask).convert("L").save(buffer, "PNG", exif=exif)
    return np.asarray(ImageOps.exif_transpose(Image.open(buffer))) > 0


@pytest.mark.parametrize("flag", range(2, 9))
def test_a_mask_of_the_stored_pixels_is_turned_with_its_photo(flag: int, tmp_path: Path) -> None:
    """Where sizes tell by themselves, else by --exif ignore; a mask of the turned photo is left as it is."""
    photo = tmp_path / "imgs/h.jpg"
    photo.parent.mkdir()
    exif = Image.Exif()
    exif[0x0112] = flag
    pixels = np.stack([stored(RGB[..., i] > 100, flag) for i in range(3)], -1) * np.uint8(200)
    Image.fromarray(pixels).save(photo, exif=exif, quality=95)
    assert orientation(photo.read_bytes()) == flag
    assert np.array_equal(turn(stored(BLOB, flag), flag), BLOB)
    write_mask(tmp_path / "masks/h.png", stored(BLOB, flag))
    way = "auto" if flag >= 5 else "ignore"
    found = MaskSource(MasksConfig(exif=way)).read(one(photo))
    assert np.array_equal(found.mask, BLOB) and found.rgb.shape[:2] == BLOB.shape
    write_mask(tmp_path / "masks/h.png", BLOB)
    assert np.array_equal(MaskSource(MasksConfig(exif="apply")).read(one(photo)).mask, BLOB)
    assert np.array_equal(MaskSource().read(one(photo)).mask, BLOB)


def test_a_mask_that_fits_both_ways_is_warned_of_once(shic: Run, tmp_path: Path) -> None:
    for i in range(3):
        exif = Image.Exif()
        exif[0x0112] = 3
        (tmp_path / "imgs").mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(RGB[::-1, ::-1])).save(
            tmp_path / f"imgs/h{i}.jpg", exif=exif, quality=95
        )
        write_mask(tmp_path / f"masks/h{i}.png", BLOB[::-1, ::-1])
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette", "--masker", "grabcut")
    assert status == 0 and err.count("is turned by its EXIF flag 3") == 1 and "2 more photos like that" in err
    kept = float(err.partition("as it is it overlaps by ")[2].split()[0])
    turned = float(err.partition("finds, turned by ")[2].split(";")[0])
    assert kept < 0.8 < 0.9 < turned
    assert "--exif ignore" in err and "--exif apply" in err
    for way, wanted in (("ignore", BLOB), ("apply", BLOB[::-1, ::-1])):
        status, _, err = shic(
            "features", "imgs/", "--extractor", "silhouette", "--exif", way, "-o", f"{way}.h5"
        )
        assert status == 0 and "EXIF" not in err
        assert read_arrays(tmp_path / f"{way}.h5", "shic/features")[1].params["exif"] == way
        for item in ItemReader(tmp_path / f"{way}.h5", "shic/features"):
            assert np.array_equal(item.mask, wanted)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (BLOB & False, "is empty"),
        (BLOB | True, "is full"),
        (np.pad(BLOB, ((0, 10), (0, 0))), "80 by 70 pixels, the photo 80 by 60"),
    ],
)
def test_masks_that_cannot_serve(mask: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_mask(mask, (60, 80, 3), "a.jpg")


def test_weights_that_are_missing_are_told_before_anything_is_computed(shic: Run, tmp_path: Path) -> None:
    """Also when only the last photo has no mask file."""
    for name in "abc":
        write_photo(tmp_path / f"imgs/{name}.jpg")
    write_mask(tmp_path / "masks/a.png"), write_mask(tmp_path / "masks/b.png")
    words = ("--masker", "semantic:nowhere", "--class", "horse", "--extractor", "silhouette")
    status, _, err = shic("features", "imgs/", *words)
    assert status == 2 and "nowhere" in err and not list(tmp_path.glob("features*"))


def test_notes_name_the_first_photo_and_count_the_others(caplog: pytest.LogCaptureFixture) -> None:
    masks = MaskSource()
    with caplog.at_level(logging.WARNING, "shic"):
        for i in range(5):
            masks.notes.add("border", f"p{i}", f"p{i}: odd")
        masks.notes.add("alpha", "q", "q: alone")
        masks.notes.tell()
        masks.notes.tell()  # each is said once
    told = ["p0: odd", "q: alone", "4 more photos like that (border): p1, p2, p3, p4"]
    assert caplog.messages == told


def test_a_large_masker_counts_where_a_photo_asks_it(tmp_path: Path) -> None:
    """Each of several processes may have a copy of a small one, and of a large one that nobody asks."""

    class Large:
        small = False

        def __call__(self, rgb: np.ndarray) -> np.ndarray:
            return masker(rgb)

    with_mask, without = (one(write_photo(tmp_path / f"imgs/{name}.png")) for name in "ab")
    write_mask(tmp_path / "masks/a.png")
    source = MaskSource(None, Large())
    assert not source.small and MaskSource(None, masker).small
    source.prepare([with_mask])
    assert source.small
    source.prepare([with_mask, without])
    assert not source.small


@pytest.mark.parametrize("kind", ["fails", "none"])
def test_a_mask_that_fits_both_ways_is_warned_of_without_a_masker_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    def fails(rgb: np.ndarray) -> np.ndarray:
        raise InputError("no weights", "get them")

    monkeypatch.setattr(logging.getLogger("shic"), "propagate", True)
    photo = one(write_photo(tmp_path / "imgs/h.png", flag=3))
    write_mask(tmp_path / "masks/h.png")
    with caplog.at_level(logging.WARNING, "shic"):
        found = MaskSource(None, fails if kind == "fails" else None).read(photo)
    assert np.array_equal(found.mask, BLOB)
    assert "drawn on the turned photo: it is taken as it is; --exif ignore" in caplog.text


def test_the_label_that_was_taken_is_told_to_who_asks_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("shic"), "propagate", True)
    photo = one(write_photo(tmp_path / "imgs/h.png"))
    path = write_mask(tmp_path / "masks/h.png")
    with caplog.at_level(logging.DEBUG, "shic"):
        MaskSource().read(photo)
        assert "is the object" not in caplog.text
        Image.fromarray(np.where(BLOB, 1, 2 * (np.arange(80) < 9)).astype(np.uint8)).save(path)
        MaskSource(MasksConfig(label="1")).read(photo)
    assert "h.png: label 1 is the object" in caplog.text


LAYOUTS = {
    "capital letters": ("imgs/h.jpg", "Masks/h.png", "imgs"),
    "a folder a class": ("imgs/h.jpg", "masks/horse/h.png", "imgs"),
    "a class in a folder": ("data/horse/imgs/h.jpg", "data/horse/masks/h.png", "data"),
    "in one folder": ("imgs/h.jpg", "imgs/h_mask.png", "imgs"),
    "in one folder below": ("imgs/x/h.jpg", "imgs/x/h-mask.PNG", "imgs"),
    "the folder above both": ("data/imgs/h.jpg", "data/masks/h.png", "data"),
    "names with dots": ("imgs/h_jpg.rf.0a1b.jpg", "masks/h_jpg.rf.0a1b_mask.png", "imgs"),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_folders_of_photos_and_masks(kind: str, shic: Run, tmp_path: Path) -> None:
    """What systems leave in folders (Thumbs.db, ._h.png) is neither photo nor mask."""
    photo, mask, root = LAYOUTS[kind]
    write_photo(tmp_path / photo)
    write_mask(tmp_path / mask)
    for path in (tmp_path / mask).parent, (tmp_path / photo).parent:
        (path / "Thumbs.db").write_bytes(b"")
        (path / "._h.png").write_bytes(b"")
    status, _, err = shic("features", f"{root}/", "--extractor", "silhouette", "--masker", "none")
    assert status == 0, err
    [item] = ItemReader(tmp_path / "features.h5", "shic/features")
    assert np.array_equal(item.mask, BLOB)


def test_a_name_in_two_folders_of_masks_is_nobodys(tmp_path: Path) -> None:
    write_photo(tmp_path / "imgs/h.jpg")
    write_mask(tmp_path / "masks/horse/h.png")
    write_mask(tmp_path / "masks/cow/h.png")
    with pytest.raises(InputError, match="has no mask"):
        MaskSource().read(one(tmp_path / "imgs/h.jpg"))


@pytest.mark.parametrize("what", ["outline", "filled", "ring", "thin thing"])
def test_an_outline_that_was_not_filled_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    photo = write_photo(tmp_path / "imgs/h.png")
    levels = BLOB.astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    thin = np.zeros_like(BLOB)
    thin[30:32, 5:75] = True
    wheel = cv2.circle(np.zeros_like(levels), (40, 30), 22, 1, 8)
    outline = (cv2.dilate(levels, square) - levels) > 0
    masks = {"outline": outline, "filled": BLOB, "ring": wheel > 0, "thin thing": thin}
    write_mask(tmp_path / "masks/h.png", masks[what])
    MaskSource().read(one(photo))
    assert ("is a thin line around something" in caplog.text) == (what == "outline")


def test_the_masks_of_every_frame_are_looked_for_beside_the_folder_of_the_video_first(tmp_path: Path) -> None:
    """As those of photos are; also those of frame 0."""
    (tmp_path / "clips").mkdir()
    path = tmp_path / "clips" / "clip.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for level in (20, 220):
        video.write(np.full((24, 32, 3), level, np.uint8))
    video.release()
    for folder, rows in ((tmp_path, 9), (path.parent, 5)):
        (folder / "masks" / "clip").mkdir(parents=True)
        mask = np.zeros((24, 32), np.uint8)
        mask[:rows, :7] = 255
        for i in range(2):
            cv2.imwrite(str(folder / "masks" / "clip" / f"{i:06d}.png"), mask)
    source = MaskSource()
    assert [source.read(frame).mask.sum() for frame in list_images([str(path)])] == [63, 63]


def test_other_files_among_the_masks_do_not_hide_them(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "masks" / "h.png")
    for name in ("0.txt", "z.json"):
        (tmp_path / "masks" / name).write_text("")
    folder = MaskFolder(tmp_path / "masks")
    assert (folder.find("h.jpg"), folder.count) == (mask, 3)
