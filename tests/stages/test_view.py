"""`shic view` as a user types it, and its page in a browser, with real clicks."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import click, start, wait

from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.photos import encode
from shic_cli.stages.match import Paths

Shic = Callable[..., tuple[int, str, str]]
Opened = Callable[[Path | str], Any]


def write_maps(
    path: Path,
    maps: dict[str, np.ndarray],
    template: str,
    labels: str = "predicted",
    score: float = 0.5,
    uncertainty: dict[str, float] | None = None,
) -> None:
    """A maps file of noise pictures with these maps `(H, W)`, perhaps with an uncertainty that begins at
    these values at the top left and grows by 1/8 a pixel.
    """
    random = np.random.default_rng(0)
    attrs = {"labels": labels, "template": template}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for name, vertex in maps.items():
            data = encode(random.integers(60, 200, (*vertex.shape, 3), np.uint8))
            values = np.where(vertex >= 0, score + np.arange(vertex.size).reshape(vertex.shape) % 7 / 20, 0)
            arrays = {"mask": vertex >= 0, "vertex": vertex, "score": values}
            if uncertainty:
                grown = uncertainty[name] + np.arange(vertex.size).reshape(vertex.shape) % 80 / 8
                arrays["uncertainty"] = np.where(vertex >= 0, grown, 0)
            writer.add(name, encoded=np.frombuffer(data, np.uint8), **arrays)


def blob(template: Template, start: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A map whose middle shows the vertices around `start`, the nearest ones in the middle."""
    order = np.argsort(template.geodesic[start], kind="stable")
    y, x = np.mgrid[: shape[0], : shape[1]]
    away = np.hypot(y - shape[0] / 2, x - shape[1] / 2)
    rank = np.minimum((away**2 / 12).astype(int), len(order) - 1)
    return np.where(away < min(shape) / 2.5, order[rank], -1)


@pytest.fixture
def page(shic: Shic, small_template: Template, small_template_file: Path) -> Path:
    """A page of five photos: the vertices around 5, and around the one that is farthest from it."""
    far = int(small_template.geodesic[5].argmax())
    maps = {f"photo{i}.png": blob(small_template, 5 if i < 4 else far) for i in range(5)}
    write_maps(small_template_file.with_name("maps.h5"), maps, small_template.fingerprint)
    assert shic("view", "maps.h5", "-o", "view.html")[0] == 0
    return small_template_file.with_name("view.html")


def pins(browser: Any) -> list[dict[str, Any]]:
    """The marks that are kept."""
    return browser.execute_script(
        "return viewer.pins.map(({ vertex, x, y, label }) => ({ vertex, x, y, label }))"
    )


def test_a_page_takes_the_place_of_an_earlier_one_but_of_nothing_else(shic: Shic, page: Path) -> None:
    before = page.read_bytes()
    assert shic("view", "maps.h5", "--only", "photo1.png")[0] == 0
    assert page.read_bytes() != before
    page.write_text("<html>mine</html>")
    status, _, err = shic("view", "maps.h5")
    assert status == 1 and "view.html: is there already" in err and page.read_text() == "<html>mine</html>"


