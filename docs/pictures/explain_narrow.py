"""Draws explain_narrow.png: the same page on a narrow, dark screen."""

from __future__ import annotations

from pathlib import Path

from explain import draw

if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".png"), 400, 1000, "dark")
