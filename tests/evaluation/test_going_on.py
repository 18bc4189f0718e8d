"""A run that was cut off goes on where it stopped: no row is lost but the one that was cut, and none is doubled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from epsinas_onnx.errors import UsageError
from epsinas_onnx.evaluation import scoring
from epsinas_onnx.graph.load import Buildable
from epsinas_onnx.report.records import to_json_line
from epsinas_onnx.scoring.result import Score, Status

OPTIONS: Mapping[str, Any] = {"weights": (1e-7, 1.0), "inputs": "grey", "batch": 8, "seed": 0}


class Named:
    """A network that is only called something."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self) -> Any:
        raise AssertionError("nothing is built here")


NETWORKS: Sequence[Buildable] = [Named(f"arch {number}\udce9") for number in range(4)]


def result(name: str, status: Status = Status.OK) -> Score:
    return Score(
        model=name, score=0.5 if status is Status.OK else None, raw_score=0.5, status=status,
        reason=None if status is Status.OK else f"{name}: could not be read", weights=(1e-7, 1.0), input="grey",
        batch=8, provider="CPUExecutionProvider", parameters=7, nodes=1, seconds={"total": 0.1}, arithmetic="exact",
    )  # fmt: skip


def scored(
    path: Path, networks: Sequence[Buildable] = NETWORKS, failing: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the records of a run into a file, and which networks it scored."""
    called: list[str] = []

    def score_as_done(models: Sequence[Buildable], **_: Any) -> Iterator[tuple[int, Score]]:
        for index, model in enumerate(models):
            called.append(model.name)
            yield index, result(model.name, Status.ERROR if model.name in failing else Status.OK)

    with mock.patch("epsinas_onnx.scoring.api.score_as_done", score_as_done):
        return list(scoring.scored(networks, OPTIONS, path)), called


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """What a run leaves that nobody cut off."""
    scored(tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("rest", [b"", b"\0\0\0"])
def test_a_file_that_was_cut_at_any_byte_is_whole_again(tmp_path: Path, whole: bytes, rest: bytes) -> None:
    path = tmp_path / "cut.jsonl"
    lines = whole.splitlines(keepends=True)
    assert len(lines) == len(NETWORKS)
    for end in range(len(b"".join(lines[:-2])), len(whole) + 1):
        path.write_bytes(whole[:end] + rest)
        records, called = scored(path)
        assert path.read_bytes() == whole, end
        assert [record["model"] for record in records] == [network.name for network in NETWORKS]
        assert called == [network.name for network in NETWORKS[whole[:end].count(b"\n") :]]


def test_errors_are_tried_again_and_are_no_second_row(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    names = [network.name for network in NETWORKS]
    scored(path, failing=names[1:3])
    for failing in (names[1:3], names[2:3], ()):
        _, called = scored(path, failing=failing)
        assert called == (names[1:3] if failing else names[2:3])
        assert sorted(json.loads(line)["model"] for line in path.read_text().splitlines()) == sorted(names)
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_errors_of_other_networks_stay(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    names = [network.name for network in NETWORKS]
    scored(path, failing=names[:1])
    before = path.read_bytes()
    assert scored(path, NETWORKS[1:])[1] == []
    assert path.read_bytes() == before


def test_rows_that_are_there_twice_become_one(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(whole + whole)
    assert scored(path)[1] == []
    assert path.read_bytes() == whole


def test_two_runs_into_one_file_are_refused_and_change_nothing(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(whole[:-10])
    first = scoring.scored(NETWORKS, OPTIONS, path)
    assert next(first)["model"] == NETWORKS[0].name
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"another run is writing .*rows\.jsonl; wait until it ends, or name another"):
        next(scoring.scored(NETWORKS, OPTIONS, path))
    assert path.read_bytes() == before
    first.close()  # type: ignore[attr-defined]
    scored(path)
    assert path.read_bytes() == whole


def test_other_settings_and_other_files_are_left_as_they_are(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    for text in (
        to_json_line(result("other", Status.OK)).replace("grey", "normal"),
        "[]\n",
        "model,score\na,1\n",
        "\n{\n",
    ):
        path.write_text(text + "cut")
        with pytest.raises(UsageError, match=r"rows\.jsonl: holds"):
            scored(path)
        assert path.read_text() == text + "cut"


def test_earlier_results_are_read_while_a_last_line_is_being_written(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert list(scoring.read_records(path)) == [network.name for network in NETWORKS[:3]]
    path.write_bytes(whole.rstrip())
    assert list(scoring.read_records(path)) == [network.name for network in NETWORKS]
