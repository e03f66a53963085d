"""A real headless Chromium, driven through chromedriver."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage",
)  # fmt: skip
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")


@contextmanager
def chromium(
    profile: Path, width: int = 1280, height: int = 900, dark: bool = False, phone: bool = False
) -> Iterator[Any]:
    """A driver with an empty profile; skips where Chromium or selenium is not installed."""
    selenium = pytest.importorskip("selenium.webdriver")
    if not CHROMIUM or not DRIVER:
        pytest.skip("no chromium and chromedriver here; Debian: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=Service(DRIVER))
    try:
        # Without motion: a smooth scroll would move what a test is about to click.
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}, still]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        if phone:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()


def wait(driver: Any, script: str, seconds: float = 60) -> Any:
    """The first truthy value of a script."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := driver.execute_script(f"return {script}"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"never: {script}; console: {driver.get_log('browser')}")


def open_report(driver: Any, path: Path) -> None:
    """Open the page and wait until every figure is drawn."""
    driver.get(path.as_uri())
    wait(driver, "document.body.dataset.drawn")


def requests(driver: Any) -> set[str]:
    """Every address the page asked for, Chromium's own pages left out."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    return {url for url in asked if not url.startswith(("chrome:", "data:", "blob:"))}


def errors(driver: Any) -> list[str]:
    """What the console complained about."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
