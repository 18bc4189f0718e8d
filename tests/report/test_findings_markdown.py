"""Markdown, read by a CommonMark parser and by GitHub's own, whose HTML shows the findings and nothing else."""

from __future__ import annotations

import html.parser
import re
from collections import Counter

import cmarkgfm
from cmarkgfm.cmark import Options
from hypothesis import given
from markdown_it import MarkdownIt

from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.check.finding import CheckReport, Severity
from epsinas_onnx.report.findings import Format, render
from epsinas_onnx.report.findings.wording import statement

from .samples import FULL, HOSTILE, checked, finding, quick, report, reports

OURS = {"<code>", "</code>"}
OUR_BLOCKS = {
    "<details><summary>How to fix it</summary>",
    "<details><summary>Ignored</summary>",
    "</details>",
}


class Page(html.parser.HTMLParser):
    """The tags of a page, the cells of its table, and its text without the white space and the zero-width spaces."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self.text = ""
        self._in_cell = False
        self.feed(cmarkgfm.github_flavored_markdown_to_html(markdown, Options.CMARK_OPT_UNSAFE))
        self.close()
        self.text = squeezed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag == "td":
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.cells[-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def squeezed(text: str) -> str:
    return re.sub(r"[\s\u200b]", "", text)


@quick
@given(reports)
def test_github_shows_every_finding_whole_and_nothing_else(report: CheckReport) -> None:
    page = Page(render(report, Format.MARKDOWN))
    allowed = {"h3", "h4", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "strong", "code"}
    assert set(page.tags) <= allowed | {"details", "summary"}
    assert page.attributes <= {"align"}
    assert page.tags["td"] == 4 * len(report.models)
    ignored = [found for model in report.models for found in model.findings if found.ignored is not None]
    assert page.tags["li"] == len(list(report.counting())) + len(ignored)
    assert page.tags["h4"] == sum(bool(model.counting()) for model in report.models)
    for model in report.models:
        assert squeezed(shown(escaped(model.model))) in page.text
        for found in model.findings:
            assert squeezed(f"{found.rule}: {statement(found)}") in page.text
            assert squeezed(
                f"Fix: {sentence(found.fix)}" if found.ignored is None else found_reason(found.ignored)
            ) in (page.text)


def found_reason(ignored: str) -> str:
    return f"Ignored: {sentence(ignored)}"


@quick
@given(reports)
def test_a_commonmark_parser_finds_no_html_but_ours(report: CheckReport) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(render(report, Format.MARKDOWN))
    inline = [token for block in tokens for token in block.children or []]
    assert {token.content for token in inline if token.type == "html_inline"} <= OURS
    blocks = {line for token in tokens if token.type == "html_block" for line in token.content.split("\n")}
    assert {line.strip() for line in blocks} - {""} <= OUR_BLOCKS
    assert {token.type for token in inline} <= {
        "text", "code_inline", "html_inline", "softbreak", "strong_open", "strong_close", "text_special",
    }  # fmt: skip
    rows = sum(token.type == "tr_open" for token in tokens)
    assert rows == len(report.models) + 1


def test_nobody_is_mentioned_and_nothing_is_referred_to() -> None:
    """GitHub looks for `@name` and `#1` outside of code after the Markdown has become HTML."""
    for text in HOSTILE:
        found = finding(message=text, fix=text, node=None)
        written = cmarkgfm.github_flavored_markdown_to_html(
            render(report(checked("a.onnx", found)), Format.MARKDOWN), Options.CMARK_OPT_UNSAFE
        )
        outside = re.sub(r"<code>.*?</code>", "", written)
        assert not re.search(r"@\w|#\d", outside.replace("&#", ""))


def test_the_table_reads_like_this() -> None:
    page = Page(render(FULL, Format.MARKDOWN))
    rows = [page.cells[i : i + 4] for i in range(0, 16, 4)]
    assert rows[:2] == [
        ["models/yolo320n.onnx", "0.059048", "3,014,358", "1 warning, 1 note"],
        ["models/transformer.onnx", "noise", "229,096", "1 error"],
    ]
    assert rows[3] == ["models/good.onnx", "0.644574", "1,287,921", ""]


def test_a_long_fix_is_folded_away() -> None:
    text = render(FULL, Format.MARKDOWN)
    assert text.count("How to fix it") == 1
    assert "  Fix: export with opset 18 or later\n" in text


def test_a_comment_never_exceeds_what_github_takes_and_says_what_is_left_out() -> None:
    found = [finding(message=f"{'long ' * 20}{i}") for i in range(40)]
    many = report(*[checked(f"models/{i}.onnx", *found, finding(ignored="why")) for i in range(2000)])
    text = render(many, Format.MARKDOWN)
    assert 40_000 < len(text) < 65_536
    shown, ignored = text.split("<details><summary>Ignored</summary>")
    rows, items, skipped = (part.count(line) for part, line in ((shown, "\n| `"), (shown, "\n- "), (ignored, "\n- ")))
    assert 0 < rows < 2000
    assert f"{2000 - rows:,} more models are not in the table" in text
    assert f"{2000 * 40 - items:,} more findings are not here" in text
    assert f"{2000 - skipped:,} more ignored findings are not here" in text


def test_the_verdict_is_the_heading() -> None:
    assert render(FULL, Format.MARKDOWN).startswith("### epsinas-onnx check failed\n")
    lenient = report(checked("a.onnx", finding(severity=Severity.WARNING)))
    assert render(lenient, Format.MARKDOWN).startswith("### epsinas-onnx check passed\n")
