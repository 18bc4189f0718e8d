"""A search as a whole: what counts, what is measured once, going on after a kill, and sharing a storage."""

from __future__ import annotations

import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import psutil
import pytest

from epsinas_exporters import spaces
from epsinas_onnx import fill, score
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.search import LatencySettings, Search, Strategy
from epsinas_onnx.search.measuring import Meter
from epsinas_onnx.search.storage import close_storage
from tests.search.toy import BEST, Bare, Toy, total

optuna.logging.set_verbosity(optuna.logging.ERROR)
SMALL = Strategy(population=6, tournament=3)


def toy(**more: Any) -> Search:
    """Return a search for the sum of digits, which needs no scoring."""
    return Search(Toy(), "sum", **{"strategy": SMALL, "own": {"sum": total}, **more})


def archs(search: Search) -> list[str]:
    return [one.arch for one in search.result().tried]


@pytest.mark.parametrize("sampler", ["evolution", "random", "tpe", "nsga2", "nsga3", "bruteforce", "TPESampler"])
def test_every_sampler_searches(sampler: str) -> None:
    result = toy(strategy=Strategy(sampler, population=6, tournament=3)).run(25)
    assert len(result.tried) == 25
    assert [one.values["sum"] for one in result.tried] == [total(one.arch) for one in result.tried]
    best = result.ranked()[0]
    assert best.values["sum"] == max(total(one.arch) for one in result.tried)


def test_cmaes_searches_numbers_and_no_choices() -> None:
    space = spaces.get("nats-sss")
    own = {"width": lambda arch: float(sum(map(int, arch.split(":"))))}
    result = Search(space, "width", strategy="cmaes", own=own).run(40)
    assert result.ranked()[0].values["width"] > 220
    with pytest.raises(UsageError, match="works on numbers, and the decisions of toy are choices without an order"):
        toy(strategy="cmaes")


def test_scores_are_those_of_score() -> None:
    search = Search(Toy(), ["epsinas", "params"], strategy=SMALL, arithmetic="auto")
    for one in search.run(10).tried:
        if one.status == "ok":
            alone = score(Toy().build(one.arch), weights=(1e-2, 1.0), inputs="normal", batch=8)
            assert one.values == {"epsinas": pytest.approx(alone.score), "params": alone.parameters}


def test_a_network_without_a_score_is_a_trial_with_a_reason() -> None:
    search = Search(Toy(), "epsinas", strategy=SMALL, arithmetic="auto")
    with mock.patch.object(Toy, "draw", return_value="000000"):
        result = search.run(3)
    assert {one.status for one in result.tried} == {"constant"}
    assert "no epsinas: " in str(result.tried[0].reason)
    assert result.ranked() == []
    assert {trial.state.name for trial in search.study.trials} == {"FAIL"}


def test_a_network_that_cannot_be_built_costs_its_own_trial() -> None:
    def build(self: Toy, arch: str, **_: int) -> Any:
        if arch[0] in "12":
            raise ValueError("this one has no door")
        return build_toy(self, arch)

    build_toy = Toy.build
    with mock.patch.object(Toy, "build", build):
        result = Search(Toy(), ["epsinas", "size"], strategy=SMALL, arithmetic="auto").run(12)
    failed = [one for one in result.tried if one.arch[0] in "12"]
    assert failed
    assert all(one.status == "error" and "no door" in str(one.reason) for one in failed)
    assert any(one.fits for one in result.tried)


def test_constraints_are_respected_and_told_to_optuna() -> None:
    search = toy(constraints=["sum<=9"])
    result = search.run(60)
    assert max(one.values["sum"] for one in result.ranked()) == 9
    assert any(one.values["sum"] > 9 for one in result.tried)
    assert search.study.best_trial.values == [9]


def test_the_front_of_two_objectives_is_optunas() -> None:
    first = {"left": lambda arch: total(arch[:4] + "00"), "right": lambda arch: -total(arch[2:] + "00")}
    search = Search(Toy(), ["left", "right"], strategy=Strategy("nsga2"), own=first)
    result = search.run(60)
    values = {tuple(one.values.values()) for one in result.front()}
    assert values == {tuple(trial.values) for trial in search.study.best_trials}
    front = [one.arch for one in result.front()]
    assert [one.arch for one in result.ranked()][: len(front)] == front