def test_a_clicked_pixel_has_the_files_value_and_is_marked_everywhere(
    opened: Opened, page: Path, small_template: Template
) -> None:
    browser = opened(page)
    wait(browser, "document.body.dataset.loaded")
    held = ItemReader(page.with_name("maps.h5"), "shic/maps")["photo1.png"]
    for x, y in ((0.5, 0.5), (0.62, 0.41), (0.37, 0.66)):
        click(browser, ".card:nth-child(2) canvas", x, y)
        (pin,) = pins(browser)
        assert pin["vertex"] == held.vertex[int(pin["y"]), int(pin["x"])] >= 0
        assert abs(pin["x"] - x * 80) <= 1 and abs(pin["y"] - y * 60) <= 1
        said = browser.execute_script("return viewer.element.status.textContent")
        score = float(held.score[int(pin["y"]), int(pin["x"])])
        assert f"1: vertex {pin['vertex']}" in said and f"score {score:.3f}" in said
        assert f"x {pin['x']}, y {pin['y']}" in said and "in view in 4 of 5 maps" in said
    wait(browser, "document.querySelectorAll('#photos .cross').length == 4")
    wait(browser, f"document.querySelector('#mesh .cross')?.dataset.vertex == '{pin['vertex']}'")
    labels = browser.execute_script(
        "return [...document.querySelectorAll('.cross b')].map((b) => b.textContent)"
    )
    assert labels == ["1"] * 5
    unseen = browser.execute_script(
        "return [...document.querySelectorAll('.unseen')].map((c) => c.textContent)"
    )
    assert len(unseen) == 1 and "photo4.png" in unseen[0] and "1 not in view" in unseen[0]


def test_in_view_means_within_the_stated_distance_along_the_surface(
    opened: Opened, page: Path, small_template: Template
) -> None:
    browser = opened(page)
    wait(browser, "document.body.dataset.loaded")
    seen = np.unique(ItemReader(page.with_name("maps.h5"), "shic/maps")["photo4.png"].vertex)[1:]
    paths = Paths(small_template.verts, small_template.faces).nearest(np.array([5]))[1]
    nearest = paths[seen].min()
    answer = "viewer.cards[4].photo.place(0, viewer.surface.distances(5, {}))"
    assert browser.execute_script(f"return {answer.format(nearest - 0.1)}") is None
    place = browser.execute_script(f"return {answer.format(nearest + 0.1)}")
    assert abs(place["distance"] - nearest) < 0.05
    row = browser.execute_script("return [...viewer.surface.distances(5, 1000)]")
    assert np.abs(np.array(row, float) - paths).max() < 0.01


def test_a_click_on_the_mesh_marks_every_photo_and_shift_adds_a_number(opened: Opened, page: Path) -> None:
    browser = opened(page)
    wait(browser, "document.body.dataset.loaded")
    click(browser, "#mesh canvas", 0.5, 0.5)
    (pin,) = pins(browser)
    assert pin["x"] is None and 0 <= pin["vertex"] < 642
    x, y = browser.execute_script(f"return viewer.mesh.project({pin['vertex']})")
    size = browser.execute_script("const e = viewer.element.mesh; return [e.clientWidth, e.clientHeight]")
    assert np.hypot(x - size[0] / 2, y - size[1] / 2) < 25  # the vertex is drawn where the click was
    click(browser, ".card:nth-child(1) canvas", 0.5, 0.5, shift=True)
    assert [pin["label"] for pin in pins(browser)] == ["1", "2"]
    click(browser, ".card:nth-child(1) canvas", 0.02, 0.02)  # no vertex there
    assert len(pins(browser)) == 2
    assert "no vertex" in browser.execute_script("return viewer.element.status.textContent")


def test_keys_move_a_mark_remove_it_and_change_what_is_shown(opened: Opened, page: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser = opened(page)
    wait(browser, "document.body.dataset.loaded")

    def press(*keys: str) -> None:
        ActionChains(browser, duration=0).send_keys(*keys).perform()

    browser.execute_script("viewer.cards[0].element.focus()")
    press(Keys.ENTER)
    wait(browser, "viewer.pins.length == 1")
    (before,) = pins(browser)
    press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, "m")
    moved, mirrored = pins(browser)
    assert (moved["x"], moved["y"]) == (before["x"] + 1, before["y"] + 1)
    assert mirrored["vertex"] == browser.execute_script(f"return viewer.surface.mirror[{moved['vertex']}]")
    press(Keys.BACKSPACE, "3", "w")
    assert len(pins(browser)) == 1
    assert browser.execute_script("return [viewer.mode, viewer.mesh.wires.visible]") == ["score", True]
    press(Keys.ESCAPE, "/", "photo3")
    assert pins(browser) == []
    shown = browser.execute_script("return [...document.querySelectorAll('.card:not([hidden])')].length")
    assert shown == 1 and browser.execute_script("return viewer.element.count.textContent") == "1 of 5 photos"


