"""The pages in a headless Chromium: sorted, filtered, clicked, typed at; nothing is loaded, axe finds nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from epsinas_onnx import diff
from epsinas_onnx.compare.align import NodeText
from epsinas_onnx.compare.rows import AlignedNode, Fate
from epsinas_onnx.ranking.result import rank_records
from epsinas_onnx.report import difference_page, results_page
from tests.browser import SCHEMES, WIDTHS, Browser, browser
from tests.builders import command
from tests.tiers import tiered

from .samples import HOSTILE
from .test_pages import MODELS, rows, scored

pytestmark = pytest.mark.slow
__all__ = ["browser"]

NAMES = [*(name for name in HOSTILE if name), "<img src=http://127.0.0.1:9/x onerror='document.title=1'>"]


def many(count: int) -> list[dict[str, Any]]:
    """Return records of which every seventh has no score."""
    return [
        scored(
            f"net{i}", None if i % 7 == 6 else i * 37 % 101 / 10, swap=float(i * 53 % 997), macs=float(10 + i)
        ).to_dict()
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    hostile = [scored(name, None if i % 2 else float(i), **{name: 1.0, "swap": None}) for i, name in enumerate(NAMES)]
    found = diff(MODELS / "nb201-c3-c3-p-s-c3-s.onnx", MODELS / "nb201-c3-c3-c3-s-c3-c3.onnx", with_score=False)
    nodes = tuple(row for name in NAMES for row in rows(name))
    ranked = [*many(30), scored("lacks all", 0.5).to_dict()]
    texts = {
        "ranking": results_page.ranking_to_html(rank_records(ranked, ("swap", "macs", "epsinas")), ranked),
        "results": results_page.to_html(many(300), accuracies={f"net{i}": float(i) for i in range(200)}),
        "hostile": results_page.to_html([one.to_dict() for one in hostile], title=NAMES[-1]),
        "large": results_page.to_html(many(15_625)),
        "difference": difference_page.to_html(found),
        "hostile difference": difference_page.to_html(
            dataclasses.replace(found, before=dataclasses.replace(found.before, model=NAMES[-1]), nodes=nodes)
        ),
        "large difference": difference_page.to_html(dataclasses.replace(found, nodes=chain(5_000))),
    }
    made = {}
    for name, text in texts.items():
        made[name] = folder / f"{name}.html"
        made[name].write_text(text, encoding="utf-8")
    return made


def chain(length: int) -> Any:
    """Return rows of a chain of which every fiftieth node is new."""
    made = []
    for i in range(length):
        node, reads = NodeText(f"n{i}", "Relu", ""), tuple(one for one in (i - 1, i - 9) if one >= 0)
        is_new = i % 50 == 25
        made.append(
            AlignedNode(Fate.ADDED if is_new else Fate.SAME, None if is_new else node, node, (), (reads, reads))
        )
    return tuple(made)


KINDS = ("results", "ranking", "hostile", "large", "difference", "hostile difference", "large difference")
AGAIN = ("large", "difference", "large difference")
"""Pages that are made as others are."""


@pytest.mark.parametrize("kind", tiered(KINDS, exhaustive=AGAIN))
def test_a_page_loads_nothing_complains_of_nothing_and_is_accessible(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    for scheme in SCHEMES:
        for width in WIDTHS:
            browser.show(pages[kind], width=width, scheme=scheme)
            browser.run("document.querySelector('#body button, #nodes button[data-row]').click()")
            assert browser.requested() == [pages[kind].resolve().as_uri().replace("#", "%23")]
            assert browser.complaints() == []
            assert browser.run("return document.documentElement.scrollWidth") <= width
            assert browser.run("return document.querySelectorAll('img, iframe, object, main script').length") == 0
            if kind not in ("large", "large difference") or width == WIDTHS[0]:
                assert browser.violations() == []
            background = browser.run("return getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def cells(browser: Browser, key: str) -> list[str]:
    script = """const heads = [...document.querySelectorAll('#head th')];
        const at = heads.findIndex((th) => th.dataset.key === arguments[0]);
        return [...document.querySelectorAll('#body tr[data-index]')].map((tr) => tr.children[at].innerText)"""
    return list(browser.run(script, key))


def where(browser: Browser) -> str:
    return str(browser.run("return document.getElementById('where').textContent"))


def test_the_table_sorts(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["results"])
    expected = [one["score"] for one in many(300)]
    known = sorted((one for one in expected if one is not None), reverse=True)
    press = 'document.querySelector(`[data-key="${arguments[0]}"] button`).click()'
    assert browser.run("return document.querySelector('[data-key=score]').ariaSort") == "descending"
    browser.run(press, "parameters")
    browser.run(press, "score")
    assert [float(text) for text in cells(browser, "score")] == pytest.approx(known[:100])
    assert browser.run("return document.querySelector('[data-key=score]').ariaSort") == "descending"
    browser.run(press, "score")
    assert [float(text) for text in cells(browser, "score")] == pytest.approx(known[::-1][:100])
    browser.run("document.getElementById('next').click(); document.getElementById('next').click()")
    assert cells(browser, "score")[-1] == ""  # what has no score is last either way
    browser.run(press, "model")
    assert cells(browser, "model")[:3] == ["net0", "net1", "net2"]


def test_the_table_filters(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["results"])
    assert where(browser) == "1 to 100 of 300"
    browser.run("document.querySelectorAll('#statuses button')[0].click()")
    assert set(cells(browser, "status")) == {"constant"}
    assert where(browser) == "1 to 42 of 42, of 300 in all"
    browser.run("document.querySelectorAll('#statuses button')[1].click()")
    assert where(browser) == "no model passes the filters"
    browser.run("document.querySelectorAll('#statuses button').forEach((one) => one.click())")
    field = browser.driver.find_element("id", "find")
    field.send_keys("NET29")
    assert sorted(cells(browser, "model")) == sorted(["net29", *(f"net{i}" for i in range(290, 300))])


def test_details_open_by_mouse_and_by_keyboard_with_the_reason_in_full(
    browser: Browser, pages: dict[str, Path]
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.show(pages["results"])
    field = browser.driver.find_element("id", "find")
    field.send_keys("net13")
    browser.driver.find_element("css selector", "#body tr[data-index='13'] td").click()
    details = browser.driver.find_element("id", "details").text
    assert "it does not depend on net13" in details
    assert "note: a warning of net13" in details
    assert "place by swap" in details
    button = browser.driver.switch_to.active_element
    assert button.get_attribute("aria-expanded") == "true"
    button.send_keys(Keys.ENTER)
    assert browser.driver.find_elements("id", "details") == []
    browser.driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert len(browser.driver.find_elements("id", "details")) == 1
    field.send_keys(Keys.TAB, Keys.TAB, Keys.TAB)
    assert browser.driver.switch_to.active_element.tag_name in ("button", "div")


def test_a_point_of_a_picture_shows_its_model(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["results"])
    found = browser.run(
        """const canvas = document.querySelector('#panels canvas'), box = canvas.getBoundingClientRect();
        for (let x = 50; x < box.width; x += 3) for (let y = 8; y < box.height; y += 3) {
          canvas.dispatchEvent(new MouseEvent('click', {clientX: box.left + x, clientY: box.top + y}));
          const open = document.querySelector('#body tr.chosen');
          if (open) return open.dataset.index;
        }"""
    )
    assert found is not None
    assert browser.run("return document.activeElement.closest('tr').dataset.index") == found


def test_thousands_of_rows_are_paged_and_all_are_found(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["large"])
    assert where(browser) == "1 to 100 of 15,625"
    assert browser.run("return document.querySelectorAll('#body tr').length") == 100
    browser.driver.find_element("id", "find").send_keys("net15624")
    assert cells(browser, "model") == ["net15624"]


def test_a_ranking_is_in_order_and_says_who_has_no_place(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["ranking"])
    places = [int(text) for text in cells(browser, "place:0") if text]
    assert places == sorted(places)
    assert browser.run("return document.querySelectorAll('#ranks canvas').length") == 1
    assert "lacks all\tno swap" in browser.run("return document.body.innerText")


def test_a_search_has_the_colours_of_its_page(browser: Browser, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "search.html"
    command("search", "nasbenchmacro", "--trials", "4", "--batch", "8", "--html", str(page))
    ink = "return getComputedStyle(document.querySelector('.xtick text')).fill == getComputedStyle(document.body).color"
    for scheme in SCHEMES:
        for width in WIDTHS:
            browser.show(page, width=width, scheme=scheme)
            assert browser.run(ink)
            assert browser.complaints() == browser.violations() == []
            assert browser.requested() == [page.as_uri()]
            assert browser.run("return document.documentElement.scrollWidth") <= width


def test_paper_is_light_and_holds_more_rows(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["results"], scheme="dark")
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 10_000
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(cells(browser, "model")) == 300
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert len(cells(browser, "model")) == 100


def test_changes_of_a_graph_are_gone_through_and_equal_nodes_unfold(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["difference"])
    data = json.loads(browser.run("return document.getElementById('data').textContent"))
    changed = [i for i, row in enumerate(data["rows"]) if row["fate"] != "same"]
    assert browser.run("return document.querySelectorAll('[data-row]').length") < len(data["rows"])
    for expected in changed[:3]:
        browser.driver.find_element("id", "next").click()
        assert browser.run("return Number(document.activeElement.dataset.row)") == expected
    browser.run("document.getElementById('all').click()")
    assert browser.run("return document.querySelectorAll('[data-row]').length") == len(data["rows"])
    browser.run("document.getElementById('all').click()")
    folded = browser.driver.find_element("css selector", ".folded")
    before = browser.run("return document.querySelectorAll('[data-row]').length")
    hidden = int(folded.text.split()[0])
    folded.click()
    assert browser.run("return document.querySelectorAll('[data-row]').length") == before + hidden


def test_thousands_of_nodes_are_folded_and_unfold(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["large difference"])
    assert browser.run("return document.querySelectorAll('#nodes li').length") < 500
    browser.run("document.getElementById('all').click()")
    assert browser.run("return document.querySelectorAll('#nodes li').length") == 5_000