def test_an_architecture_is_measured_once() -> None:
    asked: Counter[str] = Counter()

    def measured(arch: str) -> float:
        asked[arch] += 1
        return total(arch)

    result = toy(own={"sum": measured}, strategy=Strategy(population=2, tournament=1)).run(80)
    assert len(result.tried) == 80
    assert set(asked.values()) == {1}
    assert len(asked) < 80


def test_networks_that_compute_the_same_are_scored_once() -> None:
    space = spaces.get("nasbench201")
    cell = "|none~0|+|nor_conv_3x3~0|{}~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    same = [cell.format(name) for name in ("none", "skip_connect", "nor_conv_3x3")]
    assert len({space.family(arch) for arch in same}) == 1
    search = Search(space, ["epsinas", "params"], strategy="random", batch=8)
    scored: list[Any] = []
    measure = Meter.measure

    def watched(self: Meter, key: Any, source: Any, record: Any = None) -> Any:
        scored.append(record is not None and "seconds" in record)
        return measure(self, key, source, record)

    with mock.patch.object(type(space), "draw", side_effect=list(same)), mock.patch.object(Meter, "measure", watched):
        tried = search.run(3).tried
    assert scored == [True, False, False]
    assert len({one.values["epsinas"] for one in tried}) == 1
    for one in tried:
        alone = score(space.build(one.arch), batch=8, inputs="grey")
        assert one.values == {"epsinas": pytest.approx(alone.score, rel=1e-5), "params": alone.parameters}


def test_warm_up_is_the_best_of_a_sample_and_is_not_scored_again(tmp_path: Path) -> None:
    kept = {"storage": tmp_path / "search.db", "arithmetic": "auto"}
    strategy = Strategy("random", warmup=30, guide="params")
    first = Search(Toy(), "sum", own={"sum": total}, strategy=strategy, **kept)
    first.run(4)
    space, params = Toy(), {}
    for arch in space.sample(30, 1):
        params[arch] = score(space.build(arch), batch=8, inputs="normal").parameters or 0
    assert [params[arch] for arch in archs(first)] == sorted(params.values(), reverse=True)[:4]
    with mock.patch("epsinas_onnx.search.samples.records_of", side_effect=AssertionError("scored again")):
        Search(Toy(), "sum", own={"sum": total}, strategy=strategy, **kept).run(8)


def test_a_combination_is_a_rank_in_a_sample_that_stays(tmp_path: Path) -> None:
    strategy = Strategy("random", reference=12)
    search = Search(Toy(), "rank:params,macs", strategy=strategy, storage=tmp_path / "s.db")
    values = {one.arch: one.values for one in search.run(8).tried}
    again = Search(Toy(), "rank:params,macs", strategy=strategy, storage=tmp_path / "s.db")
    list(again.prepare())
    for arch, found in values.items():
        assert again.measure(arch).values == found
        assert found["rank:params,macs"] < 0
    params = {arch: score(Toy().build(arch), batch=8).parameters or 0 for arch in values}
    assert max(values, key=lambda arch: values[arch]["rank:params,macs"]) == max(params, key=lambda arch: params[arch])


# Going on, and together


def test_a_search_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = toy()
    whole.run(30)
    toy(storage=tmp_path / "s.db").run(13)
    again = toy(storage=tmp_path / "s.db")
    again.run(30)
    assert archs(again) == archs(whole)


def test_a_journal_keeps_a_search_too(tmp_path: Path) -> None:
    toy(storage=f"journal:{tmp_path / 'search.log'}").run(7)
    again = toy(storage=tmp_path / "search.log")
    assert len(again.run(9).tried) == 9


SCRIPT = """
import sys, time, optuna
from tests.search.toy import Toy, total
from epsinas_onnx.search import Search, Strategy
optuna.logging.set_verbosity(optuna.logging.ERROR)
def slow(arch):
    time.sleep(float(sys.argv[2]))
    return total(arch)
search = Search(Toy(), "sum", own={"sum": slow}, strategy=Strategy(population=6, tournament=3), storage=sys.argv[1])
search.run(int(sys.argv[3]), lambda one: print(one.number, one.arch, flush=True))
"""


