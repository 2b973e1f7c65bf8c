"""`shic eval geodesic --report`: one page that holds everything, whatever the names are."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shic_cli.evaluation import report
from shic_cli.evaluation.geodesic import Scored
from shic_cli.files.annotations import Points
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.photos import Crop, encode
from shic_cli.files.pictures import heat_colors

Shic = Callable[..., tuple[int, str, str]]
SIZE = 64
NAMES = ["a.png", "b.png", "<script>alert('c')</script>.png"]
NASTY = '"><img src=x onerror=alert(1)>&'


@pytest.fixture
def scored(small_template: Template, small_template_file: Path) -> Path:
    """Maps of three pictures, at whose points the first is right, the second the mirror image, and the third
    off everywhere, and `d.png` annotated without a map. Names hold markup."""
    folder = small_template_file.parent
    asymmetric = np.flatnonzero(small_template.geodesic[small_template.mirror, np.arange(642)] > 60)[:20]
    truth = np.full((SIZE, SIZE), -1)
    truth[12:52, 12:52] = np.resize(np.repeat(asymmetric, 80), (40, 40))
    maps = [truth, np.where(truth >= 0, small_template.mirror[truth], -1), np.where(truth >= 0, 0, -1)]
    rgb = np.full((SIZE, SIZE, 3), 90, np.uint8)
    attrs = {"labels": "predicted", "template": small_template.fingerprint}
    with ItemWriter(folder / "pred.h5", "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for name, vertex in zip(NAMES, maps, strict=True):
            writer.add(
                name,
                encoded=np.frombuffer(encode(rgb), np.uint8),
                mask=truth >= 0,
                vertex=vertex,
                score=truth >= 0,
            )
    yx = np.argwhere(truth >= 0)[::50]
    points = {
        "dp_x": (yx[:, 1] + 0.5).tolist(),
        "dp_y": (yx[:, 0] + 0.5).tolist(),
        "dp_vertex": truth[tuple(yx.T)].tolist(),
    }
    images = [
        {"id": i, "file_name": name, "width": SIZE, "height": SIZE}
        for i, name in enumerate([*NAMES, "d.png"])
    ]
    annotations = [{"image_id": i, "category_id": 1, "bbox": [0, 0, 255, 255], **points} for i in range(4)]
    found = {"images": images, "categories": [{"id": 1, "name": NASTY}], "annotations": annotations}
    (folder / "ann.json").write_text(json.dumps(found))
    return folder


def page_of(folder: Path) -> str:
    return (folder / "rep/index.html").read_text()


def cards(page: str) -> list[tuple[str, float, int, np.ndarray]]:
    """Name, mean error, points mixed up and picture of every card."""
    image = r'<img src="data:image/jpeg;base64,([^"]+)"[^>]*>\s*'
    pattern = image + r"<figcaption><b>(.*?)</b>: mean error ([\d.]+).*?;\s*(\d+) of \d+ points"
    pictures = (
        (name, mean, count, np.frombuffer(base64.b64decode(data), np.uint8))
        for data, name, mean, count in re.findall(pattern, page, re.S)
    )
    return [
        (name, float(mean), int(count), cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
        for name, mean, count, data in pictures
    ]


def test_the_page_holds_everything_and_says_what_json_says(shic: Shic, scored: Path) -> None:
    status, out, err = shic(
        "eval", "geodesic", "pred.h5", "--annotations", "ann.json", "--report", "rep", "--json"
    )
    assert status == 0, err
    found, page = json.loads(out), page_of(scored)
    assert [path.name for path in (scored / "rep").iterdir()] == ["index.html"]
    assert all(address.startswith("data:image/") for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "from 0 <img" in page and "> to 114 and more</div>" in page  # the scale of the errors' colours
    assert f"<td>{found['mean']:.2f}</td>" in page and f"<td>{100 * found['left_right']:.1f} %</td>" in page
    assert "No prediction for 1 annotated image: d.png" in page


def test_names_are_escaped_everywhere(shic: Shic, scored: Path) -> None:
    (scored / "<b>x.h5").write_bytes((scored / "pred.h5").read_bytes())
    assert shic("eval", "geodesic", "<b>x.h5", "--annotations", "ann.json", "--report", "rep")[0] == 0
    page = page_of(scored)
    assert "<script" not in page and "onerror=alert(1)>" not in page and "<b>x.h5" not in page
    assert (
        page.count("&lt;script&gt;") == 2 and "&lt;b&gt;x.h5" in page and "&lt;img src=x" in page
    )  # alternative text and caption


def test_worst_images_come_worst_first_and_best_are_others(shic: Shic, scored: Path) -> None:
    shic("eval", "geodesic", "pred.h5", "--annotations", "ann.json", "--report", "rep")
    page = page_of(scored)
    found = cards(page)
    assert page.index("Worst images") < page.index("Best images")
    means = {name: mean for name, mean, *_ in found}
    assert len(found) == len(means) == 3 and means["a.png"] == 0
    worst, best = (cards(part) for part in page.split("Best images"))
    assert (
        len(worst) == 1
        and worst[0][1] == max(means.values())
        and [each[1] for each in best] == sorted(means.values())[:2]
    )


def test_the_pictures_show_the_errors_where_the_points_are(shic: Shic, scored: Path) -> None:
    shic("eval", "geodesic", "pred.h5", "--annotations", "ann.json", "--report", "rep")
    found = {name: (count, picture) for name, _, count, picture in cards(page_of(scored))}
    for name, (_, picture) in found.items():
        assert picture.shape == (report.SIDE, 3 * report.SIDE, 3), name
    right, mirrored = found["a.png"], found["b.png"]
    assert right[0] == 0 and mirrored[0] == 32  # every point of the mirrored map is left and right mixed up
    photo, labels, errors = np.split(right[1].astype(int), 3, axis=1)
    assert abs(photo[144, 144] - 90).max() < 6 and np.ptp(labels[144, 144]) > 20
    assert abs(errors[3, 3] - 45).max() < 6  # darker, so that the points are seen
    mask = np.zeros((SIZE, SIZE), bool)
    mask[12:52, 12:52] = True
    places = Crop.around(mask).to_crop(np.argwhere(mask)[::50], report.SIDE).round().astype(int)
    assert abs(errors[tuple(places.T)] - heat_colors(np.zeros(1))).max() < 40  # JPEG
    far = np.split(mirrored[1].astype(int), 3, axis=1)[2][tuple(places.T)]
    assert (abs(far - heat_colors(np.zeros(1))).max(1) > 60).all()  # they are 60 off and more, up to dark red


def test_points_beside_the_mask_are_in_the_picture_and_points_beside_the_photo_do_no_harm(
    scored: Path, small_template: Template
) -> None:
    yx, zeros = np.array([[2, 5], [SIZE, 5], [5, SIZE]]), np.zeros(3)
    points = Points("a.png", None, "", yx, zeros, np.zeros(4), 0.0, "", zeros)
    entry = Scored(points, "a.png", zeros, zeros, zeros, zeros, 0.0)
    maps = ItemReader(scored / "pred.h5", "shic/maps")
    errors = report._tiles([entry], maps, small_template.colors, zeros)[:, 2 * report.SIDE :].astype(int)
    around = np.zeros((SIZE, SIZE), bool)
    around[12:52, 12:52] = around[2, 5] = True
    y, x = Crop.around(around).to_crop(yx[0], report.SIDE).round().astype(int)
    assert abs(errors[y, x] - heat_colors(np.zeros(1))[0]).max() < 3


def test_the_plots_are_of_the_errors_and_of_their_mirrored_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []

    class Kept(Figure):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            drawn.append(self)

    monkeypatch.setattr("matplotlib.figure.Figure", Kept)
    error, mirrored = np.array([0.0, 9, 10, 228]), np.array([0.0, 9, 4, 113])
    assert report._plots(error, mirrored).dtype == np.uint8
    bars, points = drawn[0].axes
    assert bars.get_xlim() == points.get_xlim() == points.get_ylim() == (0, 228)
    heights = [bar.get_height() for bar in bars.patches]
    assert (heights[0], heights[1], heights[-1], sum(heights)) == (0.5, 0.25, 0.25, 1)
    assert [bar.get_x() for bar in bars.patches] == list(range(0, 228, 10))
    assert [each.get_text() for each in bars.get_legend().get_texts()] == ["mean 61.8", "median 9.5"]
    assert [line.get_xdata()[0] for line in bars.lines] == [error.mean(), 9.5]
    assert points.lines[0].get_xydata().tolist() == [[0, 0], [228, 114]]  # below it lie the mix-ups
    right, wrong = (each.get_offsets().tolist() for each in points.collections)
    assert right == [[0, 0], [9, 9]] and wrong == [[10, 4], [228, 113]]


@pytest.mark.parametrize(
    ("number", "worst", "best"),
    [(1, [], [0]), (2, [1], [0]), (5, [4, 3], [0, 1, 2]), (11, [10, 9, 8, 7], [0, 1, 2, 3])],
)
def test_at_most_four_images_are_shown_as_worst_and_as_best_and_none_as_both(
    monkeypatch: pytest.MonkeyPatch, number: int, worst: list[int], best: list[int]
) -> None:
    monkeypatch.setattr(report, "_card", lambda name, *_: name)
    zeros = np.zeros(1)
    points = Points("", None, "", np.zeros((1, 2), int), zeros, np.zeros(4), 0.0, "", zeros)
    drawn = {
        i: [Scored(points, "a", zeros, zeros, np.array([i]), zeros, 0.0)] for i in reversed(range(number))
    }
    assert report._cards(drawn, object(), zeros) == {"worst": worst, "best": best}


def test_of_many_points_some_are_plotted(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(Axes, "scatter", lambda axes, x, y, **_: drawn.append(np.stack([x, y], 1)))
    monkeypatch.setattr(report, "PLOTTED", 10)
    error = np.repeat([20.0, 30], [21, 4])
    report._plots(error, np.where(error > 25, 1, 50.0))
    assert [len(each) for each in drawn] == [7, 2]  # every third
    drawn.clear()
    report._plots(error[:10], np.full(10, 50.0))
    assert [len(each) for each in drawn] == [10, 0]


def test_several_classes_are_shown_together_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_plots", lambda *_: np.zeros((9, 9, 3), np.uint8))
    zeros = np.zeros(1)
    points = [
        Points(name, None, "", np.zeros((1, 2), int), zeros, np.zeros(4), 0.0, "", zeros) for name in "ab"
    ]
    entries = [
        Scored(each, item, zeros, zeros, zeros, zeros, 0.0)
        for each, item in zip(points, ("a", None), strict=True)
    ]
    for classes in ({"cow": 1}, {"cow": 1, "horse": 2}):
        summary = {"classes": classes}
        found = report._section(report.Row("x", entries, summary, None), zeros)
        assert found["classes"] == (classes if len(classes) == 1 else {**classes, "all": summary})
        assert found["missing"] == ["b"] and (found["worst"], found["best"]) == ([], [])


def test_the_scale_goes_through_all_colours() -> None:
    data = np.frombuffer(base64.b64decode(report._scale_picture().partition("base64,")[2]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    assert picture.shape == (12, 240, 3)
    assert (picture == heat_colors(np.arange(240) / 239)).all()


def test_several_rows_have_a_section_each_and_points_alone_no_pictures(shic: Shic, scored: Path) -> None:
    status, _, err = shic(
        "eval", "geodesic", "pred.h5", "--baseline", "chance", "--annotations", "ann.json", "--report", "rep"
    )
    assert status == 0, err
    first, second = page_of(scored).split("<h2>")[1:]
    assert first.startswith("pred.h5<") and len(cards(first)) == 3
    assert second.startswith("chance<") and not cards(second) and "data:image/png" in second


def test_the_same_line_writes_the_same_page_and_keeps_one_that_is_there(shic: Shic, scored: Path) -> None:
    line = ("eval", "geodesic", "pred.h5", "--annotations", "ann.json", "--report", "rep")
    assert shic(*line)[0] == 0
    before = (scored / "rep/index.html").read_bytes()
    status, _, err = shic(*line)
    assert status == 1 and "is there already" in err
    assert shic(*line, "--overwrite")[0] == 0 and (scored / "rep/index.html").read_bytes() == before


@pytest.mark.parametrize(
    ("picture", "said"), [(encode(np.zeros((8, 8, 3), np.uint8)), "differ in size"), (b"no picture", "a.png")]
)
def test_a_photo_that_does_not_fit_is_an_error(
    picture: bytes, said: str, shic: Shic, scored: Path, small_template: Template
) -> None:
    vertex = np.full((SIZE, SIZE), -1)
    vertex[12:52, 12:52] = 5
    attrs = {"labels": "predicted", "template": small_template.fingerprint}
    with ItemWriter(scored / "bad.h5", "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        writer.add(
            "a.png",
            encoded=np.frombuffer(picture, np.uint8),
            mask=vertex >= 0,
            vertex=vertex,
            score=vertex >= 0,
        )
    status, _, err = shic("-q", "eval", "geodesic", "bad.h5", "--annotations", "ann.json", "--report", "rep")
    assert status == 1 and said in err and len(err.strip().splitlines()) == 2
    assert not list((scored / "rep").iterdir())
