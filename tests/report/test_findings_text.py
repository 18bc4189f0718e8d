"""The text of a report on a terminal and in a pipe."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import output_line, sentence, shown
from epsinas_onnx.check.finding import CheckReport
from epsinas_onnx.report.findings import Format, render
from epsinas_onnx.report.findings.text import print_text
from epsinas_onnx.report.findings.wording import statement

from .samples import FULL, checked, finding, quick, report, reports

FULL_TEXT = """\
models/yolo320n.onnx
  warning  folded-batchnorm  node '/model.0/conv/Conv': 57 of 58 convolutions have a bias and no normalisation, and 57 \
of them are followed by swish
                             fix: export with torch.onnx.export(model, ..., dynamo=True, optimize=False), or score \
with the default --restore-batchnorm auto, which puts them back and says so beside the score
  note     opset-too-old     the opset is 11
                             fix: export with opset 18 or later
models/transformer.onnx
  error    no-score          with weights 1 the output varies by no more than rounding does: behind node 'output' \
(Gemm) nothing but rounding is left
                             fix: score a value in front of the last LayerNorm with --output-name
models/broken.onnx
  error    unreadable        the file ends in the middle of node 'a'
                             fix: export it again
1 model without findings
failed: 4 models checked: 2 errors, 1 warning, 1 note, 1 ignored; 2.00 s, 2.0 models/s
"""


def test_a_pipe_gets_a_line_each() -> None:
    assert render(FULL, Format.TEXT) == FULL_TEXT


def test_verbose_lists_what_is_otherwise_counted() -> None:
    text = render(FULL, Format.TEXT, verbose=True)
    assert "models/good.onnx: nothing found\n" in text
    assert "ignored: a patch embedding, it never had any\n" in text
    assert "without findings" not in text


def test_a_terminal_gets_colours() -> None:
    stream = io.StringIO()
    print_text(FULL, Console(file=stream, force_terminal=True, color_system="standard", width=80))
    text = stream.getvalue()
    assert "\x1b[1;31merror" in text
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == render(FULL, Format.TEXT, width=80)


@quick
@given(reports)
def test_every_finding_is_a_line_and_nothing_else_is(report: CheckReport) -> None:
    lines = render(report, Format.TEXT, verbose=True).split("\n")
    ignored = sum(found.ignored is not None for model in report.models for found in model.findings)
    assert len(lines) == len(report.models) + 2 * sum(len(model.findings) for model in report.models) + ignored + 2
    assert all(line.isprintable() for line in lines)
    assert not any(line.lstrip().startswith("::") for line in lines)
    rest = iter(lines)
    for model in report.models:
        assert any(output_line(shown(escaped(model.model))).rstrip() in line for line in rest)
        for found in model.findings:
            said = statement(found).rstrip()
            head = re.compile(rf" +{found.severity} +{found.rule}( |$)")
            assert any(head.match(line) and line.endswith(said) for line in rest)
            assert any(line.endswith(f"  fix: {sentence(found.fix)}".rstrip()) for line in rest)


@quick
@given(reports, st.integers(20, 200))
def test_wrapping_keeps_to_the_width_and_loses_the_middle_of_long_words_alone(report: CheckReport, width: int) -> None:
    texts = (render(report, Format.TEXT, verbose=True, width=w) for w in (width, None))
    wrapped, plain = (text.replace("\\x3a:", "::") for text in texts)  # whether a line begins so depends on the width
    at, whole = 0, re.sub(r"\s", "", plain)
    for part in re.sub(r"\s", "", wrapped).split("…"):  # what stands there for the middle of a word that fits no line
        at = whole.find(part, at)
        assert at >= 0
        at += len(part)
    for line in wrapped.splitlines():
        if line.startswith(" " * 4):
            assert cell_len(line) <= width


def test_a_narrow_terminal_puts_the_message_below_its_heading() -> None:
    text = render(report(checked("a.onnx", finding())), Format.TEXT, width=40)
    assert "  error    no-score\n    the output is constant\n    fix: look at the head\n" in text.replace("  \n", "\n")


@pytest.mark.parametrize(("count", "line"), [(1, "1 model without"), (1200, "1,200 models without")])
def test_models_without_findings_are_counted(count: int, line: str) -> None:
    text = render(report(*[checked(f"{i}.onnx") for i in range(count)]), Format.TEXT)
    assert text.startswith(line)
    assert text.splitlines()[-1].startswith("passed: ")


def test_a_check_of_nothing_has_a_summary() -> None:
    assert render(report(seconds=0.0), Format.TEXT) == "passed: 0 models checked: nothing found; 0.00 s\n"


@pytest.mark.parametrize("verbose", [True, False])
def test_a_path_is_no_command_to_a_runner(verbose: bool) -> None:
    text = render(report(checked("::error::forged", finding()), checked(" ::a")), Format.TEXT, verbose=verbose)
    assert text.startswith("\\x3a:error::forged\n")
    assert ("\n \\x3a:a: nothing found\n" in text) == verbose
