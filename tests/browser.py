"""A headless Chromium for pages: what it loads and complains about, its size and colours, pictures, and axe-core."""

from __future__ import annotations

import base64
import importlib.resources
import importlib.util
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")


class Browser:
    """A page in Chromium. driver: Selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def show(self, page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Open a file in a window of a size, on a light or a dark screen."""
        self.look(width, height, scheme)
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(page.resolve().as_uri())
        while self.run("return document.readyState") != "complete":  # a driver may be back before a large page is read
            time.sleep(0.05)

    def look(self, width: int, height: int, scheme: str) -> None:
        """Change size and colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})

    def requested(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return what the console says, errors of scripts and refused requests among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def run(self, script: str, *args: Any) -> Any:
        """Run a script in the page, and return what it returns."""
        return self.driver.execute_script(script, *args)

    def violations(self) -> list[str]:
        """Return what axe-core finds wrong: the rule, and the first element."""
        rules = importlib.resources.files("axe_core_python") / "axe.min.js"
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": rules.read_text(encoding="utf-8")})
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document).then(r => done(r.violations), e => done([{id: String(e)}]))"
        )
        return [f"{one['id']}: {one['nodes'][0]['html'] if one.get('nodes') else ''}" for one in found]

    def picture(self, path: Path, *, whole: bool = True) -> Path:
        """Write a PNG of the page, or of what the window shows of it."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(taken["data"]))
        return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, or a test that is skipped with the reason."""
    missing = [name for name in ("selenium", "axe_core_python") if importlib.util.find_spec(name) is None]
    missing += [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    driver = started()
    yield Browser(driver)
    driver.quit()


def started() -> Any:
    """Start Chromium and return Selenium's driver of it."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return Chrome(options=options, service=ChromeService(str(shutil.which("chromedriver"))))
