"""The pictures of the pages: each is shown, has the script that drew it, and what a script computes is true."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
PLOTTED = "nasbench"
"""What `evaluate --plot` writes begins with this, and has no script."""


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(PICTURES))
    return importlib.import_module(name)


def test_every_picture_is_shown_and_has_its_script() -> None:
    shown: set[str] = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        shown.update(Path(path).name for path in re.findall(r"pictures/[\w.-]+", page.read_text(encoding="utf-8")))
    files = {path.name for path in PICTURES.iterdir() if path.suffix in (".svg", ".png")}
    assert files <= shown
    drawn = {Path(name).stem.partition("_")[0] for name in files if not name.startswith(PLOTTED)}
    assert {name for name in drawn if not (PICTURES / f"{name}.py").is_file()} == set()


@pytest.mark.parametrize("name", ["nb201-c3-n-n-c1-c3-n", "nb201-c1-n-c1-n-n-c3"])
def test_float32_holds_a_deviation_down_to_its_smallest_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numerics = script("numerics", monkeypatch)
    found = numerics.through_cells(numerics.traced(name, 16), numerics.SMALL)
    assert found.deviation.size == 15
    held = ~np.isnan(found.plain)
    np.testing.assert_array_equal(held, found.deviation > numerics.SMALLEST)
    assert held.any()
    assert not held.all()
    np.testing.assert_allclose(found.plain[held], found.deviation[held], atol=0.01)
    assert np.all(np.diff(found.deviation) < 0)


def test_float32_holds_a_deviation_down_to_the_last_bit_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    numerics = script("numerics", monkeypatch)
    found = numerics.through_steps(numerics.traced("lstm", 64), numerics.MIDDLE, "lstm1")
    held, above = ~np.isnan(found.plain), found.deviation - found.base - numerics.LAST_BIT
    assert held[above > 0.5].all()
    assert not held[above < -0.5].any()
    assert {True, False} == set(held.tolist())


def test_places_of_one_class_hold_equal_values(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = script("positions", monkeypatch)
    found = positions.partitions()
    image = np.ones((32, 32))
    first = box(image)
    for name, values in (("input", image), ("stem.conv", first), ("stage0.cell0.edge0-1.conv", box(first))):
        for part, array in zip(found[name], (values, values.T), strict=True):
            assert np.unique(array, axis=0).shape[0] == part.count
            np.testing.assert_array_equal(array[part.representatives][part.labels], array)


def box(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sums of 3x3 windows, with zeros around the image."""
    padded = np.pad(image, 1)
    sums: npt.NDArray[Any] = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).sum(axis=(2, 3))
    return sums


def test_pictures_of_pages_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PICTURES))
    taken = list(PICTURES.glob("pages_*.png"))
    assert len(taken) == len(importlib.import_module("pages").SHOTS)
    assert {path.name: path.stat().st_size for path in taken if path.stat().st_size > 200_000} == {}
