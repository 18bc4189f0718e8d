"""Results as data frames: of pandas and Polars where they are installed, and a sentence where they are not."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from epsinas_onnx import UsageError, to_dataframe
from epsinas_onnx._util.names import unescaped
from epsinas_onnx.ranking.result import rank_records

from .samples import HOSTILE
from .test_pages import scored

SCORES = [scored("a.onnx", 0.25, swap=3.0, macs=None), scored("b.onnx", None), scored("c\udce9.onnx", 0.5, swap=1.5)]
LIBRARIES = ("pandas", "polars")


def is_missing(value: Any) -> bool:
    return value is None or repr(value) in ("<NA>", "nan")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("as_records", [False, True])
def test_scores_become_typed_columns(library: Any, as_records: bool) -> None:
    pytest.importorskip(library)
    frame = to_dataframe([one.to_dict() for one in SCORES] if as_records else SCORES, library)
    assert [unescaped(name) for name in frame["model"].to_list()] == ["a.onnx", "b.onnx", "c\udce9.onnx"]
    assert frame["score"].to_list()[::2] == [0.25, 0.5]
    assert is_missing(frame["score"].to_list()[1])
    assert frame["parameters"].to_list() == [100] * 3
    assert frame["seconds"].to_list() == [0.75] * 3
    assert frame["weights"].to_list() == ["1e-07 1.0"] * 3
    assert frame["proxies.swap.value"].to_list()[::2] == [3.0, 1.5]
    assert frame["proxies.macs.status"].to_list()[0] == "undefined"
    assert is_missing(frame["proxies.macs.status"].to_list()[1])


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_ranking_becomes_a_row_a_model(library: Any) -> None:
    pytest.importorskip(library)
    ranked = rank_records([one.to_dict() for one in SCORES], ("swap",))
    frame = to_dataframe(ranked, library)
    assert frame["model"].to_list()[:2] == ["a.onnx", "c\\xe9.onnx"]
    assert frame["place"].to_list()[:2] == [1, 2]
    assert is_missing(frame["place"].to_list()[2])
    assert frame["swap.value"].to_list()[:2] == [3.0, 1.5]
    assert "no swap" in frame["reason"].to_list()[2]


@pytest.mark.parametrize("library", LIBRARIES)
def test_any_name_can_be_held(library: Any) -> None:
    pytest.importorskip(library)
    frame = to_dataframe([scored(name) for name in HOSTILE if name], library)
    assert [unescaped(name) for name in frame["model"].to_list()] == [name for name in HOSTILE if name]


def test_what_is_missing_or_wrong_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in LIBRARIES:
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(UsageError, match=f"{library} is not installed; run 'pip install {library}'"):
            to_dataframe(SCORES, library)  # type: ignore[arg-type]
    monkeypatch.undo()
    with pytest.raises(UsageError, match="no library 'numpy'"):
        to_dataframe(SCORES, "numpy")  # type: ignore[arg-type]
    pytest.importorskip("pandas")
    with pytest.raises(UsageError, match="not of int"):
        to_dataframe([3])  # type: ignore[list-item]