def test_what_is_drawn_is_the_map(opened: Opened, page: Path, small_template: Template) -> None:
    browser = opened(page)
    wait(browser, "viewer.cards[0].drawn && viewer.cards[0].panes[0].canvas.width == 80")
    wait(browser, "document.body.dataset.loaded")
    drawn = browser.execute_script(
        "const c = viewer.cards[0].panes[0].canvas.getContext('2d');"
        "return [...c.getImageData(0, 0, 80, 60).data]"
    )
    held = ItemReader(page.with_name("maps.h5"), "shic/maps")["photo0.png"]
    inside = held.vertex >= 0
    rgb = np.array(drawn, float).reshape(60, 80, 4)[..., :3]
    wanted = small_template.colors[held.vertex[inside]]
    assert np.abs(rgb[inside] - 0.75 * wanted - 0.25 * 130).mean() < 12  # photos of about 130, 60 to 200
    assert np.corrcoef(rgb[inside].ravel(), wanted.ravel())[0, 1] > 0.95


def test_uncertainty_is_drawn_said_and_sorted_by(
    shic: Shic, opened: Opened, small_template: Template, small_template_file: Path
) -> None:
    names = {"a.png": 3.0, "b.png": 40.0, "c.png": 20.0}
    path = small_template_file.with_name("maps.h5")
    write_maps(
        path, {name: blob(small_template, 5) for name in names}, small_template.fingerprint, uncertainty=names
    )
    assert shic("view", "maps.h5", "-o", "view.html")[0] == 0
    browser = opened(path.with_name("view.html"))
    wait(browser, "document.body.dataset.loaded")
    held = ItemReader(path, "shic/maps")["b.png"]
    click(browser, ".card:nth-child(2) canvas", 0.55, 0.45)
    (pin,) = pins(browser)
    value = float(held.uncertainty[int(pin["y"]), int(pin["x"])])
    assert f"uncertainty {value:.1f} of 228" in browser.execute_script(
        "return viewer.element.status.textContent"
    )
    browser.execute_script(
        "viewer.element.order.value = 'unsure'; viewer.arrange(); viewer.setMode('unsure')"
    )
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.card .name')].map((c) => c.textContent)"
    )
    assert shown == ["b.png", "c.png", "a.png"]
    light = (
        "[...viewer.cards[{}].panes[0].canvas.getContext('2d').getImageData(40, 30, 1, 1).data]"
        ".slice(0, 3).reduce((a, b) => a + b)"
    )
    wait(browser, f"{light.format(1)} > 1.2 * {light.format(0)}")
    modes = browser.execute_script("return viewer.modeNames")
    assert "unsure" in modes and "error" not in modes


def test_larger_photos_keep_the_files_values_at_every_nth_pixel(
    shic: Shic, opened: Opened, small_template: Template, small_template_file: Path
) -> None:
    vertex = np.random.default_rng(1).integers(0, 642, (301, 407))
    write_maps(small_template_file.with_name("large.h5"), {"a.png": vertex}, small_template.fingerprint)
    assert shic("view", "large.h5", "-o", "large.html", "--side", "100")[0] == 0
    browser = opened(small_template_file.with_name("large.html"))
    wait(browser, "document.body.dataset.loaded")
    photo = "viewer.cards[0].photo"
    width, height = browser.execute_script(f"return [{photo}.width, {photo}.height]")
    assert (width, height) == (100, 74)
    shown = browser.execute_script(f"return [...{photo}.maps[0].vertex]")
    at = browser.execute_script(
        f"return Array.from({{ length: 7400 }}, (_, i) => {photo}.filePixel(i % 100, Math.floor(i / 100)))"
    )
    x, y = np.array(at).T
    assert (vertex[y, x] == shown).all() and len(np.unique(x)) == 100 and len(np.unique(y)) == 74


