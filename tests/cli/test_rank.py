"""`rank`: a set of networks in order, from files or earlier results, in every form, and how it ends."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from epsinas_onnx import Score
from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import shown
from epsinas_onnx.cli.rank import RankFormat
from epsinas_onnx.report.rankings import ordinal
from epsinas_onnx.scoring.api import score_as_done
from tests.builders import Done, command, perceptron, save
from tests.report.pages import assert_closed
from tests.report.samples import HOSTILE

BY = ("--by", "params,macs")


def record(model: str, **values: float | str) -> dict[str, Any]:
    """Return a record; a text in place of a number is the status of a score without one."""
    proxies = {
        name: {"value": None, "status": value, "reason": f"{model}: no number"}
        if isinstance(value, str)
        else {"value": value, "status": "ok", "reason": None}
        for name, value in values.items()
    }
    return {"model": model, "score": 0.5, "status": "ok", "order": 6, "proxies": proxies}


def written(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return str(path)


@pytest.fixture
def earlier(tmp_path: Path) -> str:
    return written(
        tmp_path / "earlier.jsonl",
        record("small.onnx", params=10, macs=30),
        record("large.onnx", params=3000, macs=2000),
        record("odd.onnx", params=4000, macs=1),
        record("bad.onnx", params=5, macs="unsupported"),
    )


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for width in (2, 8, 4):
        save(perceptron(width=width), tmp_path / "nets" / f"w{width}.onnx")
    return str(tmp_path / "nets")


def rank(*args: str, code: int = 0) -> Done:
    done = command("rank", *args)
    assert done.code == code, done.err
    return done


def test_files_are_scored_and_the_best_is_first(folder: str) -> None:
    found = json.loads(rank(folder, *BY, "--batch", "8", "--format", "json").out)
    assert [Path(one["model"]).stem for one in found["networks"]] == ["w8", "w4", "w2"]
    assert [one["place"] for one in found["networks"]] == [1, 2, 3]
    assert found["members"] == ["params", "macs"]
    assert found["networks"][0]["members"]["params"] == {"place": 1, "rank": 3.0, "value": 3 * 8 + 8 * 2 + 2}
    assert found["concordance"] == pytest.approx(1)


def test_epsinas_alone_is_the_order_of_its_scores(folder: str) -> None:
    scores = json.loads(command("score", folder, "--batch", "8", "--format", "json").out)
    best = sorted(scores, key=lambda one: -one["score"])
    found = json.loads(rank(folder, "--by", "epsinas", "--batch", "8", "--format", "json").out)
    assert [one["model"] for one in found["networks"]] == [one["model"] for one in best]


def test_a_stranger_is_told_what_the_table_says(earlier: str) -> None:
    lines = rank("--results", earlier, *BY).out.splitlines()
    assert lines[0].split() == ["place", "model", "params", "macs"]
    assert lines[1].split() == ["1", "large.onnx", "3,000", "(2)", "2,000", "(1)"]
    assert lines[2].split() == ["2", "odd.onnx", "4,000", "(1)", "1", "(3)"]
    assert lines[3].split() == ["3", "small.onnx", "10", "(3)", "30", "(2)"]
    assert [line.strip() for line in lines[4:6]] == ["bad.onnx", "not ranked, no macs: no number"]
    text = "\n".join(lines[6:])
    assert "3 of 4 networks ranked by params and macs" in text
    assert "in parentheses the place by one score alone" in text
    assert "the 2 scores hardly agree: Kendall's W is 0.25, where 1 is the same order by all" in text
    assert "they disagree most about odd.onnx (1st by params, 3rd by macs)" in text


def test_results_of_a_run_stand_beside_files_and_the_newer_counts(earlier: str, folder: str, tmp_path: Path) -> None:
    fresh = str(Path(folder) / "w8.onnx")
    stale = written(tmp_path / "stale.jsonl", record(fresh, params=10**9, macs=10**9))
    found = json.loads(
        rank(fresh, "--results", stale, "--results", earlier, *BY, "--batch", "8", "--format", "json").out
    )
    by_model = {one["model"]: one for one in found["networks"]}
    assert by_model.keys() == {"small.onnx", "large.onnx", "odd.onnx", fresh}
    assert by_model[fresh]["members"]["params"]["value"] == 42


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_what_score_wrote_is_ranked_the_same(folder: str, tmp_path: Path, ending: str) -> None:
    results = str(tmp_path / f"scores.{ending}")
    assert command("score", folder, "--batch", "8", "--with", "params,macs", "-o", results).code == 0
    found = json.loads(rank("--results", results, *BY, "--format", "json").out)
    assert found == json.loads(rank(folder, *BY, "--batch", "8", "--format", "json").out)


def test_a_file_of_results_without_any_is_named(tmp_path: Path) -> None:
    assert "none.jsonl: holds no network" in rank("--results", written(tmp_path / "none.jsonl"), code=2).err


@pytest.mark.parametrize("text", ["[1, 2]\n3\n", '{"proxies": {}}\n', '"model"\n'])
def test_results_without_models_are_refused_in_plain_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(text)
    assert (
        "holds no results of score or evaluate (records that name no model)" in rank("--results", str(path), code=2).err
    )


def test_a_set_in_which_nothing_has_a_place_is_a_failure(earlier: str) -> None:
    found = json.loads(rank("--results", earlier, "--by", "nwot", "--format", "json", code=3).out)
    assert found["networks"] == []
    assert len(found["unranked"]) == 4


def test_results_without_a_score_say_what_to_do(earlier: str) -> None:
    done = rank("--results", earlier, "--by", "params,nwot", "--format", "json")
    found = json.loads(done.out)
    assert found["left_out"] == {"nwot": "the results hold no nwot; score with --with nwot (small.onnx)"}
    assert len(found["networks"]) == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "no files were named"),
        (("one.onnx",), "one network alone has no rank"),
        (("one.onnx", "one.onnx"), "one network alone has no rank"),
        (("a.onnx", "b.onnx", "--by", "bogus"), "there is no score bogus"),
        (("a.onnx", "b.onnx", "--by", ""), "no score was named"),
        (("a.onnx", "b.onnx", "--results", "missing.jsonl"), "there is no such file"),
        (("a.onnx", "b.onnx", "--format", "jsonl"), "jsonl"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    args: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = rank(*args, *(() if "--by" in args else BY), code=2)
    assert words in done.err
    assert done.out == ""


def test_a_file_that_cannot_be_read_has_no_place_and_code_3(folder: str) -> None:
    done = rank(folder, "missing.onnx", *BY, "--batch", "8", "--format", "json", code=3)
    found = json.loads(done.out)
    assert len(found["networks"]) == 3
    [lacking] = found["unranked"]
    assert lacking["model"] == "missing.onnx"
    assert "no params, macs: there is no such file" in lacking["reason"]


def test_ctrl_c_ranks_what_there_is(folder: str) -> None:
    def interrupted(*args: Any, **options: Any) -> Iterator[tuple[int, Score]]:
        results = score_as_done(*args, **{**options, "isolate": False, "timeout": 0.0})
        yield next(results)
        yield next(results)
        raise KeyboardInterrupt

    with mock.patch("epsinas_onnx.scoring.api.score_as_done", interrupted):
        done = rank(folder, *BY, "--batch", "8", "--format", "json", code=130)
    assert len(json.loads(done.out)["networks"]) == 2
    assert "1 files are not in it" in done.err


# Forms


def test_the_ending_says_the_form_and_the_file_is_whole(earlier: str, tmp_path: Path) -> None:
    for ending, kind in ((".json", "json"), (".csv", "csv"), (".md", "markdown"), (".html", "html"), (".txt", "table")):
        path = tmp_path / f"ranking{ending}"
        done = rank("--results", earlier, *BY, "-o", str(path))
        assert (done.out, done.err) == ("", f"3 of 4 networks ranked, written to {path}\n")
        assert path.read_text() == rank("--results", earlier, *BY, "--format", kind).out
    done = rank("--results", earlier, *BY, "-o", earlier, code=2)
    assert "would be written over" in done.err


def test_csv_reads_back(earlier: str) -> None:
    rows = list(csv.DictReader(io.StringIO(rank("--results", earlier, *BY, "--format", "csv").out)))
    assert [(row["place"], row["model"], row["macs.place"]) for row in rows] == [
        ("1", "large.onnx", "1"), ("2", "odd.onnx", "3"), ("3", "small.onnx", "2"), ("", "bad.onnx", ""),
    ]  # fmt: skip
    assert rows[-1]["reason"] == "no macs: no number"


def test_the_page_is_closed_and_has_every_place(earlier: str) -> None:
    page = assert_closed(rank("--results", earlier, *BY, "--format", "html").out)
    assert page.data["names"] == ["small.onnx", "large.onnx", "odd.onnx", "bad.onnx"]
    places = {one["title"]: one["values"] for one in page.data["places"]}
    assert places == {
        "together: params, macs": [3, 1, 2, None], "params": [3, 2, 1, None], "macs": [2, 1, 3, None],
    }  # fmt: skip
    assert "3 of 4 networks ranked by params and macs" in page.text
    assert "bad.onnx" + "no macs: no number" in page.text.replace("\n", "")


def test_the_places_of_a_page_are_those_of_the_record(folder: str) -> None:
    options = (folder, *BY, "--batch", "8", "--format")
    page, found = assert_closed(rank(*options, "html").out), json.loads(rank(*options, "json").out)
    together = dict(zip(page.data["names"], page.data["places"][0]["values"], strict=True))
    assert together == {one["model"]: one["place"] for one in found["networks"]}


def test_one_score_alone_has_one_column_of_places(earlier: str) -> None:
    page = assert_closed(rank("--results", earlier, "--by", "params", "--format", "html").out)
    assert [one["title"] for one in page.data["places"]] == ["params"]


def test_of_many_without_a_place_the_page_lists_some(tmp_path: Path) -> None:
    lacking = [record(f"lacks{i}", params=1, macs="unsupported") for i in range(60)]
    results = written(tmp_path / "r.jsonl", record("a", params=1, macs=2), record("b", params=2, macs=3), *lacking)
    page = assert_closed(rank("--results", results, *BY, "--format", "html").out)
    assert page.text.count("no macs: no number") == 50
    assert "10 more are in the table below" in page.text


def test_why_no_network_has_a_score_is_said_of_one_that_was_run(tmp_path: Path) -> None:
    results = written(
        tmp_path / "r.jsonl", record("empty", params="error", swap="error"),
        record("first", params=1, swap="unsupported"), record("second", params=2, swap="unsupported"),
    )  # fmt: skip
    found = json.loads(rank("--results", results, "--by", "params,swap", "--format", "json", code=3).out)
    assert found["left_out"] == {"swap": "no number (first)"}


@pytest.mark.parametrize("kind", RankFormat)
def test_no_name_is_more_than_text_in_any_form(tmp_path: Path, kind: RankFormat) -> None:
    names = [name for name in HOSTILE if name]
    records = [record(name, params=i, macs=-i) for i, name in enumerate(names)]
    records += [record(f"lacks {name}", params=1, macs="error") for name in names]
    results = written(tmp_path / "hostile.jsonl", *records)
    text = rank("--results", results, *BY, "--format", str(kind), code=3).out
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]
    if kind is RankFormat.CSV:
        assert len(list(csv.reader(io.StringIO(text)))) == len(text.splitlines()) == 1 + len(records)
    if kind is RankFormat.HTML:
        assert assert_closed(text).data["names"] == [shown(escaped(one["model"])) for one in records]


def test_ordinals() -> None:
    assert [ordinal(place) for place in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111, 1003)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th", "1,003rd",
    ]  # fmt: skip
