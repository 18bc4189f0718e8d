"""Explanations of files whose names are hostile: on a page, in JSON and in a terminal they are text alone."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from epsinas_onnx import Explanation, explain
from epsinas_onnx._util.text import shown, to_json
from epsinas_onnx.explanation.result import Ending, ExplainedValue
from epsinas_onnx.report.explanation import print_explanation
from epsinas_onnx.report.explanation_page import to_html
from epsinas_onnx.scoring.result import Status
from tests.browser import Browser, browser  # noqa: F401
from tests.builders import perceptron
from tests.explanation.test_prefixes import MODELS
from tests.report.samples import texts


class Page(HTMLParser):
    """Collects the elements of a page, with their attributes, and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))
        self._open = tag if tag != "script" else f"script {dict(attrs).get('id')}"

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)


@pytest.fixture(scope="module")
def plain() -> Explanation:
    return explain(perceptron(), batch=16)


def renamed(plain: Explanation, names: list[str], model: str) -> Explanation:
    """Return the explanation with other names of values and nodes, the last of which loses the signal."""
    new = {value.name: f"{name}{index}" for index, (value, name) in enumerate(zip(plain.values, names, strict=True))}
    values: list[ExplainedValue] = [
        dataclasses.replace(
            value, name=new[value.name], node=value.node and new[value.name], operator=new[value.name],
            operands=tuple(new[one] for one in value.operands),
        )
        for value in plain.values
    ]  # fmt: skip
    last = values[-1]
    lost = Ending(Status.UNDERFLOW, last.name, last.node, last.operator, 1.0, last.operands, "exact")
    return dataclasses.replace(
        plain, model=model, values=tuple(values), lost=lost,
        lost_in_float32=dataclasses.replace(lost, arithmetic="float32"),
        warnings=(last.name,), status=Status.UNDERFLOW, score=None,
    )  # fmt: skip


names = st.lists(texts, min_size=4, max_size=4)
many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FRAME = (
    "html", "head", "meta", "title", "style", "body", "main", "h1", "ul", "li", "section", "h2", "p", "span", "div",
    "label", "input", "button", "canvas", "noscript", "script", "table", "thead", "tbody", "tr", "th", "td", "strong",
)  # fmt: skip


@given(names=names, model=texts)
@many
def test_names_are_text_on_the_page(plain: Explanation, names: list[str], model: str) -> None:
    harmless = Page(to_html(renamed(plain, ["a"] * 4, "model")))
    text = to_html(renamed(plain, names, model))
    page = Page(text)
    # No name adds an element, an attribute or its value: only widths of indents and bars depend on what was found.
    assert {tag for tag, _ in page.elements} <= set(FRAME)
    kept = [one for one in page.elements if one[0] not in ("tr", "th", "td", "div", "strong")]
    assert kept == [one for one in harmless.elements if one[0] not in ("tr", "th", "td", "div", "strong")]
    assert {name for _, attributes in page.elements for name, _ in attributes} <= {
        "lang", "charset", "name", "content", "http-equiv", "aria-labelledby", "class", "id", "aria-live", "scope",
        "style", "type", "placeholder", "tabindex", "role", "aria-label", "aria-hidden",
    }  # fmt: skip
    assert page.texts["title"] == [f"Where the signal goes: {shown(shown(model))}"] or shown(model) in "".join(
        page.texts["title"]
    )
    (data,) = page.texts["script data"]
    record = json.loads(data)
    expected = renamed(plain, names, model)
    assert [one["name"] for one in record["values"]] == [shown(value.name) for value in expected.values]
    assert page.texts["script None"] == harmless.texts["script None"]
    assert all(c == "\n" or c.isprintable() for c in text.replace("\t", ""))


@given(names=names, model=texts, width=st.sampled_from((None, 40, 80)))
@many
def test_names_are_harmless_in_a_terminal(plain: Explanation, names: list[str], model: str, width: int | None) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=width is not None, color_system=None)
    print_explanation(renamed(plain, names, model), console)
    text = out.getvalue()
    assert all(c == "\n" or c.isprintable() for c in text)
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())


