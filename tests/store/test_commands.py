"""`store list`, `export`, `merge` and `vacuum`: the rows that score wrote, in every format, under any names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epsinas_onnx import Store, UsageError
from epsinas_onnx._util.names import unescaped
from epsinas_onnx.scoring.result import Score, Status
from tests.builders import build, command, perceptron, save
from tests.report.samples import HOSTILE
from tests.store.holding import BATCH, ask, entry, held, result
from tests.store.holding import settings as of_version


def fitting(name: str) -> str:
    """Return what of a name a file may be called."""
    return name.replace("/", "_").replace("\0", "0").encode("utf-8", "ignore").decode()[:50] or "empty"


FILES = sorted({*map(fitting, HOSTILE[::2]), "caf\udce9", "\u202egnp"})
SEEN = ("proxies.params.value", "model", "status")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of all kinds under hostile names, `results.db`, and what score wrote of them."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "models").mkdir()
    for number, name in enumerate(FILES):
        path = folder / "models" / f"{name}.onnx"
        if number == 0:
            path.write_text("no model")
        elif number == 1:
            text = "(float[N,3] x) => (float[N,2] y) { z = Mul(x, Z)  y = MatMul(z, W) }"
            save(build(text, Z=(3,), W=(3, 2)), path)
        else:
            save(perceptron(width=1 + number), path)
    words = ("score", str(folder / "models"), *BATCH, "--with", "params,depth", "--store", str(folder / "results.db"))
    for form in ("jsonl", "csv"):
        done = command(*words, "-f", form, "-o", str(folder / f"rows.{form}"))
        assert done.code == 3, done
    return folder


def test_an_export_is_what_score_wrote(scored: Path) -> None:
    done = command("store", "export", str(scored / "results.db"))
    assert (done.code, done.err) == (0, "")
    told = [json.loads(line) for line in done.out.splitlines()]
    rows = [json.loads(line) for line in (scored / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == len(FILES)

    def plain(records: Sequence[dict[str, object]]) -> list[object]:
        for record in records:
            seconds = record["seconds"]
            assert isinstance(seconds, dict)
            seconds.pop("proxies", None)  # is of no one score
            if record["status"] == "error":  # which the second run tried again
                seconds.clear()
                proxies = record["proxies"]
                assert isinstance(proxies, dict)
                for one in proxies.values():
                    one["seconds"] = 0
        return sorted(records, key=lambda record: str(record["model"]))

    assert plain(told) == plain(rows)
    assert {record["model"] for record in rows} == {str(scored / "models" / f"{name}.onnx") for name in FILES}


def test_csv_holds_the_same(scored: Path) -> None:
    target = scored / "out.csv"
    done = command("store", "export", str(scored / "results.db"), "-o", str(target))
    assert (done.code, f"{len(FILES)} results, written to" in done.err) == (0, True)
    texts = [path.read_text(encoding="utf-8") for path in (target, scored / "rows.csv")]
    told, rows = (list(csv.DictReader(io.StringIO(text, newline=""))) for text in texts)
    keys = [key for key in rows[0] if not key.endswith("seconds")]
    by_name = {row["model"]: [row[key] for key in keys] for row in told}
    assert by_name == {row["model"]: [row[key] for key in keys] for row in rows}
    assert set(keys) >= set(SEEN)
    assert {unescaped(name) for name in by_name} == {str(scored / "models" / f"{name}.onnx") for name in FILES}


def test_parquet_holds_the_same(scored: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    target = scored / "out.parquet"
    done = command("store", "export", str(scored / "results.db"), "-o", str(target))
    assert done.code == 0
    read = {unescaped(row["model"]): row for row in parquet.read_table(target).to_pylist()}
    with Store(scored / "results.db", readonly=True) as store:
        scores = {score.model: score for score in store.scores()}
    assert set(read) == set(scores)
    for name, score in scores.items():
        row, record = read[name], score.to_dict()
        others = {one.pop("name"): one for one in row.pop("proxies")}
        assert others == record.pop("proxies")
        assert dict(row.pop("seconds")) == record.pop("seconds")
        assert dict(row.pop("versions")) == record.pop("versions")
        row["model"] = name
        assert row == record


def test_parquet_without_its_library_is_a_sentence(scored: Path) -> None:
    with mock.patch("importlib.util.find_spec", return_value=None):
        done = command("store", "export", str(scored / "results.db"), "-o", str(scored / "no.parquet"))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "Parquet needs pyarrow; run 'pip install" in done.err
    assert "[parquet]" in done.err
    assert not (scored / "no.parquet").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-f", "parquet"), "Parquet is not printed"),
        (("-o", "out.txt"), "ends in none of .csv, .jsonl, .parquet"),
        (("--status", "good"), "there is no status 'good'; the statuses are ok,"),
    ],
)
def test_wrong_words_are_said(scored: Path, words: tuple[str, ...], sentence: str) -> None:
    done = command("store", "export", str(scored / "results.db"), *words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert sentence in done.err


def test_a_list_shows_every_row_harmless(scored: Path) -> None:
    done = command("store", "list", str(scored / "results.db"))
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if line.lstrip().startswith("::") or "##[" in line]
    assert sum(line.count(" ok ") for line in lines) == len(FILES) - 1
    assert lines[-1] == f"{len(FILES)} results: {len(FILES) - 1} ok, 1 error"


def test_a_list_takes_one_status_or_space(scored: Path, tmp_path: Path) -> None:
    done = command("store", "list", str(scored / "results.db"), "--status", "error")
    assert done.out.splitlines()[-1] == "1 results: 1 error"
    assert "is not an ONNX file" in done.out
    done = command("store", "list", str(scored / "results.db"), "--space", "nasbench201")
    assert done.out.splitlines()[-1] == "0 results"
    done = command("store", "list", str(scored / "results.db"), "--counts")
    assert (done.code, "(files)" in done.out) == (0, True)
    assert next(word for word in done.out.splitlines()[1].split()[1:] if word.isdigit()) == str(len(FILES))


def test_rank_and_evaluate_take_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.cli.writing import EVALUATE, everything

    everything(tmp_path, monkeypatch)
    for _ in range(2):
        done = command(*EVALUATE, "--store", "results.db")
        assert done.code == 0, done
    assert "3 results found, 0 added" in done.err or "2 results found, 0 added" in done.err
    assert command("store", "list", "results.db", "--space", "nasbench201").out.count("nor_conv") >= 1
    save(perceptron("Relu"), Path("other.onnx"))
    words = ("rank", "good.onnx", "other.onnx", "--by", "params,epsinas", *BATCH, "--store", "results.db")
    first, second = command(*words), command(*words)
    assert first.out == second.out
    assert "2 results found, 0 added" in second.err


def test_ranking_and_evaluation_are_shown_where_the_store_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from tests.cli.writing import EVALUATE, everything

    everything(tmp_path, monkeypatch)
    save(perceptron("Relu"), Path("other.onnx"))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("epsinas_onnx.store.store.put", full)
    for words in (("rank", "good.onnx", "other.onnx", "--by", "params", *BATCH), EVALUATE):
        done = command(*words, "--store", "results.db")
        assert (done.code, "results of this run are not in it" in done.err) == (4, True), done
        assert done.out == command(*words).out != ""


# Merging.

NUMBERS = st.one_of(st.none(), st.sampled_from([0.25, 0.5, 0.5 * (1 + 1e-6), 1.0]))
HOLDINGS = st.dictionaries(st.tuples(st.sampled_from("abcd"), st.sampled_from("12")), NUMBERS, max_size=6)
Holding = dict[tuple[str, str], float | None]


def make(path: Path, holding: Holding) -> Path:
    with Store(path) as store:
        for (model, version), number in holding.items():
            store.add(entry(model, number, of_version(version=version)))
    return path


def of(path: Path) -> Holding:
    with Store(path, readonly=True) as store:
        return {(score.model, score.versions["epsinas-onnx"]): score.score for score in store.scores()}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(here=HOLDINGS, there=HOLDINGS)
def test_a_merge_is_the_union_in_which_results_beat_errors(
    tmp_path_factory: pytest.TempPathFactory, here: Holding, there: Holding
) -> None:
    folder = tmp_path_factory.mktemp("merged")
    one, other = make(folder / "one.db", here), make(folder / "other.db", there)
    unchanged = other.read_bytes()
    with Store(one) as store:
        done, again = store.merge(other), store.merge(other)
    both = here.keys() & there.keys()
    differ = [key for key in both if None not in (here[key], there[key]) and abs(here[key] - there[key]) > 1e-3]  # type: ignore[operator]
    assert of(one) == {key: here.get(key) if here.get(key) is not None else there.get(key) for key in {**here, **there}}
    assert of(other) == there
    assert other.read_bytes() == unchanged
    assert done.added == len(there.keys() - here.keys())
    assert done.replaced == sum(here[key] is None and there[key] is not None for key in both)
    assert (done.differing, len(done.conflicts)) == (len(differ), len(differ))
    assert done.added + done.replaced + done.same + done.differing == len(there)
    assert (again.added, again.replaced, again.differing) == (0, 0, len(differ))
    held_by_key = ask(one, "SELECT source, settings, count(*) FROM results GROUP BY 1, 2 HAVING count(*) > 1")
    assert held_by_key == []


def test_a_merge_tells_what_differs(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one.db", {("a", "1"): 0.5}), make(tmp_path / "other.db", {("a", "1"): 0.75})
    done = command("store", "merge", str(one), str(other))
    assert (done.code, done.out) == (1, "")
    assert f"{other}: 0 added, 0 errors replaced, 0 known already, 1 differ" in done.err
    assert "a: ok 0.5 stays, ok 0.75 was not taken" in done.err
    assert command("store", "merge", str(tmp_path / "new.db"), str(one), str(other)).code == 1
    assert of(tmp_path / "new.db") == {("a", "1"): 0.5}
    done = command("store", "merge", str(one), str(tmp_path / "missing.db"))
    assert (done.code, "there is no such file" in done.err) == (2, True)


def test_a_store_is_not_merged_into_itself(tmp_path: Path) -> None:
    path = make(tmp_path / "one.db", {("a", "1"): 0.5})
    (tmp_path / "link.db").hardlink_to(path)
    with Store(path) as store, pytest.raises(UsageError, match="is the store that it would be merged into"):
        store.merge(tmp_path / "link.db")


def test_merged_stores_are_found_by_a_run(scored: Path, tmp_path: Path) -> None:
    done = command("store", "merge", str(tmp_path / "new.db"), str(scored / "results.db"))
    assert done.code == 0
    words = ("score", str(scored / "models"), *BATCH, "--with", "params,depth", "--store", str(tmp_path / "new.db"))
    assert f"{len(FILES) - 1} results found, 1 added" in command(*words).err


# Cleaning up.


def test_vacuum_gives_room_back_and_drops_other_versions_where_asked(tmp_path: Path) -> None:
    from epsinas_onnx.versions import versions

    path = tmp_path / "results.db"
    with Store(path) as store:
        for number in range(200):
            store.add(entry(f"m{number}", of=of_version(version="0.0.1")))
    model = save(perceptron(), tmp_path / "m.onnx")
    assert command("score", model, "--store", str(path), *BATCH, "--with", "params").code == 0
    done = command("store", "vacuum", str(path))
    assert (done.code, ": whole; 0 results dropped" in done.err) == (0, True)
    assert len(ask(path, "SELECT * FROM results")) == 201
    before = path.stat().st_size
    done = command("store", "vacuum", str(path), "--other-versions")
    assert (done.code, ": whole; 200 results dropped" in done.err) == (0, True), done
    assert path.stat().st_size < before / 2
    assert held(path) == {model: "ok"}
    for table in ("settings", "sources", "names", "others"):
        assert len(ask(path, f"SELECT * FROM {table}")) == 1, table
    with Store(path, readonly=True) as store:
        assert [dict(score.versions) for score in store.scores()] == [dict(versions())]


@settings(max_examples=60)
@given(
    number=st.one_of(st.none(), st.floats(0, 1e300)), model=st.text(st.characters(), min_size=1),
    warnings=st.lists(st.text(st.characters()), max_size=2), order=st.one_of(st.none(), st.floats(-9, 9)),
)  # fmt: skip
def test_a_record_gives_the_score_back(
    number: float | None, model: str, warnings: list[str], order: float | None
) -> None:
    import dataclasses

    score = dataclasses.replace(
        result(model, number), warnings=tuple(warnings), order=order, float32_status=Status.UNDERFLOW
    )
    assert Score.from_dict(json.loads(json.dumps(score.to_dict()))) == score
