"""Draws explain.png: a page of `explain` in a headless Chromium."""

from __future__ import annotations

import base64
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from epsinas_onnx import explain
from epsinas_onnx.report.explanation_page import to_html

MODEL = "models/nb201-c3-n-n-c1-c3-n.onnx"


def started() -> Any:
    """Start Chromium."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    return Chrome(options=options, service=ChromeService(str(shutil.which("chromedriver"))))


def draw(path: Path, width: int, height: int, scheme: str) -> None:
    """Write what a window shows of the page; it must be run where models/ is."""
    page = to_html(explain(MODEL))
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "page.html"
        file.write_text(page, encoding="utf-8")
        driver = started()
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(file.as_uri())
        # Most rows of the table are left out of the picture, and the graph with what was chosen in it comes up.
        driver.execute_script("document.querySelectorAll('tbody tr:nth-child(n+5)').forEach(row => row.remove())")
        time.sleep(1)
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {})
        path.write_bytes(base64.b64decode(taken["data"]))
        driver.quit()


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".png"), 1280, 1240, "light")
