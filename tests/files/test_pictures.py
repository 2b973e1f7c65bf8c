"""The pictures."""

import numpy as np

from shic_cli.files.pictures import color_map, dot, loss_plot


def test_loss_plot_shows_every_loss_whatever_its_scale():
    falling = {"pseudo": 8.0, "distance": 90.0, "equivariance": 1e-3}
    history = [{name: value / (i + 1) for name, value in falling.items()} for i in range(5)]
    picture = loss_plot(history)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
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