@given(names=names, model=texts)
@many
def test_json_holds_names_as_they_are(plain: Explanation, names: list[str], model: str) -> None:
    found = renamed(plain, names, model)
    text = to_json(found.to_dict(), indent=None)
    assert text.isascii()
    assert text.strip().isprintable()
    assert [one["name"] for one in json.loads(text)["values"]] == [value.name for value in found.values]


def test_a_page_names_nothing_to_load(plain: Explanation) -> None:
    page = Page(to_html(plain))
    assert not {"src", "href", "srcset", "action"} & {name for _, attributes in page.elements for name, _ in attributes}
    assert "url(" not in "".join(page.texts["style"])
    (policy,) = (
        dict(attributes)["content"]
        for tag, attributes in page.elements
        if ("http-equiv", "Content-Security-Policy") in attributes
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_in_a_browser(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:  # noqa: F811
    page = tmp_path / "page.html"
    page.write_text(to_html(explain(MODELS / "nb201-c3-n-n-c1-c3-n.onnx", batch=16)), encoding="utf-8")
    browser.show(page, width=width, scheme=scheme)
    assert browser.run("return document.documentElement.dataset.ready") == "yes"
    assert browser.requested() == [page.resolve().as_uri()]
    assert browser.complaints() == []
    assert browser.violations() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    details = "return document.getElementById('details').textContent"
    assert "float32 ends here" in browser.run(details)
    pixels = "c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
    assert browser.run(f"const c = document.getElementById('canvas'); return new Set({pixels}).size") > 20
    from selenium.webdriver.common.keys import Keys

    graph = browser.driver.find_element("id", "graph")
    graph.send_keys(Keys.HOME)
    assert "an input" in browser.run(details)
    assert browser.run("return document.getElementById('graph').scrollTop") == 0
    graph.send_keys(Keys.ARROW_DOWN)
    assert "stem.conv (Conv)" in browser.run(details)
    graph.send_keys(Keys.END)
    assert "output (Gemm)" in browser.run(details)
    assert browser.run("return document.getElementById('graph').scrollTop") > 1000
    browser.driver.find_element("id", "find").send_keys("stage1.cell2.edge0-3.conv", Keys.ENTER)
    assert "stage1.cell2.edge0-3.conv (Conv)" in browser.run(details)
    browser.driver.find_element("id", "lost").click()
    assert "stage0.cell3.edge0-1.conv (Conv)" in browser.run(details)


@pytest.mark.slow
def test_hostile_names_run_nothing_in_a_browser(browser: Browser, tmp_path: Path, plain: Explanation) -> None:  # noqa: F811
    bad = "</script><img src=x onerror='document.title=`taken`'><b id=forged>"
    page = tmp_path / "page.html"
    page.write_text(to_html(renamed(plain, [bad] * 4, bad)), encoding="utf-8")
    browser.show(page)
    browser.driver.find_element("id", "lost").click()
    assert browser.requested() == [page.resolve().as_uri()]
    assert browser.complaints() == []
    assert browser.run("return document.querySelectorAll('img, #forged, b').length") == 0
    assert bad in browser.run("return document.getElementById('details').textContent")
    assert browser.run("return document.title").startswith("Where the signal goes")


@pytest.mark.slow
def test_a_graph_of_thousands_scrolls(browser: Browser, tmp_path: Path, plain: Explanation) -> None:  # noqa: F811
    first, second, *_ = plain.values
    values = [first]
    for index in range(5000):
        name = f"v{index}"
        values.append(dataclasses.replace(second, name=name, node=name, depth=index + 1, operands=(values[-1].name,)))
    page = tmp_path / "page.html"
    page.write_text(to_html(dataclasses.replace(plain, values=tuple(values))), encoding="utf-8")
    browser.show(page)
    assert browser.run("return document.documentElement.dataset.ready") == "yes"
    picture = "return document.getElementById('canvas').toDataURL()"
    seen = {browser.run(picture)}
    for place in (0.5, 1):
        scroll = "const g = document.getElementById('graph'); g.scrollTop = arguments[0] * g.scrollHeight"
        browser.run(scroll, place)
        for _ in range(100):
            if (now := browser.run(picture)) not in seen:
                break
            time.sleep(0.1)
        seen.add(now)
    assert len(seen) == 3
