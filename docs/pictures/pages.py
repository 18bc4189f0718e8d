"""Takes the pictures of docs/report.md and docs/ranking.md in Chromium: `python docs/pictures/pages.py`.

It needs the extra `pages`, chromium and chromedriver, makes the pages with the commands that these show, and writes the
pictures beside this file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
COLOURS = 256  # of a PNG with a palette
SHOTS = {
    # name: page, width, height, screen, what is clicked before
    "pages_report": ("report.html", 1280, 1500, "light", "#body tr[data-index] button"),
    "pages_report_narrow": ("report.html", 400, 1400, "dark", None),
    "pages_ranking": ("ranking.html", 1280, 1180, "light", None),
    "pages_difference": ("change.html", 1280, 1000, "light", "#next"),
    "pages_difference_narrow": ("change.html", 400, 1000, "dark", None),
}
CHANGE = ("models/nb201-c3-c3-p-s-c3-s.onnx", "models/nb201-c3-c3-c3-s-c3-c3.onnx")


def main() -> None:
    """Score the models, make the pages, and take the pictures."""
    sys.path.insert(0, str(ROOT))
    from PIL import Image

    from tests.browser import Browser, started

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "models").symlink_to(ROOT / "models")
        run(folder, "score", "models/", "--with", "swap,meco,expressivity,macs", "-o", "results.jsonl")
        run(folder, "report", "results.jsonl", "-o", "report.html", "--title", "The models of the repository")
        run(folder, "rank", "models/nb201-*.onnx", "-o", "ranking.html")
        run(folder, "diff", *CHANGE, "--no-score", "--html", "change.html")
        driver = started()
        try:
            browser = Browser(driver)
            for name, (page, width, height, scheme, clicked) in SHOTS.items():
                browser.show(folder / page, width=width, height=height, scheme=scheme)
                if clicked is not None:
                    browser.run("document.querySelector(arguments[0]).click(); scrollTo(0, 0)", clicked)
                taken = browser.picture(folder / f"{name}.png", whole=False)
                with Image.open(taken) as image:
                    small = image.convert("RGB").quantize(COLOURS)
                    small.save(Path(__file__).with_name(f"{name}.png"), optimize=True)
        finally:
            driver.quit()


def run(folder: Path, *args: str) -> None:
    """Run the program in a folder."""
    program = [sys.executable, "-m", "epsinas_onnx", *args]
    subprocess.run(program, cwd=folder, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)


if __name__ == "__main__":
    main()