def started(storage: Path, seconds: float, trials: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(storage), str(seconds), str(trials)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root)}, cwd=root,
    )  # fmt: skip


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    storage = tmp_path / "s.db"
    process = started(storage, 0.05, 30)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(9)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = toy(storage=storage)
    kept = archs(again)
    assert kept[:9] == [line.split()[1] for line in lines]
    result = again.run(30)
    assert len(result.tried) == 30
    whole = toy()
    whole.run(30)
    assert archs(again) == archs(whole)  # the trial that was cut off is done again
    assert not any(trial.state == optuna.trial.TrialState.RUNNING for trial in again.study.trials)


def test_two_processes_search_together(tmp_path: Path) -> None:
    storage = tmp_path / "s.db"
    processes = [started(storage, 0.05, 40) for _ in range(2)]
    told = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    together = toy(storage=storage)
    assert len(together.result().tried) == 40
    assert together.run(40).tried  # nothing is left to do
    assert len(told[0]) + len(told[1]) == 40
    assert all(len(lines) > 3 for lines in told)
    assert len({line.split()[0] for lines in told for line in lines}) == 40


# Ask and tell


def test_ask_and_tell() -> None:
    search = Search(Toy(), "accuracy", own={"accuracy": None}, strategy=SMALL)
    for _ in range(40):
        proposal = search.ask()
        search.tell(proposal, total(proposal.arch))
    proposal = search.ask()
    told = search.tell(proposal, reason="it burnt")
    assert (told.status, told.reason) == ("missing", "it burnt")
    result = search.result()
    assert len(result.tried) == 41
    assert result.ranked()[0].values["accuracy"] == max(total(one.arch) for one in result.tried[:-1])
    with pytest.raises(UsageError, match="tell was given no accuracy"):
        search.tell(search.ask(), {"beauty": 1.0})
    with pytest.raises(UsageError, match="accuracy is told, not measured"):
        search.run(50)


# Latency and size


def test_latency_and_size_are_measured_on_networks_with_weights() -> None:
    latency = LatencySettings(batch=3, threads=1, provider="cpu", runs=7)
    search = Search(Toy(), ["latency", "size"], strategy="random", latency=latency)
    with search:
        result = search.run(3)
    for one in result.tried:
        assert one.values["latency"] > 0
        assert one.notes["latency"] == {
            **one.notes["latency"], "provider": "CPUExecutionProvider", "batch": 3, "threads": 1, "runs": 7
        }  # fmt: skip
        params = score(Toy().build(one.arch), batch=8).parameters or 0
        assert one.values["size"] > 4 * params
        assert one.values["size"] == len(fill(Toy().build(one.arch)).SerializeToString())
    assert "the median of up to 7 runs of a batch of 3 on CPUExecutionProvider with 1 thread" in " ".join(
        result.sentences()
    )


# What is said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"strategy": "luck"}, "there is no sampler 'luck'; there are evolution, random, tpe, nsga2"),
        ({"strategy": Strategy("tpe"), "space": Bare()}, "bare has no list of decisions that Optuna's sampler tpe"),
        ({"space": "nowhere"}, "there is no search space 'nowhere'"),
        ({"objectives": ["sum", "params"], "strategy": "cmaes"}, "the sampler cmaes takes one objective"),
        ({"strategy": Strategy(warmup=5, guide="latency")}, "go by a training-free score, and latency is none"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Search(**{"space": Toy(), "objectives": "sum", "own": {"sum": total}, **more})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sampler": "tpe", "warmup": 5}, "Optuna's sampler tpe has none"),
        ({"sampler": "random", "move": "child"}, "random search has no move"),
        ({"reference": 1}, "a reference of at least 2"),
    ],
)
def test_strategies_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Strategy(**wrong)


@pytest.mark.parametrize("closed", [True, False])
def test_a_search_that_is_over_leaves_no_connection_open(tmp_path: Path, closed: bool) -> None:
    path = tmp_path / "s.db"
    search = toy(storage=path)
    search.run(2)
    assert str(path) in {file.path for file in psutil.Process().open_files()}
    if closed:
        search.close()
        assert len(search.study.trials) == 2  # it opens another where it is asked again
        search.close()
    else:
        del search
        gc.collect()
    assert str(path) not in {file.path for file in psutil.Process().open_files()}


def test_another_search_of_the_same_name_is_refused(tmp_path: Path) -> None:
    toy(storage=tmp_path / "s.db").run(2)
    with pytest.raises(UsageError, match="the study 'toy' was begun with seed 0, not 1; go on with the same options"):
        toy(storage=tmp_path / "s.db", strategy=Strategy(seed=1, population=6, tournament=3))
    assert len(toy(storage=tmp_path / "s.db", study="another").run(3).tried) == 3


