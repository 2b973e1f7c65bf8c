"""The pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

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
    assert picture.dtype == np.uint8 and picture.shape == (480, 840, 3)
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44)} <= colours  # one line each
    assert loss_plot([{"total": 0.0}]).shape == picture.shape


def test_color_map_colours_labelled_pixels_only():
    rgb, vertex = np.full((4, 5, 3), 100, np.uint8), np.full((4, 5), -1)
    vertex[1, 2] = 1
    picture = color_map(rgb, vertex, np.array([[0, 0, 255], [255, 0, 0]], np.uint8), opacity=1)
    assert picture[1, 2].tolist() == [255, 0, 0]
    assert (np.delete(picture.reshape(-1, 3), 7, axis=0) == picture[0, 0]).all() and picture[0, 0, 0] < 100


def test_a_dot_marks_its_pixel_and_leaves_the_picture_given_alone():
    rgb = np.zeros((40, 40, 3), np.uint8)
    rgb.setflags(write=False)
    picture = dot(rgb, (10, 30), radius=3)
    assert picture[10, 30].tolist() == [220, 30, 30] and not picture[30, 10].any() and not rgb.any()
    along = picture[10, 22:31].tolist()  # towards the centre, from 8 pixels beside it
    assert along[:2] == [[0, 0, 0]] * 2 and along[6:] == [[220, 30, 30]] * 3
    assert min(along[4]) > 150  # all of the rim is white


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
    assert picture[30, 20].tolist() == [100] * 3 and picture[5, 5].tolist() == [45] * 3
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


def test_a_picture_is_made_as_high_as_another_with_its_own_aspect_ratio():
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[:, None], 30, 1)[..., None].repeat(3, 2)
    assert fit_height(ramp, 50).shape == (50, 15, 3) and fit_height(ramp, 200).shape == (200, 60, 3)
    assert fit_height(np.zeros((90, 1, 3), np.uint8), 30).shape == (30, 1, 3)
    assert (
        abs(fit_height(ramp, 50)[:, 0, 0].astype(int) - ramp[::2, 0, 0] - 1).max() <= 1
    )  # means of two rows


def test_a_contact_sheet_has_rows_of_tiles_with_captions_below():
    wide, high = np.full((10, 20, 3), 90, np.uint8), np.full((200, 50, 3), 160, np.uint8)
    sheet = contact_sheet([wide, high, wide], 2, side=40)
    assert sheet.shape == (2 * 44 + 4, 2 * 44 + 4, 3)
    expected = np.full(sheet.shape, 40, np.uint8)
    expected[4:24, 4:44] = expected[48:68, 4:44] = 90
    expected[4:44, 48:58] = 160
    assert np.array_equal(sheet, expected)
    captioned = contact_sheet([wide, high, wide], 2, ["I", "J", "K"], side=40)
    assert captioned.shape == (2 * 60 + 4, 2 * 44 + 4, 3)
    tiles = [captioned[4 + 60 * row : 44 + 60 * row] for row in (0, 1)]
    assert np.array_equal(np.concatenate(tiles), np.concatenate([sheet[4:44], sheet[48:88]]))
    feet = [captioned[44:64, :46], captioned[44:64, 46:], captioned[104:, :46], captioned[104:, 46:]]
    assert [bool((foot > 150).any()) for foot in feet] == [True, True, True, False]


def test_tiles_that_are_made_smaller_are_means_and_not_every_other_pixel():
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[::4] = 200
    assert (contact_sheet([stripes], 1, side=20)[4:24, 4:24] == 50).all()


def test_a_picture_of_ours_is_known_by_its_mark_and_shows_the_same(tmp_path: Path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "plain.png")
    (tmp_path / "ours.png").write_bytes(marked((tmp_path / "plain.png").read_bytes()))
    assert is_marked(tmp_path / "ours.png")
    assert not is_marked(tmp_path / "plain.png") and not is_marked(tmp_path / "missing.png")
    with Image.open(tmp_path / "ours.png") as ours, Image.open(tmp_path / "plain.png") as plain:
        assert np.array_equal(ours, plain) and ours.info == {"Software": "shic"}  # and its checksum is right
