"""A headless Chromium for the pages, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import start, wait


@pytest.fixture(scope="session")
def started() -> Iterator[Any]:
    browser = start()
    yield browser
    browser.quit()


@pytest.fixture
def browser(started: Any) -> Iterator[Any]:
    """The browser; afterwards nothing may have gone wrong in it."""
    started.get("about:blank")
    started.get_log("browser")
    yield started
    wrong = [line for line in started.get_log("browser") if line["level"] == "SEVERE"]
    assert not wrong, wrong


@pytest.fixture
def opened(browser: Any) -> Callable[[Path | str], Any]:
    """`opened(page)` opens a file or an address and waits until it is ready."""

    def opening(page: Path | str) -> Any:
        browser.get(page.resolve().as_uri() if isinstance(page, Path) else page)
        wait(browser, "document.body.dataset.ready")
        return browser

    return opening
