"""`evaluate --with` and `--rank`: several scores of a table, each alone, side by side, and together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata, spearmanr

from epsinas_exporters import spaces
from epsinas_onnx.errors import UsageError
from epsinas_onnx.evaluation import scoring
from epsinas_onnx.evaluation.combined import asked
from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
from epsinas_onnx.scoring.result import Score, Status
from tests.builders import Done, command
from tests.evaluation.test_going_on import NETWORKS, result

SIZE = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of 40 architectures and earlier results of theirs; the first has no swap, the second nothing at all."""
    space, rng = spaces.get("nasbench201"), np.random.default_rng(0)
    archs = list(dict.fromkeys(space.sample(2 * SIZE)))[:SIZE]
    accuracy = rng.permutation(SIZE) + 50.0
    noise = {name: accuracy + rng.normal(0, 12, SIZE) for name in ("params", "macs", "swap", "nwot")}
    rows = "".join(f"{arch},{a},{a + rng.normal(0, 9)}\n" for arch, a in zip(archs, accuracy, strict=True))
    (tmp_path / "t.csv").write_text("arch,test,other\n" + rows)
    lines = []
    for i, arch in enumerate(archs):
        proxies: dict[str, Any] = {n: {"value": v[i], "status": "ok", "reason": None} for n, v in noise.items()}
        if i == 0:
            proxies["swap"] = {"value": None, "status": "unsupported", "reason": "node 'n' has no rule"}
        if i == 2:
            proxies["nwot"] = {"value": None, "status": "undefined", "reason": "log of 0"}
        lines.append(
            json.dumps({"model": arch, "score": i / SIZE, "status": "ok", "order": 6, "proxies": proxies}) + "\n"
        )
    (tmp_path / "r.jsonl").write_text("".join(lines[:1] + lines[2:]))
    return tmp_path


def evaluate(folder: Path, *args: str, code: int = 0) -> Done:
    done = command(
        "evaluate", str(folder / "t.csv"), "--space", "nasbench201", "--column", "test", "--scores",
        str(folder / "r.jsonl"), *args,
    )  # fmt: skip
    assert done.code == code, done.err
    return done


def record(folder: Path, *args: str) -> dict[str, Any]:
    return json.loads(evaluate(folder, "--format", "json", "--resamples", "20", *args).out)  # type: ignore[no-any-return]


