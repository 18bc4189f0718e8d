"""`evaluate` from table to figures: what is read, what is kept of a run that was cut off, and what is shown."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epsinas_exporters import spaces
from epsinas_onnx import score
from epsinas_onnx.errors import UsageError
from epsinas_onnx.evaluation import scoring
from epsinas_onnx.evaluation.paper import paper_figures
from epsinas_onnx.evaluation.table import join, read_table
from tests.builders import Done, command

SPACE = spaces.get("nasbench201")
ARCHS = [
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
    "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|skip_connect~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|none~1|none~2|",
    "|skip_connect~0|+|none~0|skip_connect~1|+|nor_conv_3x3~0|none~1|skip_connect~2|",
]
ACCURACIES = ["90.5", "88", "10", "70", "91.25"]
OPTIONS: dict[str, Any] = {
    "weights": (1e-7, 1.0), "inputs": "grey", "batch": 8, "seed": 0, "providers": "cpu", "jobs": 1, "lump": True,
}  # fmt: skip


def table(path: Path, rows: list[dict[str, str]] | None = None) -> Path:
    if rows is None:
        columns = zip(ARCHS, ACCURACIES, "01234", strict=True)
        rows = [{"arch": arch, "test": accuracy, "size": size} for arch, accuracy, size in columns]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def evaluate(path: Path, *args: str, code: int = 0) -> Done:
    done = command("evaluate", str(path), "--space", "nasbench201", "--batch", "8", "--provider", "cpu", *args)
    assert done.code == code, done.err
    return done


def record(path: Path, *args: str) -> dict[str, Any]:
    return json.loads(evaluate(path, "--column", "test", "--format", "json", *args).out)  # type: ignore[no-any-return]


# Tables


def test_a_gzipped_table_reads_like_the_plain_one(tmp_path: Path) -> None:
    plain = table(tmp_path / "t.csv")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert read_table(tmp_path / "t.csv.gz").rows == read_table(plain).rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["holds no rows"]),
        (b"arch,test\n", ["holds no rows"]),
        (b"arch,test\na,1,2\n", ["row 1", "more fields"]),
        (b"arch,test\n\xff\xfe\x00,1\n", ["cannot be read"]),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_table(tmp_path / "t.csv")
    assert all(word in str(caught.value) for word in [*words, "t.csv"]), str(caught.value)


def test_a_missing_table_and_a_broken_archive_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_table(tmp_path / "nothing.csv")
    (tmp_path / "t.csv.gz").write_bytes(b"arch,test\n")
    with pytest.raises(UsageError, match="cannot be read"):
        read_table(tmp_path / "t.csv.gz")


def test_a_column_of_numbers_may_have_gaps_but_no_words(tmp_path: Path) -> None:
    rows = [{"arch": "a", "test": "1.5", "bad": "1"}, {"arch": "b", "test": "", "bad": "x"},
            {"arch": "c", "test": "nan", "bad": "2"}]  # fmt: skip
    read = read_table(table(tmp_path / "t.csv", rows))
    np.testing.assert_array_equal(read.numbers("test"), [1.5, np.nan, np.nan])
    assert [row["arch"] for row in read.having("test").rows] == ["a"]
    with pytest.raises(UsageError, match=r"row 2: column 'bad' holds 'x'"):
        read.numbers("bad")
    with pytest.raises(UsageError, match="no column 'tset'; the columns are arch, test, bad"):
        read.numbers("tset")


def test_rows_are_drawn_without_repetition_and_keep_their_order(tmp_path: Path) -> None:
    read = read_table(table(tmp_path / "t.csv"))
    drawn = [row["arch"] for row in read.sampled(3, seed=1).rows]
    assert len(set(drawn)) == 3
    assert drawn == sorted(drawn, key=ARCHS.index)
    assert read.sampled(3, seed=1).rows == read.sampled(3, seed=1).rows
    assert read.sampled(99, seed=1) == read


def test_another_table_is_joined_by_architecture(tmp_path: Path) -> None:
    first = read_table(table(tmp_path / "a.csv"))
    other = read_table(table(tmp_path / "b.csv", [{"arch": ARCHS[3], "test": "0", "zen": "7"}]))
    joined = join(first, ARCHS, other, [ARCHS[3]])
    assert [row["zen"] for row in joined.rows] == ["", "", "", "7", ""]
    assert [row["test"] for row in joined.rows] == ACCURACIES
    with pytest.raises(UsageError, match=r"b\.csv: none of its 1 architectures"):
        join(first, ARCHS, other, ["unknown"])


# Scoring


def networks(*archs: str) -> list[Any]:
    return [spaces.Network("nasbench201", arch) for arch in archs]


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    first = list(scoring.scored(networks(*ARCHS[:2]), OPTIONS, path))
    with path.open("a") as file:
        file.write('{"model": "|skip_conn')  # killed while it wrote
    lines = path.read_text().splitlines()[:2]
    everything = list(scoring.scored(networks(*ARCHS[:3]), OPTIONS, path))
    assert everything[:2] == first
    assert path.read_text().splitlines()[:2] == lines
    assert [json.loads(line)["model"] for line in path.read_text().splitlines()] == ARCHS[:3]


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    list(scoring.scored(networks(ARCHS[0]), OPTIONS, path))
    for key, value in (("weights", (1e-5, 1.0)), ("inputs", "normal"), ("batch", 4), ("seed", 1)):
        with pytest.raises(UsageError, match="results of other settings"):
            list(scoring.scored(networks(ARCHS[0]), {**OPTIONS, key: value}, path))


def test_errors_are_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    bad = scoring.Unreadable("row 7", "table.csv, row 7: no architecture")
    (failed,) = scoring.scored([bad], OPTIONS, path)
    assert (failed["status"], failed["reason"]) == ("error", "table.csv, row 7: no architecture")
    good, again = scoring.scored([*networks(ARCHS[0]), bad], OPTIONS, path)
    assert (good["status"], again["status"]) == ("ok", "error")
    assert [json.loads(line)["model"] for line in path.read_text().splitlines()] == [good["model"], "row 7"]


# The command


def test_figures_are_over_what_was_scored_and_scores_are_those_of_score(tmp_path: Path) -> None:
    found = record(table(tmp_path / "t.csv"), "--output", str(tmp_path / "scores.jsonl"), "--top", "9")
    expected = {arch: score(SPACE.build(arch), batch=8, inputs="grey", providers="cpu") for arch in ARCHS}
    assert (found["total"], found["scored"]) == (5, 4)
    assert found["statuses"] == {"ok": 4, "constant": 1}
    assert {best["arch"]: best["score"] for best in found["top"]} == {
        arch: pytest.approx(result.score) for arch, result in expected.items() if result.score is not None
    }
    assert [best["score"] for best in found["top"]] == sorted((best["score"] for best in found["top"]), reverse=True)
    assert {best["arch"]: best["parameters"] for best in found["top"]}[ARCHS[0]] == expected[ARCHS[0]].parameters
    kept = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert sorted(line["model"] for line in kept) == sorted(ARCHS)


def test_scores_come_from_a_column_or_from_earlier_results(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    computed = record(path, "--output", str(tmp_path / "scores.jsonl"))
    read = record(path, "--scores", str(tmp_path / "scores.jsonl"))
    assert {**read, "scores": ""} == {**computed, "scores": ""}
    by_column = record(path, "--scores", "size", "--top", "1")
    assert by_column["scored"] == 5
    assert by_column["top"][0]["arch"] == ARCHS[-1]
    assert evaluate(path, "--column", "test", "--scores", "szie", code=2).err.count("szie") == 1


def test_a_row_without_an_architecture_costs_itself_alone(tmp_path: Path) -> None:
    rows = [{"arch": arch, "test": acc} for arch, acc in zip([*ARCHS[:4], "|oops|"], ACCURACIES, strict=True)]
    found = record(table(tmp_path / "t.csv", rows), "--output", str(tmp_path / "scores.jsonl"))
    assert found["statuses"] == {"ok": 3, "constant": 1, "error": 1}
    assert "row 5" in (tmp_path / "scores.jsonl").read_text()
    every = table(tmp_path / "bad.csv", [{"arch": "|oops|", "test": "1"}])
    assert "row 1" in evaluate(every, "--column", "test", code=2).err


def test_other_scores_are_compared_on_the_same_architectures(tmp_path: Path) -> None:
    other = [{"arch": arch, "flops": str(index)} for index, arch in enumerate(ARCHS[:4])]
    joined = table(tmp_path / "o.csv", other)
    path = table(tmp_path / "t.csv")
    found = record(path, "--scores", "size", "--join", str(joined), "--compare", "fl*", "--compare", "size")
    assert found["comparison"]["common"] == 4
    assert [proxy["name"] for proxy in found["comparison"]["proxies"]] == ["epsinas", "flops", "size"]
    assert evaluate(path, "--column", "test", "--scores", "size", "--compare", "zen", code=2).err.count("zen") == 1


def test_every_form_shows_coverage_and_the_papers_figures(tmp_path: Path) -> None:
    rows = [{"arch": arch, "cifar10_test": acc} for arch, acc in zip(ARCHS, ACCURACIES, strict=True)]
    path = table(tmp_path / "t.csv", rows)
    args = ("--column", "cifar10_test", "--output", str(tmp_path / "s.jsonl"), "--top", "1")
    shown = evaluate(path, *args).out
    assert "4 of 5 scored, 80.0% (1 constant)" in shown
    assert "of the 4 best-scored" in shown
    assert "0.87" in shown
    markdown = evaluate(path, *args, "--format", "markdown").out
    assert "4 of 5 scored, 80.0% (1 constant)" in markdown
    assert "| Spearman, all scored |" in markdown
    best = markdown.splitlines()[-1]
    assert best.startswith("| 1 | `\\|")
    assert json.loads(evaluate(path, *args, "--format", "json").out)["paper"]["spearman"] == 0.87


def test_the_column_must_be_named(tmp_path: Path) -> None:
    done = evaluate(table(tmp_path / "t.csv"), code=2)
    assert "--column" in done.err
    assert "arch, test, size" in done.err


def test_spaces_are_listed() -> None:
    listed = json.loads(command("spaces", "--json").out)
    assert {space["name"] for space in listed} >= {"nasbench101", "nasbench201", "nasbenchnlp"}
    for space in listed:
        assert spaces.get(space["name"]).parse(space["form"])
    shown = command("spaces").out
    assert "423,624" in shown
    unknown = command("evaluate", "t.csv", "--space", "nasbench301", "--column", "test")
    assert unknown.code == 2
    assert "known are" in unknown.err


@pytest.mark.parametrize(
    ("space", "column", "spearman"),
    [
        ("nasbench201", "cifar10_test", 0.87),
        ("nasbench201", "cifar10-valid", 0.87),
        ("nasbench201", "cifar100_test", None),
        ("nasbench201", "cifar10_epsinas_published", None),
        ("nasbench101", "val_accuracy_108", 0.62),
        ("nasbenchnlp", "test_loss", -0.34),
        ("nasbenchnlp", "epsinas_published", None),
        ("nats-sss", "cifar10_test", None),
    ],
)
def test_the_papers_figures_stand_beside_their_own_task_only(space: str, column: str, spearman: float | None) -> None:
    found = paper_figures(space, column)
    assert (found and found.values["spearman"]) == spearman


def test_coverage_and_figures_are_those_of_both_arithmetics_and_of_each_order(tmp_path: Path) -> None:
    archs = SPACE.sample(40, seed=3)
    rows = [{"arch": arch, "test": str(50 + index)} for index, arch in enumerate(archs)]
    path = table(tmp_path / "t.csv", rows)
    kept = tmp_path / "kept.jsonl"
    both = record(path, "--output", str(kept))
    alone = record(path, "--arithmetic", "float32")
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    published = [line for line in lines if line["float32_status"] == "ok"]
    assert both["scored"] == sum(line["status"] == "ok" for line in lines) > len(published) > 0
    assert both["float32"]["scored"] == alone["scored"] == len(published)
    assert both["float32"]["spearman"]["value"] == pytest.approx(alone["spearman"]["value"], abs=0.02)
    assert alone["float32"] is None
    assert [found["order"] for found in both["orders"]] == sorted({line["order"] for line in lines} - {None})
    assert sum(found["scored"] for found in both["orders"]) == both["scored"]
    shown = evaluate(path, "--column", "test", "--scores", str(kept)).out
    assert f"{len(published)} of 40 scored, {len(published) / 40:.1%} in float32" in shown.replace("\n", " ")
    assert "by order: " in shown
    assert "in float32" in shown


def test_results_of_another_arithmetic_are_not_mixed(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    record(table(tmp_path / "t.csv"), "--output", str(kept), "--arithmetic", "float32")
    refused = evaluate(tmp_path / "t.csv", "--column", "test", "--output", str(kept), code=2)
    assert "arithmetic float32, not auto" in refused.err
