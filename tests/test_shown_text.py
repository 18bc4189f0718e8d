"""Text out of files that is shown: harmless and short, and without losing what it says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from epsinas_onnx._util import text as of
from epsinas_onnx.errors import EpsinasError
from epsinas_onnx.report.columns import wrapped

from .report.samples import quick, texts

COMMAND = re.compile(r"##\w*\[")


@quick
@given(texts)
def test_printable_text_is_one_line_that_can_be_written_anywhere(text: str) -> None:
    shown = of.printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert not COMMAND.search(shown)
    assert of.printable(shown) == shown
    shown.encode()


@quick
@given(texts)
def test_what_is_printable_stays_and_the_rest_can_be_read_back(text: str) -> None:
    doubled = text.replace("\\", "\\\\")
    written = "".join(c if c.isascii() else c.encode("unicode_escape").decode() for c in of.printable(doubled))
    assert written.encode().decode("unicode_escape") == text
    if text.isprintable() and not COMMAND.search(text):
        assert of.printable(text) == text


@quick
@given(st.text(), st.integers(1, 40))
def test_a_text_is_shortened_in_the_middle(text: str, most: int) -> None:
    short = of.shortened(text, most)
    assert len(short) == min(len(text), most)
    if len(text) <= most:
        assert short == text
    else:
        first, last = len(short[: (most - 1) // 3]), most - 1 - (most - 1) // 3
        assert short == text[:first] + "…" + text[len(text) - last :]


@pytest.mark.parametrize("letter", ["n", "\x1b", "é", "n ", "\n", "\u202e", "\U000e0001"])
def test_a_name_of_any_length_is_short_where_it_is_shown(letter: str) -> None:
    name = f"first{letter * 200_000}last"
    for shown, most in (
        (of.shown(name), of.LONGEST_NAME),
        (of.sentence(f"the node {name!r} is odd"), of.LONGEST_SENTENCE),
        (str(EpsinasError(f"{name}: the node '{name}' takes '{name}'")), of.LONGEST_SENTENCE),
        (of.first_names([name] * 9), 4 * of.LONGEST_NAME),
    ):
        assert len(shown) <= most
        assert "first" in shown
        assert "last" in shown
        assert shown.isprintable()
    assert of.sentence(f"the node {name!r} is odd").endswith("is odd")


@quick
@given(texts, st.text(st.characters(categories=["L", "Nd"]), min_size=1))
def test_a_file_is_not_named_twice(name: str, said: str) -> None:
    assert of.without_subject(str(EpsinasError(f"{name}: {said}")), name) in (said, f": {said}")


@quick
@given(texts)
def test_no_line_is_a_command(text: str) -> None:
    line = of.output_line(of.printable(text))
    assert not line.lstrip().startswith("::")
    assert line.replace("\\x3a:", "::", 1) == of.printable(text) or line == of.printable(text)


@quick
@given(st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_json_is_printable_ascii_and_comes_back(record: Any) -> None:
    for indent in (None, 2):
        text = of.to_json(record, indent=indent)
        assert text.isascii()
        assert all(line.isprintable() for line in text.split("\n"))
        assert not COMMAND.search(text)
        assert json.loads(text) == json.loads(json.dumps(record))  # two halves of a pair become one character


@quick
@given(texts.map(of.sentence), st.integers(30, 200), st.sampled_from(("", "      ")))
def test_lines_fit_a_terminal_and_no_word_is_broken(text: str, width: int, indent: str) -> None:
    lines = wrapped(text, width, indent)
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.startswith(indent) for line in lines)
    words, shown = text.split(), " ".join(lines).split()
    assert len(words) == len(shown)
    for word, part in zip(words, shown, strict=True):
        first, _, last = part.partition("…") if part != word else (word, "", "")
        assert word.startswith(first)
        assert word.endswith(last)
