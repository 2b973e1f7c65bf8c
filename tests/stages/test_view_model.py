"""`shic view MODEL`: the local server, who may ask it what, and the page that predicts what it is given."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import wait
from PIL import Image
from serving import serving

from shic_cli.files.mask_sources import Photo
from shic_cli.files.photos import decode
from shic_cli.stages.predict import Predictor

Opened = Callable[[Path | str], Any]


@pytest.fixture
def served(folder: Path, small_model_file: Path) -> Iterator[str]:
    """The address that `shic view model.safetensors` prints; the model finds no masks, photos are cut out."""
    with serving(folder, "view", "model.safetensors", "--masker", "none") as address:
        yield address


def ask(
    address: str, method: str, path: str, body: bytes = b"", /, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, content and headers of the server's answer, with the right token unless another is given."""
    host, token = re.fullmatch(r"http://([^/]+)/\?token=(.+)", address).groups()  # type: ignore[union-attr]
    connection = http.client.HTTPConnection(host, timeout=60)
    named = {"X-Shic-Token": token} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {name: value for name, value in named.items() if value})
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def cut_out(folder: Path, i: int) -> bytes:
    """A photo of the album as a PNG whose alpha channel is its mask."""
    picture = Image.open(folder / "imgs" / f"photo{i}.png").convert("RGB")
    picture.putalpha(Image.open(folder / "masks" / f"photo{i}.png").convert("L"))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def test_it_listens_on_this_machine_alone_and_answers_only_its_own_page(served: str, folder: Path) -> None:
    port = int(re.search(r":(\d+)/", served)[1])  # type: ignore[index]
    listening = Path("/proc/net/tcp").read_text().splitlines() if Path("/proc/net/tcp").exists() else []
    bound = [line.split()[1] for line in listening if line.split()[1].endswith(f":{port:04X}")]
    assert set(bound) <= {f"0100007F:{port:04X}"}
    assert ask(served, "GET", "/")[0] == 200
    for wrong in (
        {"X_Shic_Token": ""},
        {"X_Shic_Token": "guess"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},  # DNS rebinding
    ):
        for method, path in (("GET", "/"), ("POST", "/predict?name=a.png")):
            status, content, _ = ask(served, method, path, b"", **wrong)
            assert status == 403 and b"<html" not in content and json.loads(content)["error"], wrong
    assert ask(served, "POST", "/predict", b"x", Origin=f"http://127.0.0.1:{port}")[0] == 400  # no picture


def test_no_path_leads_to_a_file(served: str, folder: Path) -> None:
    for path in (
        "/../template.h5",
        "/template.h5",
        "/%2e%2e/template.h5",
        "/photo/../../etc/passwd",
        "//etc/passwd",
    ):
        assert ask(served, "GET", path)[0] == 404, path


def test_what_is_too_large_or_has_no_length_is_refused_unread(served: str) -> None:
    assert ask(served, "POST", "/predict", Content_Length=str(10**12))[0] == 413
    assert ask(served, "POST", "/predict", Content_Length="9" * 5000)[0] == 413
    assert ask(served, "POST", "/predict", Content_Length="-1")[0] == 411
    status, content, headers = ask(served, "POST", "/predict?name=a.png", b"no picture")
    assert status == 400 and "can't be read as an image" in json.loads(content)["error"]
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"


def test_a_dropped_photo_is_predicted_as_predict_does(
    served: str, folder: Path, small_model_file: Path, opened: Opened
) -> None:
    for i in range(2):
        (folder / f"cut{i}.png").write_bytes(cut_out(folder, i))
    browser = opened(served)
    chosen = browser.find_element("id", "file")
    chosen.send_keys("\n".join(str(folder / f"cut{i}.png") for i in range(2)))
    wait(browser, "viewer.cards.length == 2 && viewer.cards[1].photo.maps")
    predictor = Predictor(small_model_file, torch.device("cpu"))
    for i in range(2):
        rgb, alpha = decode(cut_out(folder, i), "x")
        assert alpha is not None
        vertex, _, _ = predictor.predict(Photo("x", b"", rgb, alpha >= 128))
        shown = browser.execute_script(f"return [...viewer.cards[{i}].photo.maps[0].vertex]")
        assert (vertex.ravel() == shown).all() and len(np.unique(shown)) > 5
    chosen.send_keys(str(folder / "template.h5"))
    wait(browser, "viewer.element.notice.textContent.includes('template.h5: can')")
    assert "can't be read as an image" in browser.execute_script("return viewer.element.notice.textContent")
    browser.get_log("browser")  # Chromium logs the refusal


def test_a_taken_port_is_told_in_two_lines(
    folder: Path, small_model_file: Path, shic: Callable[..., Any]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out, err = shic("view", "model.safetensors", "--port", port)
    assert status == 1 and out == "" and len(err.strip().splitlines()) == 2
    assert f"port {port}: is taken" in err and "--port" in err