def test_two_maps_files_stand_side_by_side_and_errors_are_those_of_eval(
    shic: Shic, opened: Opened, small_template: Template, small_template_file: Path
) -> None:
    folder = small_template_file.parent
    right = {f"{i}.png": blob(small_template, 5) for i in range(3)}
    wrong = {
        f"{i}.png": np.where(right["0.png"] >= 0, small_template.mirror[right["0.png"]], -1) for i in (0, 1)
    }
    write_maps(folder / "right.h5", right, small_template.fingerprint, "pseudo")
    write_maps(folder / "wrong.h5", wrong, small_template.fingerprint)
    places = [(30, 40), (32, 45), (25, 38)]
    annotations = [
        {
            "id": i,
            "image_id": i,
            "category_id": 1,
            "bbox": [0, 0, 80, 60],
            "dp_x": [(x + 0.5) / 80 * 255 for _, x in places],
            "dp_y": [(y + 0.5) / 60 * 255 for y, _ in places],
            "dp_vertex": [int(right["0.png"][place]) for place in places],
        }
        for i in range(2)
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 80, "height": 60} for i in range(2)]
    value = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "animal"}]}
    (folder / "a.json").write_text(json.dumps(value))
    assert shic("view", "right.h5", "wrong.h5", "--annotations", "a.json")[0] == 0
    scored = json.loads(shic("eval", "geodesic", "wrong.h5", "--annotations", "a.json", "--json")[1])
    browser = opened(folder / "view.html")
    wait(browser, "document.body.dataset.loaded")
    layers = browser.execute_script("return viewer.cards.map((card) => card.photo.layers)")
    assert [layer["error"] for layer, _ in layers[:2]] == [0, 0] and layers[2][1] is None
    assert np.mean([layers[i][1]["error"] for i in (0, 1)]) == pytest.approx(scored["mean"], abs=1e-3)
    assert layers[0][1]["swapped"] == pytest.approx(scored["left_right"])
    browser.execute_script("viewer.setMode('error')")
    wait(browser, "document.querySelectorAll('.point').length == 12")
    texts = browser.execute_script(
        "return [...viewer.cards[0].element.querySelectorAll('.point')].map((p) => p.textContent)"
    )
    assert texts[:3] == ["0"] * 3 and all(text.strip("⇄").isdigit() for text in texts)
    browser.execute_script("viewer.element.layers.querySelector('input').click()")
    assert browser.execute_script("return viewer.cards[0].panes.map((pane) => pane.box.hidden)") == [
        True,
        False,
    ]
    browser.execute_script(
        "const o = viewer.element.order; o.value = 'error'; o.dispatchEvent(new Event('change'))"
    )
    order = browser.execute_script(
        "return [...document.querySelectorAll('.card .name')].map((n) => n.textContent)"
    )
    assert order == ["0.png", "1.png", "2.png"]  # the one without annotations is last


