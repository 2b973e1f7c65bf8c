"""Pictures of every sort, masks, lists, and crops there and back."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from inverse import to_photo
from PIL import Image, features

from shic_cli.base.errors import InputError
from shic_cli.files.photo_lists import ImageFile, list_images, listing
from shic_cli.files.photos import (
    Crop,
    count_frames,
    decode,
    decode_levels,
    encode,
    is_lossy,
    orientation,
    turn,
)


def picture(height: int = 12, width: int = 16) -> np.ndarray:
    """Red grows to the right, green downwards, blue is 200 in the top left quarter."""
    y, x = np.mgrid[:height, :width]
    blue = np.where((y < height // 2) & (x < width // 2), 200, 0)
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), blue], -1).astype(np.uint8)


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def write(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(rgb))
    return path


def blob(height: int = 12, width: int = 16) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[3:9, 4:14] = True
    return mask


def test_png_comes_back() -> None:
    rgb, alpha = decode(encode(picture()), "a.png")
    assert np.array_equal(rgb, picture()) and alpha is None


@pytest.mark.parametrize("flag", range(1, 9))
def test_exif_rotation_is_applied(flag: int) -> None:
    """A picture stored as each of EXIF's eight orientations comes out upright."""
    upright = picture()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[flag]
    exif = Image.Exif()
    exif[0x0112] = flag
    rgb, _ = decode(saved(Image.fromarray(np.ascontiguousarray(stored)), exif=exif), "a.png")
    assert np.array_equal(rgb, upright)
    for channel in range(3):
        assert np.array_equal(turn(stored[..., channel], flag), upright[..., channel])


