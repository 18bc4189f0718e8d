"""Pictures of an evaluation: every architecture is in them, and nothing that a table holds can run in a page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.evaluation.plots import PlotData, plot

SIGNATURES = {
    ".png": (b"\x89PNG",), ".pdf": (b"%PDF",), ".svg": (b"<?xml",), ".html": (b"<!doctype html>", b"<html>"),
}  # fmt: skip


def data(count: int = 40, **changes: Any) -> PlotData:
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {
        "scores": np.where(np.arange(count) % 4 == 0, np.nan, rng.random(count)),
        "accuracies": 80 + 10 * rng.random(count),
        "parameters": np.exp(rng.uniform(8, 14, count)).round(),
        "labels": [f"cell {index}" for index in range(count)],
        "title": "title", "subtitle": "subtitle", "x_label": "score", "y_label": "accuracy",
    }  # fmt: skip
    return PlotData(**{**given, **changes})


CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "no parameters": {"parameters": None},
    "one size": {"parameters": np.full(40, 7.0)},
    "all scored": {"scores": np.linspace(0.1, 1, 40)},
    "none scored": {"scores": np.full(40, np.nan)},
    "wide": {"scores": np.geomspace(1e-6, 1, 40)},
    "with zeros": {"scores": np.array([0.0] * 5 + [1e-5] * 5 + [1.0] * 30)},
    "one accuracy": {"accuracies": np.full(40, 5.0)},
    "one far away": {"accuracies": np.array([1e6, *range(39)], np.float64)},
    "orders": {"orders": np.repeat([6.0, 36.0, np.nan, 66.0], 10)},
    "gaps": {"accuracies": np.array([np.nan] * 3 + [1.0] * 37)},
}


class Page(HTMLParser):
    """Collects elements and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.scripts and self.tags[-1][0] == "script":
            self.scripts[-1] += data

    def traces(self) -> list[dict[str, Any]]:
        """Return what the page gives to plotly."""
        call = self.scripts[-1]
        start = call.index("[", call.index("Plotly.newPlot"))
        found, _ = json.JSONDecoder().raw_decode(call[start:])
        return list(found)


def page(path: Path, shown: PlotData) -> Page:
    plot(path, shown)
    return Page(path.read_text(encoding="utf-8"))


OFTEN = ("usual", "none scored", "orders")
"""Cases that are drawn in every form; the others are drawn for PNG and as pages, and for the rest by hand."""


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        pytest.param(
            changes, ending, id=f"{name}-{ending}",
            marks=[] if name in OFTEN or ending in (".png", ".html") else [pytest.mark.exhaustive],
        )
        for name, changes in CASES.items() for ending in SIGNATURES
    ],
)  # fmt: skip
def test_every_picture_can_be_drawn_and_is_the_same_again(tmp_path: Path, ending: str, changes: dict[str, Any]) -> None:
    first, second = (tmp_path / f"{name}{ending}" for name in "ab")
    for path in (first, second):
        plot(path, data(**changes))
    assert first.read_bytes().startswith(SIGNATURES[ending])
    assert first.read_bytes() == second.read_bytes()


def test_the_page_needs_no_network_and_holds_every_architecture(tmp_path: Path) -> None:
    shown = data()
    found = page(tmp_path / "a.html", shown)
    assert not [attributes for tag, attributes in found.tags if tag in ("script", "link") and "src" in attributes]
    assert not [attributes for tag, attributes in found.tags if "href" in attributes]
    unscored, scored = found.traces()
    texts = " ".join(scored["text"])
    assert len(scored["text"]) == 30
    assert all(label in texts for label, score in zip(shown.labels, shown.scores, strict=True) if np.isfinite(score))
    assert len(unscored["y"]) == 10


def test_what_a_table_holds_cannot_run_in_the_page(tmp_path: Path) -> None:
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    shown = data(labels=[attack] * 40, title=attack, subtitle=attack, x_label=attack, y_label=attack)
    harmless = page(tmp_path / "a.html", data())
    found = page(tmp_path / "b.html", shown)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in harmless.tags]
    # plotly.js reads a few elements out of its texts; it must find none of the table's.
    text = json.dumps(found.traces()) + found.scripts[-1]
    assert not re.search(r"<(script|img)", text.encode().decode("unicode_escape"))


def test_labels_read_as_they_are_in_lines_that_fit(tmp_path: Path) -> None:
    label = '{"node_0":{"op":"linear","input":["x","h_prev_0"]}}' * 6
    hover = page(tmp_path / "a.html", data(labels=[label] * 40)).traces()[1]["text"][0]
    *lines, _, _ = hover.split("<br>")
    assert "".join(lines) == label  # plotly shows &quot; as it is
    assert max(map(len, lines)) <= 100


def test_a_page_of_15000_architectures_stays_below_10_mb(tmp_path: Path) -> None:
    label = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    plot(tmp_path / "a.html", data(15_000, labels=[label] * 15_000))
    assert (tmp_path / "a.html").stat().st_size < 10e6


def test_another_ending_and_a_file_in_place_of_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.pdf, \.svg or \.html"):
        plot(tmp_path / "a.jpg", data())
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*a\.html: "):
        plot(tmp_path / "taken" / "a.html", data())


@pytest.mark.parametrize(("ending", "library"), [(".png", "matplotlib"), (".html", "plotly")])
def test_a_missing_library_is_one_sentence_that_says_what_to_run(tmp_path: Path, ending: str, library: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        f"from pathlib import Path\nfrom epsinas_onnx.evaluation.plots import plot\n"
        f"from tests.evaluation.test_plots import data\n"
        f"try: plot(Path({str(tmp_path / 'a')!r} + {ending!r}), data())\nexcept Exception as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert library in done.stdout
    assert pip_install("plots") in done.stdout
    assert done.stdout.count("\n") == 1


def test_scores_of_different_order_have_a_colour_and_a_name_each(tmp_path: Path) -> None:
    orders = np.repeat([6.0, 36.0], 20)
    plot(tmp_path / "p.html", data(orders=orders))
    points = [trace for trace in Page((tmp_path / "p.html").read_text()).traces() if trace["type"] == "scattergl"]
    assert [trace["name"] for trace in points] == ["order 6 (15)", "order 36 (15)"]
    assert len({trace["marker"]["color"] for trace in points}) == 2
    plot(tmp_path / "p.svg", data(orders=orders))
    plot(tmp_path / "plain.svg", data())
    assert (tmp_path / "p.svg").read_bytes() != (tmp_path / "plain.svg").read_bytes()