def test_keypoints_are_shown_by_name_with_errors_where_their_vertices_are_known(
    shic: Shic, opened: Opened, small_template: Template, small_template_file: Path
) -> None:
    folder = small_template_file.parent
    vertex = blob(small_template, 5)
    write_maps(folder / "maps.h5", {"a.png": vertex, "b.png": vertex}, small_template.fingerprint)
    points = {"nose": [40.5, 30.5], "tail": [45, 35], "far": [500, 3]}
    known = {
        "images": {"a": {"points": points}},
        "vertices": {"nose": 9},
        "template": small_template.fingerprint,
    }
    for kind, value in (("plain", {"images": {"a.png": {"points": points}}}), ("known", known)):
        (folder / f"{kind}.json").write_text(json.dumps(value))
        assert shic("view", "maps.h5", "-o", f"{kind}.html", "--annotations", f"{kind}.json")[0] == 0
    browser = opened(folder / "known.html")
    wait(browser, "document.body.dataset.loaded")
    browser.execute_script("viewer.setMode('error')")
    wait(browser, "document.querySelectorAll('.point').length == 2")
    error = small_template.geodesic[vertex[30, 40], 9]
    titles = browser.execute_script(
        "return [...document.querySelectorAll('.point')].map((p) => p.title.replace('⇄', ''))"
    )
    assert sorted(titles) == [f"nose {error:.0f}", "tail"]
    assert abs(browser.execute_script("return viewer.cards[0].photo.layers[0].error") - error) < 1e-3
    browser = opened(folder / "plain.html")
    wait(browser, "document.body.dataset.loaded")
    browser.execute_script("viewer.setMode('error')")
    wait(browser, "document.querySelectorAll('.point small').length == 2")
    assert browser.execute_script("return viewer.cards[0].photo.layers[0].error ?? null") is None


@pytest.mark.parametrize(
    "name", ["</script><script>document.title='run'</script>.png", 'it\'s "so" <b>&amp;.png']
)
def test_a_name_is_only_ever_text(
    shic: Shic, opened: Opened, small_template: Template, small_template_file: Path, name: str
) -> None:
    write_maps(
        small_template_file.with_name("maps.h5"),
        {name.replace("/", "∕"): blob(small_template, 5), "<!--<script>.png": blob(small_template, 9)},
        small_template.fingerprint,
    )
    assert shic("view", "maps.h5")[0] == 0
    browser = opened(small_template_file.with_name("view.html"))
    names = browser.execute_script(
        "return [...document.querySelectorAll('.card .name')].map((n) => n.textContent)"
    )
    assert (
        sorted(names) == sorted([name.replace("/", "∕"), "<!--<script>.png"])
        and browser.title == "maps.h5 – shic view"
    )


def test_a_slash_in_a_hostile_name_is_harmless_too(
    shic: Shic, opened: Opened, small_template: Template, small_template_file: Path
) -> None:
    name = "a</script><img src=x onerror=document.title=1>.png"  # a folder `a<` and a file in it
    write_maps(
        small_template_file.with_name("maps.h5"), {name: blob(small_template, 5)}, small_template.fingerprint
    )
    assert shic("view", "maps.h5")[0] == 0
    browser = opened(small_template_file.with_name("view.html"))
    assert browser.execute_script("return viewer.cards[0].name.textContent") == name
    assert browser.title == "maps.h5 – shic view"


def test_the_page_asks_nobody(page: Path, browser: Any) -> None:
    text = unescape(page.read_text())
    assert "connect-src 'none'" in text and "unsafe" not in text.partition("</head>")[0]
    browser.get(page.resolve().as_uri())
    wait(browser, "document.body.dataset.loaded")
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_without_webgl_the_page_says_so_and_the_photos_work(page: Path) -> None:
    browser = start("--disable-3d-apis")
    try:
        browser.get(page.resolve().as_uri())
        wait(browser, "document.body.dataset.loaded")
        assert "no WebGL" in browser.execute_script("return document.querySelector('.no-webgl').textContent")
        click(browser, ".card:nth-child(1) canvas", 0.5, 0.5)
        assert len(pins(browser)) == 1
        assert browser.execute_script("return document.querySelectorAll('#photos .cross').length") == 4
    finally:
        browser.quit()