@pytest.mark.parametrize("flag", range(12))
def test_the_orientation_is_one_of_eight_and_upright_if_the_file_says_nonsense(flag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = flag
    expected = flag if 1 <= flag <= 8 else 1
    assert orientation(saved(Image.fromarray(picture()), "JPEG", exif=exif)) == expected
    assert orientation(saved(Image.fromarray(picture()))) == orientation(b"no picture") == 1


@pytest.mark.parametrize(
    ("format", "lossy"),
    [("JPEG", True), ("WEBP", True), ("AVIF", True), ("PNG", False), ("BMP", False), ("TIFF", False)],
)
def test_formats_that_blur_pixels_are_known(format: str, lossy: bool) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    assert is_lossy(saved(Image.fromarray(picture()), format)) == lossy


@pytest.mark.parametrize(
    ("format", "count"), [("GIF", 3), ("TIFF", 3), ("WEBP", 3), ("PNG", 3), ("BMP", 1), ("JPEG", 1)]
)
def test_frames_are_counted_where_a_format_holds_several(format: str, count: int) -> None:
    first, *others = (Image.fromarray(picture() // (i + 1)) for i in range(3))
    several = {"save_all": True, "append_images": others} if count > 1 else {}
    assert count_frames(saved(first, format, **several)) == count
    assert count_frames(saved(first, format)) == 1


@pytest.mark.parametrize("data", [b"", b"no picture", b"GIF89a", b"II*\0", b"MM\0*"])
def test_what_can_not_be_read_counts_as_one_frame(data: bytes) -> None:
    assert count_frames(data) == 1


def test_sixteen_bits_keep_their_high_byte() -> None:
    deep = np.linspace(0, 65535, 192).reshape(12, 16).astype(np.uint16)
    rgb, _ = decode(cv2.imencode(".png", deep)[1].tobytes(), "a.png")
    assert (rgb == rgb[..., :1]).all()
    assert np.abs(rgb[..., 0].astype(int) - deep / 257).max() <= 1
    rgb, _ = decode(cv2.imencode(".png", np.stack([deep, deep // 2, deep // 4], -1))[1].tobytes(), "a.png")
    assert np.abs(rgb[..., ::-1].astype(int) - np.stack([deep, deep // 2, deep // 4], -1) / 257).max() <= 1


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (np.float32([-1, 0, 0.5, 1]), [0, 0, 127, 255]),
        (np.float32([0, 0.25, 0.5, 0.5]), [0, 63, 127, 127]),  # at most 1: a share
        (np.float32([np.nan, 2, 0, 4]), [0, 127, 0, 255]),
        (np.int32([0, 50_000, 100_000, -7]), [0, 127, 255, 0]),
        (np.uint16([0, 100, 200, 50]), [0, 127, 255, 63]),  # no more than 8 of the 16 bits
        (np.uint16([0, 257, 65535, 65534]), [0, 1, 255, 254]),
        (np.uint16([0, 0, 0, 256]), [0, 0, 0, 0]),
    ],
)
def test_deep_pictures_are_scaled_by_their_bits_or_by_their_own_range(
    values: np.ndarray, shown: list[int]
) -> None:
    rgb, _ = decode(saved(Image.fromarray(np.tile(values, (8, 2))), "TIFF"), "a.tif")
    assert rgb[0, :4, 0].tolist() == shown and (rgb == rgb[..., :1]).all()


def test_a_mask_is_grey_if_its_channels_agree_or_nearly_so_where_pixels_are_blurred() -> None:
    levels = np.tile(np.uint8([9, 200, 77, 30]), (8, 2))
    off = np.stack([levels, levels + 1, levels], -1)
    for same, kind, options in ((levels, "PNG", {}), (off, "WEBP", {"lossless": True})):
        found, colors, _ = decode_levels(saved(Image.fromarray(same).convert("RGB"), kind, **options), "a")
        assert colors is None and np.array_equal(found, same[..., 1] if same.ndim == 3 else same)
    found, colors, _ = decode_levels(saved(Image.fromarray(off)), "a")
    assert np.array_equal(colors, off) and found[0, 0] == 9 << 16 | 10 << 8 | 9
    for channel in range(3):  # numbers in one channel
        alone = np.zeros((8, 8, 3), np.uint8)
        alone[..., channel] = levels
        found, colors, _ = decode_levels(saved(Image.fromarray(alone)), "a")
        assert colors is None and np.array_equal(found, levels)


def test_grey_palette_and_two_colours() -> None:
    grey = picture()[..., 0]
    for image in (Image.fromarray(grey), Image.fromarray(grey).convert("P")):
        rgb, alpha = decode(saved(image), "a.png")
        assert np.array_equal(rgb, grey[..., None].repeat(3, 2)) and alpha is None
    rgb, _ = decode(saved(Image.fromarray(grey > 99)), "a.png")
    assert np.array_equal(rgb[..., 0], np.where(grey > 99, 255, 0))


def test_cmyk_jpeg_keeps_its_colours() -> None:
    flat = np.full((16, 16, 3), (200, 60, 20), np.uint8)
    rgb, alpha = decode(saved(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=95), "a.jpg")
    assert alpha is None and np.abs(rgb.astype(int) - flat).max() < 12


def test_alpha_is_given_and_transparent_palettes_too() -> None:
    mask = blob()
    rgb, alpha = decode(saved(Image.fromarray(np.dstack([picture(), mask * np.uint8(255)]))), "a.png")
    assert np.array_equal(alpha > 0, mask) and np.array_equal(rgb, picture())
    palette = Image.fromarray(np.where(mask, 1, 0).astype(np.uint8), "L").convert("P")
    _, alpha = decode(saved(palette, transparency=0), "a.png")
    assert np.array_equal(alpha > 0, mask)


@pytest.mark.parametrize("keep", [0, 10, 60, 150])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_truncated_files_are_refused(keep: int, format: str) -> None:
    data = saved(Image.fromarray(picture(64, 64)), format)
    with pytest.raises(InputError, match="a: can't be read as an image"):
        decode(data[:keep], "a")


def test_what_is_no_picture() -> None:
    with pytest.raises(InputError, match="can't be read"):
        decode(b"hello, I am a text file", "a.jpg")


@pytest.mark.parametrize("shape", [(40, 1), (1, 40), (7, 40)])
def test_too_small(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"is {shape[1]} by {shape[0]} pixels"):
        decode(saved(Image.fromarray(np.zeros(shape, np.uint8))), "a.png")
    assert decode(saved(Image.fromarray(np.zeros((8, 8), np.uint8))), "a.png")[0].shape == (8, 8, 3)


def one(path: Path) -> ImageFile:
    (image,) = list_images([str(path)])
    return image


def test_lists_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.png", "x/a.png", "masks/b.png", "x/masks/a.png"):
        write(tmp_path / "in" / name, picture())
    (tmp_path / "in" / "notes.md").write_text("no picture")
    (tmp_path / "list.txt").write_text(f"\n{tmp_path}/in/b.png\n\n{tmp_path}/in/x\n")
    assert [image.name for image in list_images([str(tmp_path / "in")])] == ["b.png", "x/a.png"]
    assert [image.name for image in list_images([str(tmp_path / "in" / "*.png")])] == ["b.png"]
    assert [image.name for image in list_images([str(tmp_path / "list.txt")])] == ["a.png", "b.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{tmp_path}/in/b.png\n"))
    assert [image.name for image in list_images(["-"])] == ["b.png"]
    assert len(list_images([str(tmp_path / "in" / "b.png")] * 2)) == 1  # the same file twice is one image
    write(tmp_path / "in" / "_mask.png", picture())  # no photo has no name
    write(tmp_path / "in" / "b-mask.png", picture())
    assert [image.name for image in list_images([f"{tmp_path}/in/*"])] == ["_mask.png", "b.png", "notes.md"]
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "b.png", picture())
    (tmp_path / "in" / "near.txt").write_text("b.png\nx/a.png\n")  # from here, else from beside the list
    assert [str(image.path) for image in list_images(["in/near.txt"])] == ["in/x/a.png", "b.png"]


def test_lists_that_hold_nothing_or_two_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        list_images([str(tmp_path / "empty")])
    with pytest.raises(InputError, match="there is no such file or folder"):
        list_images([str(tmp_path / "none.png")])
    for name in ("a.mp4", "b.AVI"):
        (tmp_path / "empty" / name).write_bytes(b"")
    with pytest.raises(InputError, match="empty: holds no image, but 2 videos"):
        list_images([str(tmp_path / "empty")])
    for folder in "xy":
        write(tmp_path / folder / "a.png", picture())
    with pytest.raises(InputError, match="names two images"):
        list_images([str(tmp_path / "x"), str(tmp_path / "y")])


def test_listing_changes_with_names_and_sizes(tmp_path: Path) -> None:
    a, b = (
        one(write(tmp_path / name, picture(12, width))) for name, width in (("a.png", 16), ("b.png", 200))
    )
    assert listing([a])["count"] == 1 and listing([a]) == listing([a])
    assert len({str(listing(images)) for images in ([a], [b], [a, b])}) == 3
    before = listing([a])
    write(a.path, picture(12, 40))
    assert listing([a]) != before
    a.path.unlink()
    assert listing([a])["count"] == 1 and listing([a]) != before


def test_video_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for level in (20, 120, 220):
        video.write(np.full((24, 32, 3), level, np.uint8))
    video.release()
    frames = list_images([str(path)])
    assert [frame.name for frame in frames] == ["clip/000000", "clip/000001", "clip/000002"]
    levels = [decode(frame.read(), frame.name)[0].mean() for frame in frames]
    assert levels == pytest.approx([20, 120, 220], abs=4)
    path.write_bytes(b"no video")
    with pytest.raises(InputError, match="can't be read as a video"):
        list_images([str(path)])


def test_crop_around_a_mask() -> None:
    crop = Crop.around(blob(), margin=0.1)  # rows 3 to 8, columns 4 to 13: 10 wide, with margins 12
    assert crop == Crop(top=0, left=3, side=12)
    assert Crop.around(blob(), margin=0) == Crop(top=1, left=4, side=10)
    assert Crop.around(blob(), margin=0.11).side == 13  # of 12.2: the margin is there whole


@pytest.mark.parametrize("crop", [Crop(0, 0, 12), Crop(-5, -7, 40), Crop(3, 4, 7)])
@pytest.mark.parametrize("size", [7, 64, 224])
def test_crops_there_and_back(crop: Crop, size: int) -> None:
    yx = np.random.default_rng(0).uniform(-20, 60, (50, 2))
    np.testing.assert_allclose(to_photo(crop, crop.to_crop(yx, size), size), yx, atol=1e-9)
    corners = crop.to_crop(np.array([[crop.top - 0.5, crop.left - 0.5]]), size)
    np.testing.assert_allclose(corners, [[-0.5, -0.5]], atol=1e-12)  # pixel edges meet pixel edges


@pytest.mark.parametrize("size", [24, 48, 96])
def test_positions_agree_with_the_resampled_picture(size: int) -> None:
    """A picture whose values are its positions, cut out, has at each pixel the position that
    to_photo gives.
    """
    y, x = np.mgrid[:60, :80].astype(np.float32)
    crop = Crop(6, 10, 48)
    found = crop.cut(np.stack([y, x], -1), size)
    inner = slice(2, -2)  # the resampling clamps at the border
    pixels = np.stack(np.mgrid[:size, :size], -1)[inner, inner]
    np.testing.assert_allclose(found[inner, inner], to_photo(crop, pixels, size), atol=1e-3)


def test_cut_at_its_own_size_is_exact_and_black_beyond() -> None:
    crop = Crop(-2, 5, 16)
    found = crop.cut(picture(), 16)
    assert np.array_equal(found[2:14, :11], picture()[:, 5:])
    assert not found[:2].any() and not found[14:].any() and not found[:, 11:].any()
    mask = crop.cut(blob(), 16)
    assert mask.dtype == np.float32 and mask[2 + 3, 0] == 1 and mask.sum() == blob()[:, 5:].sum()
    assert not Crop(100, 100, 8).cut(picture(), 4).any()


def test_pillow_cuts_by_its_own_filter() -> None:
    crop, part = Crop(-2, 5, 16), np.zeros((16, 16, 3), np.uint8)
    part[2:14, :11] = picture()[:, 5:]
    by_pillow = np.asarray(Image.fromarray(part).resize((7, 7), Image.Resampling.BILINEAR))
    assert np.array_equal(crop.cut(picture(), 7, pillow=True), by_pillow)
    assert not np.array_equal(crop.cut(picture(), 7), by_pillow)


def test_files_that_can_not_be_read_and_memory_that_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"none\.png: can't be read \(No such file"):
        ImageFile.at(tmp_path / "none.png").read()
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\xff")
    for name in ("list.txt", "none.txt"):
        with pytest.raises(InputError, match=f"{name}: can't be read as a list of images"):
            list_images([str(tmp_path / name)])

    def short(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", short)
    with pytest.raises(MemoryError):
        decode(b"", "a.png")
