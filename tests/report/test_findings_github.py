"""Workflow commands, read as the runner of GitHub Actions reads them.

The reader below follows the description of `ActionCommand.TryParseV2` and its unescaping in actions/runner
(src/Runner.Common/ActionCommand.cs); the escaping is documented in actions/toolkit, packages/core/src/command.ts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

import pytest
from hypothesis import example, given

from epsinas_onnx._util.text import output_line, printable, sentence
from epsinas_onnx.check.finding import CheckReport, Severity
from epsinas_onnx.report.findings import Format, render
from epsinas_onnx.report.findings.wording import statement

from .samples import FULL, HOSTILE, checked, finding, quick, report, reports

DATA = re.compile(r"%(0D|0A|25)")
PROPERTY = re.compile(r"%(0D|0A|3A|2C|25)")


@dataclass
class Command:
    name: str
    properties: dict[str, str]
    data: str


def commands(log: str) -> list[Command]:
    """Return the commands in a log, whose lines end where .NET's reader ends them."""
    found = []
    for line in re.split(r"\r\n|\r|\n", log):
        if match := re.match(r"\s*::(?P<name>[^ :]+)(?: (?P<properties>.*?))?::(?P<data>.*)$", line, re.DOTALL):
            pairs = (pair.split("=", 1) for pair in (match["properties"] or "").strip().split(",") if pair)
            properties = {pair[0]: PROPERTY.sub(lambda m: unquote(m[0]), pair[1]) for pair in pairs if len(pair) == 2}
            found.append(Command(match["name"], properties, DATA.sub(lambda m: unquote(m[0]), match["data"])))
    return found


@quick
@example(report(checked("::stop-commands::x", finding())))
@given(reports)
def test_the_runner_reads_every_finding_whole_and_nothing_else(report: CheckReport) -> None:
    read = commands(render(report, Format.GITHUB))
    if read and read[0].properties.get("title") == "epsinas-onnx check":
        read = read[1:]
    expected = list(report.counting())
    assert len(read) == len(expected)
    for command, (model, found) in zip(read, expected, strict=True):
        assert command.name == {"note": "notice"}.get(found.severity, str(found.severity))
        assert command.data == f"{statement(found)}\nfix: {sentence(found.fix)}"
        assert command.properties["title"] == found.rule
        if model.model.isprintable() and model.model and "//" not in model.model and "./" not in model.model:
            assert command.properties["file"].rstrip("/") == output_line(printable(model.model)).rstrip("/")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_path_is_one_property_of_one_command(name: str) -> None:
    [command] = commands(render(report(checked(f"a{name}b", finding())), Format.GITHUB))
    assert set(command.properties) == {"file", "title"}


def test_a_command_reads_like_this() -> None:
    first, *_, last = render(report(checked("a,b/c.onnx", finding(message="100 % odd"))), Format.GITHUB).splitlines()
    assert first == "::error file=a%2Cb/c.onnx,title=no-score::100 %25 odd%0Afix: look at the head"
    assert last == "1 model checked: 1 error"


def test_ignored_findings_are_only_counted() -> None:
    text = render(FULL, Format.GITHUB)
    assert "patch embedding" not in text
    assert text.splitlines()[-1] == "4 models checked: 2 errors, 1 warning, 1 note, 1 ignored"


@pytest.mark.parametrize(("count", "notices"), [(10, 0), (11, 1)])
def test_annotations_that_github_drops_are_counted_in_the_first_one(count: int, notices: int) -> None:
    found = [finding(severity=Severity.WARNING) for _ in range(count)]
    read = commands(render(report(checked("a.onnx", *found)), Format.GITHUB))
    assert [command.name for command in read] == ["notice"] * notices + ["warning"] * count
    if notices:
        assert read[0].data == "GitHub shows 10 annotations of a kind, and there are 11 warnings: see the step's log"