def test_a_finger_marks_too(page: Path) -> None:
    browser = start("--touch-events=enabled", width=500, height=800)
    try:
        browser.get(page.resolve().as_uri())
        wait(browser, "document.body.dataset.loaded")
        box = browser.execute_script(
            "const b = document.querySelector('.card canvas').getBoundingClientRect();"
            "return [b.left + b.width / 2, b.top + b.height / 2]"
        )
        point = [{"x": box[0], "y": box[1]}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        wait(browser, "viewer.pins.length == 1")
    finally:
        browser.quit()


def test_maps_of_two_templates_are_refused_in_two_lines(
    shic: Shic, small_template: Template, small_template_file: Path
) -> None:
    folder = small_template_file.parent
    write_maps(folder / "a.h5", {"a.png": blob(small_template, 5)}, small_template.fingerprint)
    write_maps(folder / "b.h5", {"a.png": blob(small_template, 5)}, "0" * 64)
    status, out, err = shic("view", "a.h5", "b.h5")
    assert status == 1 and out == "" and len(err.strip().splitlines()) == 2
    assert "a.h5 and b.h5: were made with two templates" in err and not (folder / "view.html").exists()
    status, _, err = shic("view", "b.h5")
    assert status == 1 and "another template" in err


def test_of_many_photos_some_are_shown_and_the_page_says_which(
    shic: Shic, opened: Opened, small_template: Template, small_template_file: Path
) -> None:
    vertex = blob(small_template, 5, (24, 24))
    write_maps(
        small_template_file.with_name("many.h5"),
        {f"{i:03d}.png": vertex for i in range(60)},
        small_template.fingerprint,
    )
    status, _, err = shic("view", "many.h5", "--most", "20", "--first", "spread")
    assert status == 0 and "20 of 60 photos" in err
    browser = opened(small_template_file.with_name("view.html"))
    notice = browser.execute_script("return viewer.element.notice.textContent")
    assert notice.startswith("20 of 60 photos are shown") and "--only" in notice
    names = browser.execute_script("return viewer.cards.map((card) => card.photo.name)")
    assert names == [f"{i:03d}.png" for i in range(0, 60, 3)]
    assert shic("view", "many.h5", "--only", "05?.png", "-o", "few.html")[0] == 0
    assert (
        len(
            opened(small_template_file.with_name("few.html")).execute_script(
                "return viewer.cards.map((c) => c.photo.name)"
            )
        )
        == 10
    )
    status, _, err = shic("view", "many.h5", "--only", "x*", "-o", "none.html")
    assert status == 1 and "none of 60 photos is called like x*" in err


def test_the_unsure_ones_come_first_by_uncertainty(
    shic: Shic, small_template: Template, small_template_file: Path
) -> None:
    names = {"a.png": 3.0, "b.png": 40.0, "c.png": 20.0}
    path = small_template_file.with_name("maps.h5")
    write_maps(
        path, {name: blob(small_template, 5) for name in names}, small_template.fingerprint, uncertainty=names
    )
    assert shic("view", "maps.h5", "--most", "1", "--first", "unsure")[0] == 0
    page = path.with_name("view.html").read_text()
    assert '"name":"b.png"' in page and '"name":"a.png"' not in page


def test_a_photo_that_cant_be_used_is_left_out_and_named(
    shic: Shic, opened: Opened, small_template: Template, small_template_file: Path
) -> None:
    path = small_template_file.with_name("maps.h5")
    vertex = blob(small_template, 5)
    with ItemWriter(
        path,
        "shic/maps",
        params={},
        sources={},
        attrs={"labels": "predicted", "template": small_template.fingerprint},
    ) as writer:
        for name, data in (
            ("bad.png", b"no picture"),
            ("good.png", encode(np.full((60, 80, 3), 99, np.uint8))),
        ):
            writer.add(
                name,
                encoded=np.frombuffer(data, np.uint8),
                mask=vertex >= 0,
                vertex=vertex,
                score=vertex >= 0,
            )
    status, _, err = shic("view", "maps.h5")
    assert status == 4 and "left out bad.png" in err
    browser = opened(path.with_name("view.html"))
    assert browser.execute_script("return viewer.cards.map((card) => card.photo.name)") == ["good.png"]
