"""`shic annotate` in a browser, with real clicks; what it saves is what `shic eval` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import click, start, wait
from serving import serving

from shic_cli.base.errors import InputError
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.stages.annotate import Work

Shic = Callable[..., tuple[int, str, str]]
Run = Callable[..., str]


@pytest.fixture
def annotate(folder: Path) -> Iterator[Run]:
    """`annotate(*words)` starts `shic annotate imgs/ …` and gives its address; `annotate.end()` ends it."""
    with ExitStack() as servers:

        def run(*words: str) -> str:
            return servers.enter_context(serving(folder, "annotate", "template.h5", "imgs", *words))

        run.end = servers.close  # type: ignore[attr-defined]
        yield run


def ready(browser: Any, address: str) -> None:
    browser.get(address)
    wait(browser, "document.body.dataset.ready && document.body.dataset.shown")


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser, duration=0).send_keys(*keys).perform()


def near(place: list[int], x: int, y: int) -> bool:
    """Whether a saved place is the clicked pixel, or beside it: a click is at whole pixels of the screen."""
    return abs(place[0] - x) <= 1 and abs(place[1] - y) <= 1


def saved(browser: Any, folder: Path) -> dict[str, Any]:
    """keypoints.json when all is saved."""
    wait(browser, "annotator.unsaved == 0 && annotator.element.saved.textContent.startsWith('saved')")
    return json.loads((folder / "annotated" / "keypoints.json").read_text())


def test_pixel_then_mesh_then_every_photo_and_eval_reads_it(
    annotate: Run, browser: Any, folder: Path, album: Path, shic: Shic, small_template: Template
) -> None:
    ready(browser, annotate("--names", "nose,ear_left,ear_right", "--class", "beast"))
    click(browser, "#canvas", 0.5, 0.5)  # the nose's pixel
    click(browser, "#mesh canvas", 0.45, 0.5)  # and its place on the mesh
    click(browser, "#canvas", 0.25, 0.75)  # the next name's
    click(browser, "#mesh canvas", 0.55, 0.5)
    click(browser, "#canvas", 0.7, 0.3)  # its mirrored place is known
    state = saved(browser, folder)
    points = state["images"]["photo0.png"]["points"]
    assert (
        near(points["nose"], 48, 48)
        and near(points["ear_left"], 24, 72)
        and near(points["ear_right"], 67, 29)
    )
    left, right = (state["vertices"][f"ear_{side}"] for side in ("left", "right"))
    assert right == small_template.mirror[left] and len(state["vertices"]) == 3
    press(browser, "n")
    wait(browser, "document.body.dataset.shown == 'photo1.png'")
    click(browser, "#canvas", 0.4, 0.6)
    state = saved(browser, folder)
    assert near(state["images"]["photo1.png"]["points"]["nose"], 38, 58)
    browser.get("about:blank")
    annotate.end()  # type: ignore[attr-defined]

    made = json.loads((folder / "annotated" / "annotations.json").read_text())
    assert [len(each["dp_vertex"]) for each in made["annotations"]] == [3, 1]
    assert made["categories"] == [{"id": 1, "name": "beast"}]
    shic("pseudo-gt", "imgs", "-o", "pgt.h5")
    held = ItemReader(folder / "pgt.h5", "shic/maps")["photo0.png"].vertex
    status, out, err = shic(
        "eval", "geodesic", "pgt.h5", "--annotations", "annotated/annotations.json", "--json"
    )
    result = json.loads(out)
    assert status == 0 and result["points"] == 4 and result["images"] == 2, err
    clicked = {name: (y, x) for name, (x, y) in state["images"]["photo0.png"]["points"].items()}
    only = {key: value for key, value in made.items()}
    only["annotations"], only["images"] = made["annotations"][:1], made["images"][:1]
    (folder / "one.json").write_text(json.dumps(only))
    one = json.loads(shic("eval", "geodesic", "pgt.h5", "--annotations", "one.json", "--json")[1])
    worst, geodesic = small_template.geodesic.max(), small_template.geodesic
    errors = [
        geodesic[held[at], state["vertices"][name]] if held[at] >= 0 else worst
        for name, at in clicked.items()
    ]
    assert one["mean"] == pytest.approx(np.mean(errors), rel=1e-5)
    status, out, _ = shic("eval", "pck", "pgt.h5", "--keypoints", "annotated/keypoints.json", "--json")
    assert status == 0 and json.loads(out)["keypoints"] == 2


def test_it_goes_on_where_it_was_left_and_undo_is_saved_too(
    annotate: Run, browser: Any, folder: Path
) -> None:
    from selenium.webdriver import Keys

    ready(browser, annotate("--names", "a,b"))
    click(browser, "#canvas", 0.5, 0.5)
    click(browser, "#mesh canvas", 0.45, 0.5)
    before = saved(browser, folder)
    click(browser, "#canvas", 0.2, 0.2)
    assert set(saved(browser, folder)["images"]["photo0.png"]["points"]) == {"a", "b"}
    press(browser, "z")
    assert saved(browser, folder) == before
    browser.get("about:blank")  # the tab is closed
    annotate.end()  # type: ignore[attr-defined]
    ready(browser, annotate())
    assert (
        browser.execute_script("return document.body.dataset.shown") == "photo1.png"
    )  # the first without points
    assert browser.execute_script("return annotator.names") == ["a", "b"]
    press(browser, "p")
    wait(browser, "document.body.dataset.shown == 'photo0.png' && annotator.crosses.length == 1")
    press(browser, Keys.ARROW_UP, "d")  # b is chosen, since it is not placed
    assert saved(browser, folder)["images"] == {}
    assert json.loads((folder / "annotated" / "annotations.json").read_text())["annotations"] == []


def test_a_name_on_the_wrong_side_is_told_and_a_photo_can_be_swapped(
    annotate: Run, browser: Any, folder: Path, small_template: Template
) -> None:
    ready(browser, annotate("--names", "hoof_left,hoof_right"))
    vertex = int(small_template.verts[:, 0].argmin())  # far on the right
    browser.execute_script(f"annotator.setVertex({vertex})")
    assert "hoof_left is on the right of the mesh" in browser.execute_script(
        "return annotator.element.notice.textContent"
    )
    click(browser, "#canvas", 0.25, 0.5)
    click(browser, "#canvas", 0.75, 0.5)
    before = saved(browser, folder)["images"]["photo0.png"]["points"]
    press(browser, "x")
    after = saved(browser, folder)["images"]["photo0.png"]["points"]
    assert after == {"hoof_left": before["hoof_right"], "hoof_right": before["hoof_left"]} and near(
        before["hoof_left"], 24, 48
    )


def test_a_maps_file_suggests_the_vertex_and_then_the_pixel(
    annotate: Run, browser: Any, folder: Path, album: Path, small_template: Template
) -> None:
    truth = ItemReader(album / "truth.h5", "shic/maps")
    from shic_cli.files.items import ItemWriter

    header = truth.header
    with ItemWriter(folder / "maps.h5", "shic/maps", params={}, sources={}, attrs=header.attrs) as writer:
        for i, item in enumerate(truth):
            writer.add(f"photo{i}.png", **item.arrays)
    maps = ItemReader(folder / "maps.h5", "shic/maps")
    ready(browser, annotate("--names", "spot", "--maps", "maps.h5"))
    first, second = maps["photo0.png"].vertex, maps["photo1.png"].vertex
    y, x = next((y, x) for y, x in np.argwhere(first >= 0) if first[y, x] in second)
    click(browser, "#canvas", (x + 0.5) / 96, (y + 0.5) / 96)
    press(browser, " ")
    state = saved(browser, folder)
    assert state["images"]["photo0.png"]["points"]["spot"] == [x, y]
    assert state["vertices"]["spot"] == first[y, x]
    press(browser, "n")
    wait(browser, "document.body.dataset.shown == 'photo1.png' && document.querySelector('#stage .dashed')")
    press(browser, " ")
    x, y = saved(browser, folder)["images"]["photo1.png"]["points"]["spot"]
    assert second[y, x] == state["vertices"]["spot"]


def test_a_point_without_a_name_has_a_vertex_of_its_own(annotate: Run, browser: Any, folder: Path) -> None:
    ready(browser, annotate("--names", "a"))
    press(browser, ".")
    for place in (0.3, 0.6):
        click(browser, "#canvas", place, 0.5)
        click(browser, "#mesh canvas", 0.4 + place / 4, 0.5)
    free = saved(browser, folder)["images"]["photo0.png"]["free"]
    assert near(free[0], 29, 48) and near(free[1], 58, 48) and free[0][2] != free[1][2]
    assert (
        len(
            json.loads((folder / "annotated" / "annotations.json").read_text())["annotations"][0]["dp_vertex"]
        )
        == 2
    )


def test_a_second_tab_only_shows_until_it_takes_over(annotate: Run, browser: Any, folder: Path) -> None:
    address = annotate("--names", "a")
    ready(browser, address)
    click(browser, "#canvas", 0.5, 0.5)
    state = saved(browser, folder)
    other = start()
    try:
        ready(other, address)
        assert not other.execute_script("return annotator.element.locked.hidden")
        click(other, "#canvas", 0.2, 0.2)
        assert json.loads((folder / "annotated" / "keypoints.json").read_text()) == state
        other.find_element("id", "take").click()
        wait(other, "annotator.writes")
        press(browser, "d")  # the first tab does not know yet; the server refuses it
        wait(browser, "!annotator.element.locked.hidden")
        assert json.loads((folder / "annotated" / "keypoints.json").read_text()) == state
        click(other, "#canvas", 0.2, 0.2)
        assert saved(other, folder)["images"]["photo1.png"]["points"]["a"][0] < 21  # the first without points
    finally:
        other.quit()
        browser.get_log("browser")  # Chromium logs the refusal


def test_a_second_run_at_the_folder_and_bad_input_are_refused(
    annotate: Run, folder: Path, shic: Shic, small_template: Template
) -> None:
    address = annotate("--names", "a")
    status, _, err = shic("annotate", "imgs", "--port", 0)
    assert status == 1 and "another run is writing it" in err and len(err.strip().splitlines()) == 2
    port = re.search(r":(\d+)/", address)[1]  # type: ignore[index]
    status, _, err = shic("annotate", "imgs", "--port", port, "-o", "b")
    assert status == 1 and f"port {port}: is taken" in err
    annotate.end()  # type: ignore[attr-defined]
    assert shic("annotate", "template.h5")[0] == 2
    state = {"template": "0" * 64, "images": {}}
    (folder / "annotated" / "keypoints.json").write_text(json.dumps(state))
    status, _, err = shic("annotate", "imgs", "--port", 0)
    assert status == 1 and "was made on another template" in err and len(err.strip().splitlines()) == 2
    for wrong in ({"vertices": {"a": 642}}, {"images": {"x.png": {"points": {"a": [1]}}}}, {"names": 3}):
        state = {"template": small_template.fingerprint, "images": {}, **wrong}
        (folder / "annotated" / "keypoints.json").write_text(json.dumps(state))
        assert shic("annotate", "imgs", "--port", 0)[0] == 1


def test_points_of_another_program_are_kept_with_what_else_it_wrote(
    tmp_path: Path, small_template: Template
) -> None:
    held = {"definitions": {"a": "tip"}, "images": {"x.png": {"facing": "left", "points": {"a": [3.5, 4.5]}}}}
    (tmp_path / "keypoints.json").write_text(json.dumps(held))
    work = Work(tmp_path, small_template, ["b"], "beast")
    assert work.state["names"] == ["b", "a"] or work.state["names"] == ["a", "b"]
    about = {"size": [20, 10], "box": [2, 2, 4, 4], "area": 9}
    work.put("x.png", {"a": [3.5, 4.5], "b": [19, 9]}, [], about)
    work.put_names(["a", "b"], {"a": 7, "b": 8})
    work.save()
    state = json.loads((tmp_path / "keypoints.json").read_text())
    assert state["definitions"] == {"a": "tip"} and state["images"]["x.png"]["facing"] == "left"
    with pytest.raises(InputError, match="outside the photo"):
        work.put("x.png", {"a": [20, 4]}, [], about)
    with pytest.raises(InputError, match="0 to 641"):
        work.put_names(["a"], {"a": 642})
