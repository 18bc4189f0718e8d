"""Rows in columns: at any width numbers are whole and names in one piece; in a pipe a row is a line."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from epsinas_onnx._util.text import shown
from epsinas_onnx.report.columns import Column, Give, Row, row_lines
from epsinas_onnx.report.table import print_table
from epsinas_onnx.scoring.result import Score, Status

from .samples import quick, texts

COLUMNS = (
    Column("#", right=True), Column("name", Give.MIDDLE), Column("number", right=True), Column("other", Give.MIDDLE),
    Column("rule", Give.BELOW), Column("copy", Give.WHOLE),
)  # fmt: skip
WIDTHS = st.integers(50, 240)
ROWS = st.lists(
    st.builds(
        lambda name, number, other, rule, copy, below: Row(("1", name, f"{number:,}", other, rule, copy), below),
        texts, st.integers(0, 10**12), texts, texts, texts, st.lists(texts, max_size=2),
    ),
    max_size=4,
)  # fmt: skip


@quick
@given(ROWS, WIDTHS)
def test_a_terminal_shows_numbers_whole_and_all_but_what_is_copied_within_its_width(
    rows: list[Row], width: int
) -> None:
    lines = [line.plain for line in row_lines(COLUMNS, rows, width)]
    whole = {shown(str(row.cells[5])) for row in rows}
    assert all(
        cell_len(line.rstrip()) <= width for line in lines if line.strip() not in {text.strip() for text in whole}
    )
    assert all(line.isprintable() for line in lines)
    for row in rows:
        assert any(f" {row.cells[2]} " in f"{line} " and line.lstrip().startswith("1 ") for line in lines)


@quick
@given(ROWS)
def test_a_pipe_has_a_line_for_each_row_and_each_sentence(rows: list[Row]) -> None:
    lines = [line.plain for line in row_lines(COLUMNS, rows, None)]
    assert len(lines) == 1 + sum(1 + len(row.below) for row in rows)
    for row in rows:
        assert any(all(shown(str(cell)) in line for cell in row.cells) for line in lines)


@quick
@given(st.text("abc/-", min_size=1, max_size=150), st.integers(60, 160))
def test_a_name_keeps_its_ends(name: str, width: int) -> None:
    line = [one.plain for one in row_lines(COLUMNS, [Row(("1", name, "1", "", "", ""))], width)][1]
    first, _, last = line.split()[1].partition("…")
    assert name == first or (name.startswith(first) and name.endswith(last) and len(first) < len(last))


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_table_of_scores_is_readable_at_any_width(width: int) -> None:
    drawn = random.Random(width)
    reason = "with weights 1e-07 the signal underflows to 0 in node 'stage0.cell1.edge0-1.conv' (Conv)"
    scores = [
        Score(
            model=f"folder/{'deep/' * drawn.randrange(20)}network-{index}.onnx", score=None if index % 2 else index / 7,
            raw_score=0.5, status=Status.UNDERFLOW if index % 2 else Status.OK, reason=reason if index % 2 else None,
            weights=(1e-7, 1.0), input="grey", batch=256, provider="cpu", parameters=drawn.randrange(10**9), nodes=7,
            seconds={"run": drawn.random() * 1000}, warnings=("the file fixes the batch to 1",),
        )
        for index in range(1, 9)
    ]  # fmt: skip
    written = io.StringIO()
    print_table(scores, Console(file=written, width=width, force_terminal=True, color_system=None))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(written.getvalue().split())
    for score in scores:
        row = next(line.split() for line in lines if f"rk-{scores.index(score) + 1}.onnx" in line)
        wanted = [str(score.status), f"{score.parameters:,}", f"{score.seconds['run']:.2f}"]
        assert row[-3:] == wanted
        assert score.score is None or row[-4] == f"{score.score:.6f}"
    assert text.count(reason) == 4
    assert text.count("note: the file fixes the batch to 1") == 8