def known(folder: Path, *names: str) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the accuracies and the scores of the architectures that have all of them, worked out anew."""
    rows = [line.split(",") for line in (folder / "t.csv").read_text().splitlines()[1:]]
    accuracy = {row[0]: float(row[1]) for row in rows}
    found = []
    for line in (folder / "r.jsonl").read_text().splitlines():
        one = json.loads(line)
        entries = [one["proxies"][name] for name in names]
        if all(entry["value"] is not None or entry["status"] == "undefined" for entry in entries):
            values = [-np.inf if entry["value"] is None else entry["value"] for entry in entries]
            found.append([accuracy[one["model"]], *values])
    return tuple(np.array(found).T)


def test_the_combination_is_what_scipy_makes_of_the_numbers(folder: Path) -> None:
    found = record(folder, "--rank", "--by", "swap,params", "--compare", "other")
    accuracy, swap, params = known(folder, "swap", "params")
    together = np.log(rankdata(swap) / len(swap)) + np.log(rankdata(params) / len(params))
    assert (found["name"], found["scores"]) == ("swap, params", "swap, params by the sum of log ranks")
    assert found["scored"] == len(accuracy) == SIZE - 2
    assert found["spearman"]["value"] == pytest.approx(spearmanr(together, accuracy).statistic)
    assert found["kendall"]["value"] == pytest.approx(kendalltau(together, accuracy).statistic)
    assert found["spearman"]["low"] < found["spearman"]["value"] < found["spearman"]["high"]
    assert found["statuses"] == {"ok": SIZE - 2, "unsupported swap": 1, "missing swap": 1}
    assert "Kendall's W is" in found["agreement"]
    assert found["paper"] is None
    alone = {one["name"]: one for one in found["alone"]}
    assert list(alone) == ["swap, params", "epsinas", "swap", "params", "macs"]
    assert alone["params"]["scored"] == SIZE - 1
    accuracy, params = known(folder, "params")
    assert alone["params"]["spearman"]["value"] == pytest.approx(spearmanr(params, accuracy).statistic)
    assert None not in alone["params"]["top_share"].values()
    compared = found["comparison"]
    assert compared["common"] == SIZE - 2
    assert [one["name"] for one in compared["proxies"]] == ["swap, params", "swap", "params", "macs", "other"]
    assert compared["proxies"][0]["z"] is None
    assert all(one["p"] is not None for one in compared["proxies"][1:])


def test_an_undefined_score_is_the_last_place_and_counts(folder: Path) -> None:
    found = record(folder, "--rank", "--by", "nwot")
    accuracy, nwot = known(folder, "nwot")
    assert found["scored"] == len(accuracy) == SIZE - 1
    assert found["spearman"]["value"] == pytest.approx(spearmanr(rankdata(nwot), accuracy).statistic)
    assert [one["name"] for one in found["alone"]] == ["nwot", "epsinas", "params", "macs"]
    assert found["agreement"] == "ranked by nwot alone"


def test_other_scores_stand_beside_epsinas_which_is_the_first(folder: Path) -> None:
    plain, found = record(folder), record(folder, "--with", "swap")
    assert plain["alone"] == []
    assert plain["comparison"] is None
    assert found["name"] == "epsinas"
    assert found["spearman"] == plain["spearman"]
    assert [one["name"] for one in found["alone"]] == ["epsinas", "swap", "params", "macs"]
    assert [one["name"] for one in found["comparison"]["proxies"]] == ["epsinas", "swap", "params", "macs"]


def test_epsinas_may_be_a_member(folder: Path) -> None:
    found = record(folder, "--rank", "--by", "epsinas,params")
    assert found["name"] == "epsinas, params"
    assert [one["name"] for one in found["alone"]] == ["epsinas, params", "epsinas", "params", "macs"]
    assert record(folder, "--by", "epsinas")["spearman"]["value"] == pytest.approx(
        record(folder)["spearman"]["value"]
    )  # one order alone


def test_a_column_of_the_same_name_is_told_apart(folder: Path) -> None:
    table = folder / "t.csv"
    table.write_text(table.read_text().replace("other", "swap"))
    found = record(folder, "--with", "swap", "--compare", "swap")
    assert [one["name"] for one in found["comparison"]["proxies"]] == [
        "epsinas", "swap (computed)", "params", "macs", "swap",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_tables_show_each_score_with_coverage_and_intervals(folder: Path, form: str) -> None:
    text = evaluate(folder, "--rank", "--by", "swap,params", "--resamples", "20", "--format", form).out
    assert "each score over the architectures that it puts in a place" in text
    [line] = [line for line in text.splitlines() if line.strip("| ").startswith("params") and "39 (97.5%)" in line]
    assert line.count(" to ") == 4
    assert "scores agree" in text or "agree" in text


def test_the_score_of_a_column_is_one_alone(folder: Path) -> None:
    done = command(
        "evaluate", str(folder / "t.csv"), "--space", "nasbench201", "--column", "test", "--scores", "other", "--rank",
        "--by", "params",
    )  # fmt: skip
    assert done.code == 2
    assert "a column holds one score alone" in done.err


def test_counts_are_always_beside_and_epsinas_is_never_asked_for() -> None:
    assert asked((), ()) == ()
    assert asked(("epsinas",), ()) == ("params", "macs")
    assert asked(("swap", "params"), ("zen",)) == ("swap", "params", "zen", "macs")


# A run that is cut off

WITH: dict[str, Any] = {
    "weights": (1e-7, 1.0), "inputs": "grey", "batch": 8, "seed": 0, "scores": ("swap", "params"), "proxy_batch": 32,
}  # fmt: skip


def scored(path: Path, options: dict[str, Any], failing: Sequence[str] = (), most: int = 9) -> list[str]:
    """Score into a file, each other score being the number of its letters, and return what was scored anew."""
    called: list[str] = []

    def score_as_done(models: Sequence[Any], *, scores: Sequence[str] = (), **_: Any) -> Iterator[tuple[int, Score]]:
        for index, model in enumerate(models):
            if index == most:
                raise KeyboardInterrupt
            called.append(model.name)
            proxies = {
                name: Measurement(name, None, MeasurementStatus.ERROR, "why")
                if name in failing
                else Measurement(name, float(len(name)))
                for name in scores
            }
            yield index, Score(**{**vars(result(model.name)), "proxies": proxies, "proxy_batch": 32})

    with mock.patch("epsinas_onnx.scoring.api.score_as_done", score_as_done):
        try:
            list(scoring.scored(NETWORKS, options, path))
        except KeyboardInterrupt:
            assert most < 9
    return called


def held(path: Path) -> dict[str, list[str]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({one["model"] for one in lines}) == len(lines)
    return {one["model"]: sorted(one["proxies"]) for one in lines}


NAMES = [network.name for network in NETWORKS]


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    assert scored(path, WITH, most=2) == NAMES[:2]
    assert scored(path, WITH) == NAMES[2:]
    assert scored(path, WITH) == []
    assert held(path) == {key: ["params", "swap"] for key in NAMES}


def test_a_score_that_is_asked_for_later_is_added_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    scored(path, {**WITH, "scores": ()})
    assert scored(path, {**WITH, "scores": ("swap",)}, most=1) == NAMES[:1]
    assert {json.loads(line)["model"] for line in path.read_text().splitlines()} == set(NAMES)
    assert scored(path, {**WITH, "scores": ("zen",)}) == NAMES
    assert held(path) == {NAMES[0]: ["swap", "zen"], **{key: ["zen"] for key in NAMES[1:]}}
    assert scored(path, {**WITH, "scores": ()}) == []


def test_what_ended_in_an_error_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    scored(path, WITH, failing=["swap"])
    assert scored(path, WITH) == NAMES
    assert scored(path, WITH) == []
    assert {one["proxies"]["swap"]["status"] for one in map(json.loads, path.read_text().splitlines())} == {"ok"}


def test_results_of_another_minibatch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    scored(path, WITH)
    with pytest.raises(UsageError, match=r"proxy_batch 32, not 16, for"):
        scored(path, {**WITH, "proxy_batch": 16})
    assert scored(path, {**WITH, "scores": (), "proxy_batch": 16}) == []
    assert result("x").status is Status.OK


def test_a_run_from_table_to_figures(tmp_path: Path, folder: Path) -> None:
    """Real scores of a few small networks, kept in a file that the second run takes them from."""
    kept = tmp_path / "kept.jsonl"
    args = (
        "evaluate", str(folder / "t.csv"), "--space", "nasbench201", "--column", "test", "--sample", "4", "--rank",
        "--batch", "4", "--proxy-batch", "2", "--by", "macs,params", "--resamples", "0", "-o", str(kept),
        "--format", "json",
    )  # fmt: skip
    done = command(*args)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["scored"] == 4
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [sorted(one["proxies"]) for one in lines] == [["macs", "params"]] * 4
    assert {one["proxy_batch"] for one in lines} == {2}
    before = kept.read_bytes()
    assert command(*args).out == done.out
    assert kept.read_bytes() == before