def test_files_of_something_else_stay_as_they_are(tmp_path: Path) -> None:
    text = tmp_path / "notes.db"
    text.write_text("no database")
    base = tmp_path / "shop.db"
    with sqlite3.connect(base) as opened:
        opened.execute("create table customers (name text)")
    opened.close()
    journal = tmp_path / "notes.log"
    journal.write_text("no journal\n")
    before = [path.read_bytes() for path in (text, base, journal)]
    for path, said in ((text, "is no SQLite file"), (base, "is a database of something else"), (journal, "no journal")):
        with pytest.raises(UsageError, match=said):
            toy(storage=path)
    assert [path.read_bytes() for path in (text, base, journal)] == before


def test_a_study_of_somebody_else_is_not_taken_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name="toy", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    close_storage(storage)
    with pytest.raises(UsageError, match="the study 'toy' of the storage is not one of search"):
        toy(storage=url)


def test_a_storage_that_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((UsageError, OutputError), match="cannot write"):
        toy(storage=tmp_path / "file" / "s.db")
    with pytest.raises(UsageError, match=r"mysql://nowhere/x (cannot be opened|needs the package)"):
        toy(storage="mysql://nowhere/x")


def test_the_result_is_json() -> None:
    result = toy(constraints=["sum<=12"]).run(20)
    record = json.loads(json.dumps(result.to_dict()))
    assert record["objectives"] == ["sum:max"]
    assert [one["arch"] for one in record["ranked"]] == [one.arch for one in result.ranked()]
    assert len(record["ranked"]) + len(record["others"]) <= 20
    assert BEST not in [one["arch"] for one in record["ranked"]]


def test_a_search_takes_no_longer_for_what_it_knows() -> None:
    known = {
        arch: {"model": arch, "status": "ok", "score": total(arch), "float32_status": "ok"}
        for arch in Toy().enumerate()
    }
    with mock.patch("epsinas_onnx.scoring.single.score_or_error", side_effect=AssertionError("scored")):
        result = Search(Toy(), "epsinas", strategy=SMALL, scores=known).run(30)
    assert all(one.values["epsinas"] == total(one.arch) for one in result.tried)


def test_a_run_that_breaks_off_leaves_nothing_open_and_goes_on() -> None:
    broken = [True]

    def measured(arch: str) -> float:
        if broken[0] and len(search.result().tried) == 4:
            raise RuntimeError("out of coffee")
        return total(arch)

    search = toy(own={"sum": measured})
    with pytest.raises(RuntimeError, match="coffee"):
        search.run(10)
    broken[0] = False
    assert len(search.run(10).tried) == 10
    whole = toy()
    whole.run(10)
    assert archs(search) == archs(whole)


def test_numbers_that_are_none_are_trials_without_one() -> None:
    result = toy(own={"sum": lambda arch: float("nan") if arch[0] == "0" else None}).run(6)
    assert {one.status for one in result.tried} == {"undefined", "missing"}


def test_other_settings_of_the_latency_are_another_search(tmp_path: Path) -> None:
    Search(Toy(), "latency", strategy="random", storage=tmp_path / "s.db", latency=LatencySettings(batch=1))
    with pytest.raises(UsageError, match="was begun with latency "):
        Search(Toy(), "latency", strategy="random", storage=tmp_path / "s.db", latency=LatencySettings(batch=2))


def test_a_guide_without_a_place_to_decide_is_said() -> None:
    with pytest.raises(UsageError, match="a guide decides in a warm-up or a move"):
        toy(strategy=Strategy(guide="epsinas"))


def test_results_that_lack_a_score_are_completed() -> None:
    half = {arch: {"model": arch, "status": "ok", "score": 1.0, "float32_status": "ok"} for arch in Toy().enumerate()}
    tried = Search(Toy(), ["epsinas", "macs"], strategy="random", scores=half, arithmetic="auto").run(3).tried
    for one in tried:
        alone = score(Toy().build(one.arch), weights=(1e-2, 1.0), inputs="normal", batch=8, scores="macs")
        assert one.values == {"epsinas": pytest.approx(alone.score), "macs": alone.proxies["macs"].value}
