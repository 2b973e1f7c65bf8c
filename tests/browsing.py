"""A headless Chromium: starting it, and waiting for what happens in it."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader"),
    *(
        "--enable-unsafe-swiftshader",
        "--disable-background-networking",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
)


def start(*flags: str, width: int = 1400, height: int = 900) -> Any:
    """A browser with a window of this size; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the package selenium is not installed")
    if CHROMIUM is None or shutil.which("chromedriver") is None:
        pytest.skip("chromium and chromedriver are not on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--window-size={width},{height}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    os.environ.setdefault("SE_OFFLINE", "true")  # selenium would look for browsers on the network
    return webdriver.Chrome(options=options, service=service)


def wait(browser: Any, condition: str, seconds: float = 20.0) -> Any:
    """The value of a JavaScript expression, when it is true."""
    until = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {condition}")):
        assert time.monotonic() < until, f"{condition} is not true after {seconds} seconds"
        time.sleep(0.02)
    return value


def click(browser: Any, selector: str, x: float, y: float, *, shift: bool = False) -> None:
    """A real click at a share of the element's width and height."""
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    element = browser.find_element(By.CSS_SELECTOR, selector)
    size = element.rect
    actions = ActionChains(browser, duration=0)
    if shift:
        actions.key_down(Keys.SHIFT)
    actions.move_to_element_with_offset(
        element, round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])
    )
    actions.click()
    if shift:
        actions.key_up(Keys.SHIFT)
    actions.perform()
