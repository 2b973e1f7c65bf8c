"""The pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from shic_cli.base.settings import GEODESIC_MAXIMUM
from shic_cli.files import pictures
from shic_cli.files.pictures import (
    UNSURE,
    color_map,
    contact_sheet,
    dot,
    dots,
    fit_height,
    heat_colors,
    is_marked,
    loss_plot,
    marked,
    outline,
    uncertainty_map,
)


def test_loss_plot_shows_every_loss_whatever_its_scale():
    falling = {"pseudo": 8.0, "distance": 90.0, "equivariance": 1e-3}
    history = [{name: value / (i + 1) for name, value in falling.items()} for i in range(5)]
    picture = loss_plot(history)
    assert picture.dtype == np.uint8 and picture.shape == (480, 1110, 3)
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44)} <= colours  # one line each
    assert loss_plot([{"total": 0.0}]).shape == picture.shape


def paint(picture: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """Which pixels `(H, W)` have about that colour."""
    return (np.abs(picture.astype(int) - rgb) < 12).all(-1)


def test_the_lines_of_a_loss_plot_go_through_their_values() -> None:
    """All is measured in the frame that is drawn: the grid, the lines, the labels beside it, the legend."""
    losses = {"falls": [8.0, 6.0, 4.0, 2.0, 0.0], "gaps": [500.0, 100.0, 200.0, np.nan, 400.0]}
    history = [{name: values[i] for name, values in losses.items()} for i in range(5)]
    picture = loss_plot(history)
    dark = picture.max(-1) < 110
    rows, columns = np.flatnonzero(dark.mean(1) > 0.5), np.flatnonzero(dark.mean(0) > 0.6)
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    assert right - left > 700 and bottom - top > 350 and min(left, top, 480 - bottom) > 10
    assert rows.tolist() == [top, bottom] and columns.tolist() == [left, right]

    def place(epoch: float, share: float) -> tuple[int, int]:
        height = bottom - share / 1.02 * (bottom - top)
        return round(height), round(left + (epoch - 1) / 4 * (right - left))

    def near(what: np.ndarray, yx: tuple[int, int], reach: int = 1) -> bool:
        y, x = yx
        return bool(what[y - reach : y + reach + 1, x - reach : x + reach + 1].any())

    blue, orange = paint(picture, (31, 119, 180)), paint(picture, (255, 127, 14))
    for epoch in np.linspace(1.1, 4.9, 20):
        assert near(blue, place(epoch, (5 - epoch) / 4)), epoch
    assert not blue[bottom + 2 :].any()
    legend = slice(right + 2, 1100)  # beside the frame, where no line goes
    assert blue[:, legend].any(1).sum() < 6
    blue[:, legend] = False
    assert blue.sum() < 2 * 2.5 * np.hypot(bottom - top, right - left)  # of a thin line
    for epoch, share in ((1, 1), (1.5, 0.6), (2, 0.2), (3, 0.4), (4, 0.6), (4.9, 0.78)):  # on from 3 to 5
        assert near(orange, place(epoch, share)), epoch
    grey = paint(picture, (221, 221, 221))
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        assert all(near(grey, place(epoch, share)) for epoch in (1.6, 2.4)), share
    for epoch in (2, 3, 4):
        assert all(near(grey, place(epoch, share)) for share in (0.05, 0.1, 1.01)), epoch
    assert not any(near(grey, place(2.5, share)) for share in (0.1, 0.3, 0.5, 0.7, 0.9))
    assert not any(near(grey, place(epoch, 0.1)) for epoch in (1.5, 2.5, 3.5))
    for share in np.linspace(0, 1, 6):  # its number stands to the left, at the height of its line
        y = place(1, share)[0]
        assert dark[y - 5 : y + 6, left - 40 : left - 5].any() and not dark[y, : left - 45].any()
        assert not dark[y - 5 : y + 6, left - 5 : left].any()
    for x in [place(epoch, 0)[1] for epoch in range(1, 6)]:
        assert dark[bottom + 5 : bottom + 24, x - 5 : x + 6].any()
        assert not dark[bottom + 2 : bottom + 6, x - 5 : x + 6].any()
        assert not dark[bottom + 5 : bottom + 24, x + 12 : x + 40].any()
    middle = (left + right) // 2
    called = np.flatnonzero(dark[bottom + 26 :].any(0))  # "epoch"
    assert abs(called.mean() - middle) < 4 and 20 < np.ptp(called) < 80
    assert abs(np.flatnonzero(dark[: top - 2].any(0))[0] - left) < 5  # what the heights are
    for row, (name, color) in enumerate({"falls": (31, 119, 180), "gaps": (255, 127, 14)}.items()):
        strip = slice(top + 6 + 20 * row, top + 23 + 20 * row)
        line = np.flatnonzero(paint(picture, color)[strip, legend].any(0))
        text = np.flatnonzero(dark[strip, legend].any(0))
        assert 20 < np.ptp(line) < 30 and 3 < text[0] - line[-1] < 14 and np.ptp(text) > 50, name
    assert not dark[top + 46 : top + 80, legend].any() and not dark[:, 1100:].any()


def test_the_legend_says_the_first_and_the_last_value() -> None:
    def legend(*values: float) -> bytes:
        return loss_plot([{"total": value} for value in values])[34:54, 830:].tobytes()

    assert legend(9, 5, 6, 7, 1) == legend(9, 6, 5, 8, 1)
    assert len({legend(9, 5, 6, 7, last) for last in (0, 1, 2)}) == 3
    assert legend(9, 1, 1, 1, 1) != legend(8, 1, 1, 1, 1)


def test_the_losses_of_one_epoch_are_dots_side_by_side() -> None:
    picture = loss_plot([{"total": 3.0, "near": 0.5}])
    dark = picture.max(-1) < 110
    assert dark[435:455, 435:455].any() and not dark[435:455, 90:430].any()  # one epoch's number
    assert not dark[435:455, 460:].any()
    places = [np.argwhere(paint(picture, color)[:, :800]) for color in ((31, 119, 180), (255, 127, 14))]
    for place in places:
        assert 30 < len(place) < 90 and (np.ptp(place, 0) < 10).all() and abs(place[:, 0].mean() - 38) < 2
    first, second = (place[:, 1].mean() for place in places)
    assert first < 445 < second and second - first > 10


def test_a_loss_that_only_one_of_many_epochs_has_is_a_dot_there() -> None:
    picture = loss_plot([{"total": value, "pseudo": own} for value, own in ((3.0, np.nan), (1.0, 2.0))])
    place = np.argwhere(paint(picture, (255, 127, 14))[:, :830])
    assert len(place) > 30 and np.abs(place.mean(0) - (38, 820)).max() < 4


def test_color_map_colours_labelled_pixels_only():
    rgb, vertex = np.full((4, 5, 3), 100, np.uint8), np.full((4, 5), -1)
    vertex[1, 2] = 1
    picture = color_map(rgb, vertex, np.array([[0, 0, 255], [255, 0, 0]], np.uint8), opacity=1)
    assert picture[1, 2].tolist() == [255, 0, 0]
    assert (np.delete(picture.reshape(-1, 3), 7, axis=0) == picture[0, 0]).all() and picture[0, 0, 0] < 100


def test_colours_are_mixed_with_a_pale_photo_and_what_is_not_labelled_is_darker():
    rgb, vertex = np.full((1, 2, 3), (200, 100, 0), np.uint8), np.array([[0, -1]])
    colors = np.array([[0, 0, 255]], np.uint8)
    assert color_map(rgb, vertex, colors, opacity=0.25)[0].tolist() == [[101, 75, 112], [81, 60, 39]]
    assert color_map(rgb, vertex, colors)[0, 0].tolist() == [33, 25, 207]  # a quarter of the photo


def test_a_dot_marks_its_pixel_and_leaves_the_picture_given_alone():
    rgb = np.zeros((40, 40, 3), np.uint8)
    rgb.setflags(write=False)
    picture = dot(rgb, (10, 30), radius=3)
    assert picture[10, 30].tolist() == [220, 30, 30] and not picture[30, 10].any() and not rgb.any()
    along = picture[10, 22:31].tolist()  # towards the centre, from 8 pixels beside it
    assert along[:2] == [[0, 0, 0]] * 2 and along[6:] == [[220, 30, 30]] * 3
    assert min(along[4]) > 150  # all of the rim is white
    along = dot(rgb, (20, 20))[20, 20:30].tolist()
    assert along[:5] == [[220, 30, 30]] * 5 and min(along[6]) > 150 and along[9] == [0, 0, 0]


def test_dots_have_their_colours_and_a_thin_white_rim():
    rgb = np.zeros((40, 40, 3), np.uint8)
    picture = dots(rgb, np.array([[10.4, 29.6], [30, 10]]), np.array([[9, 200, 9], [9, 9, 200]], np.uint8))
    assert picture[10, 30].tolist() == picture[10, 32].tolist() == [9, 200, 9]
    assert picture[30, 10].tolist() == picture[28, 10].tolist() == [9, 9, 200]
    assert picture[10, 34].min() > 150 and picture[30, 6].min() > 150
    assert not picture[10, 36].any() and not rgb.any()


def test_an_outline_is_drawn_along_the_mask_and_what_lies_outside_is_darker():
    rgb, mask, other = np.full((60, 50, 3), 100, np.uint8), np.zeros((60, 50), bool), np.zeros((60, 50), bool)
    mask[20:40, 10:30], other[25:55, 25:45] = True, True
    picture = outline(rgb, mask, (0, 255, 0), [other])
    assert picture[20, 15].tolist() == picture[30, 29].tolist() == [0, 255, 0]
    assert picture[54, 30].tolist() == [0, 0, 0]  # the other's, where the mask's does not cover it
    assert (
        picture[30, 20].tolist() == picture[30, 12].tolist() == [100] * 3
        and picture[5, 5].tolist() == [45] * 3
    )
    assert outline(np.zeros((1200, 9, 3), np.uint8), np.ones((1200, 9), bool), (9, 9, 9))[600, 2].any()


def test_heat_goes_from_dark_blue_to_dark_red_and_ends_there():
    low, middle, high = heat_colors(np.array([0.0, 0.5, 1.0])).astype(int)
    assert low[2] > low[0] and middle[1] > 200 and high[0] > high[2] + 50
    assert heat_colors(np.array([-3.0, 7.0])).tolist() == [low.tolist(), high.tolist()]


def test_uncertainty_goes_from_dark_to_light_up_to_the_highest():
    rgb, vertex = np.full((1, 4, 3), 100, np.uint8), np.array([[0, 0, 0, -1]])
    picture = uncertainty_map(rgb, vertex, np.array([[0, UNSURE, 2 * UNSURE, 0]])).astype(int)
    light = picture.mean(-1)[0]
    assert light[0] + 50 < light[1] == light[2] and picture[0, 3].tolist() == [60] * 3
    script = Path(pictures.__file__).parents[1] / "stages" / "pages" / "surface.js"
    assert UNSURE == GEODESIC_MAXIMUM / 4 and f"const UNSURE = {UNSURE:g};" in script.read_text()


def test_a_picture_is_made_as_high_as_another_with_its_own_aspect_ratio():
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[:, None], 30, 1)[..., None].repeat(3, 2)
    assert fit_height(ramp, 50).shape == (50, 15, 3) and fit_height(ramp, 200).shape == (200, 60, 3)
    assert fit_height(np.zeros((90, 1, 3), np.uint8), 30).shape == (30, 1, 3)
    assert (
        abs(fit_height(ramp, 50)[:, 0, 0].astype(int) - ramp[::2, 0, 0] - 1).max() <= 1
    )  # means of two rows
    steep = np.ascontiguousarray(ramp[::2])  # between two rows lies their mean
    assert np.diff(fit_height(steep, 100)[:, 0, 0].astype(int)).max() < 4
    assert np.diff(contact_sheet([steep], 1, side=100)[4:104, 6, 0].astype(int)).max() < 4


def test_a_contact_sheet_has_rows_of_tiles_with_captions_below():
    wide, high = np.full((10, 20, 3), 90, np.uint8), np.full((200, 50, 3), 160, np.uint8)
    sheet = contact_sheet([wide, high, wide], 2, side=60)
    assert sheet.shape == (2 * 64 + 4, 2 * 64 + 4, 3)
    expected = np.full(sheet.shape, 40, np.uint8)
    expected[4:34, 4:64] = expected[68:98, 4:64] = 90
    expected[4:64, 68:83] = 160
    assert np.array_equal(sheet, expected)
    assert contact_sheet([wide], 1).shape == (136, 136, 3)
    captioned = contact_sheet([wide, high, wide], 2, ["I", "J", "K"], side=60)
    assert captioned.shape == (2 * 80 + 4, 2 * 64 + 4, 3)
    tiles = [captioned[4 + 80 * row : 64 + 80 * row] for row in (0, 1)]
    assert np.array_equal(np.concatenate(tiles), np.concatenate([sheet[4:64], sheet[68:128]]))
    feet = [captioned[64:84, :66], captioned[64:84, 66:], captioned[144:, :66], captioned[144:, 66:]]
    assert [bool((foot > 150).any()) for foot in feet] == [True, True, True, False]
    for foot, first in zip(feet[:3], (4, 2, 4), strict=True):  # at the left, below the tile
        rows, columns = (np.flatnonzero((foot > 150).any((axis, 2))) for axis in (1, 0))
        assert 0 <= columns[0] - first - 2 < 4 and np.ptp(columns) < 12
        assert 3 <= rows[0] < rows[-1] <= 13 and np.ptp(rows) >= 6


def test_tiles_that_are_made_smaller_are_means_and_not_every_other_pixel():
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[::4] = 200
    assert (contact_sheet([stripes], 1, side=20)[4:24, 4:24] == 50).all()


def test_tiles_that_are_made_larger_change_gradually() -> None:
    """By half: a ramp of 24 a pixel becomes one of 16."""
    ramp = np.repeat(np.repeat(np.arange(0, 240, 24, np.uint8)[None, :, None], 10, 0), 3, 2)
    row = contact_sheet([ramp], 1, side=15)[10, 6:17, 0].astype(int)
    assert (np.diff(row) == 16).all()


def test_a_picture_of_ours_is_known_by_its_mark_and_shows_the_same(tmp_path: Path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "plain.png")
    (tmp_path / "ours.png").write_bytes(marked((tmp_path / "plain.png").read_bytes()))
    assert is_marked(tmp_path / "ours.png")
    assert not is_marked(tmp_path / "plain.png") and not is_marked(tmp_path / "missing.png")
    with Image.open(tmp_path / "ours.png") as ours, Image.open(tmp_path / "plain.png") as plain:
        assert np.array_equal(ours, plain) and ours.info == {"Software": "shic"}  # and its checksum is right
