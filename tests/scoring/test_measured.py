"""Other scores beside a model's own: asked for by name, each with its status, and none costs another anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import onnx_ir as ir
import pytest

from epsinas_onnx import Score, Status, UsageError, score, score_many
from epsinas_onnx.errors import RunError, UnsupportedError
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
from epsinas_onnx.proxies.registry import proxy_names
from epsinas_onnx.report.markdown import to_markdown
from epsinas_onnx.report.records import to_csv, to_json
from epsinas_onnx.report.table import print_table
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.measured import known_scores, measurements
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.supervisor import Failure
from epsinas_onnx.scoring.workers import _Lost, score_in_processes
from tests.builders import command, perceptron, save

OPTIONS = ScoreOptions(batch=8, proxies=("swap", "nwot"), proxy_batch=4, seed=3)


LOADED = load_model(perceptron())


def measured(_: Any, names: Sequence[str], **options: Any) -> list[Measurement]:
    return [Measurement(name, float(options["batch"] + index)) for index, name in enumerate(names)]


@pytest.fixture
def faked() -> Iterator[mock.Mock]:
    fake = mock.Mock(side_effect=measured)
    with mock.patch("epsinas_onnx.proxies.measure.measure", fake):
        yield fake


def test_names_are_known_each_once_and_all_in_full() -> None:
    assert known_scores(["swap", "swap", "params"]) == ("swap", "params")
    assert known_scores(["all"]) == proxy_names()
    assert known_scores([]) == ()
    with pytest.raises(UsageError, match=r"there is no score bogus; the scores are .*swap.*, or all"):
        known_scores(["swap", "bogus"])


def test_options_reach_the_scores_and_kinds_that_are_epsinas_own_do_not(faked: mock.Mock) -> None:
    measurements(lambda: LOADED, "m.onnx", OPTIONS)
    assert faked.call_args.args == (LOADED, ("swap", "nwot"))
    assert faked.call_args.kwargs["batch"] == 4
    assert faked.call_args.kwargs["seed"] == 3
    for given, fed in (("grey", "normal"), ("auto", "normal"), ("tokens", "tokens"), ("x.npy", "x.npy")):
        measurements(lambda: LOADED, "m.onnx", ScoreOptions(inputs=given, proxies=("swap",)))
        assert faked.call_args.kwargs["inputs"] == fed


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UnsupportedError("m.onnx: node 'n' (Foo) has no rule"), "m.onnx: node 'n' (Foo) has no rule"),
        (RunError("m.onnx: failed"), "m.onnx: failed"),
        (MemoryError(), "m.onnx: needs more memory than there is; try a smaller --proxy-batch or --shape"),
        (KeyError("x"), "m.onnx: unexpected KeyError: 'x'; please report this file"),
    ],
)
def test_what_fails_is_an_error_of_each_score_with_its_reason(error: Exception, words: str, faked: mock.Mock) -> None:
    faked.side_effect = error
    found = measurements(lambda: LOADED, "m.onnx", OPTIONS)
    assert {name: (one.status, one.reason) for name, one in found.items()} == {
        "swap": (MeasurementStatus.ERROR, words), "nwot": (MeasurementStatus.ERROR, words),
    }  # fmt: skip


def test_wrong_options_and_ctrl_c_pass_through(faked: mock.Mock) -> None:
    for error in (UsageError("wrong"), KeyboardInterrupt()):
        faked.side_effect = error
        with pytest.raises(type(error)):
            measurements(lambda: LOADED, "m.onnx", OPTIONS)


def test_scores_stand_beside_the_models_own(faked: mock.Mock) -> None:
    plain = score(perceptron(), batch=8)
    found = score(perceptron(), batch=8, scores=["swap", "nwot"], proxy_batch=4)
    assert (found.score, found.status) == (plain.score, Status.OK)
    assert {name: one.value for name, one in found.proxies.items()} == {"swap": 4.0, "nwot": 5.0}
    assert (found.proxy_batch, plain.proxy_batch, dict(plain.proxies)) == (4, None, {})
    assert set(found.seconds) - set(plain.seconds) == {"proxies"}
    assert faked.call_count == 1
    record = json.loads(json.dumps(found.to_dict()))
    assert record["proxies"]["nwot"] == {"value": 5.0, "status": "ok", "reason": None, "seconds": 0.0}
    assert score(perceptron(), batch=8, scores="swap").proxies.keys() == {"swap"}


def test_a_failing_score_costs_epsinas_nothing_and_the_other_way_round(tmp_path: Path, faked: mock.Mock) -> None:
    path = save(perceptron(), tmp_path / "m.onnx")
    plain = score(path, batch=8)
    faked.side_effect = RunError(f"{path}: no")
    [found] = score_many([path], batch=8, scores="swap")
    assert found.score == plain.score
    assert found.proxies["swap"].status is MeasurementStatus.ERROR
    faked.side_effect = measured
    [found] = score_many([path], batch=8, scores="swap", outputs="nothing")
    assert found.status is Status.ERROR
    assert found.proxies["swap"].value == 32.0


@pytest.mark.parametrize("keywords", [{"scores": "bogus"}, {"scores": "swap", "proxy_batch": 1}])
def test_wrong_scores_are_said_before_anything_is_read(keywords: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        score_many(["missing.onnx"], **keywords)
    with pytest.raises(UsageError):
        score("missing.onnx", **keywords)


class Counted:
    """A network that counts how often it is built."""

    name = "counted"

    def __init__(self) -> None:
        self.built = 0

    def build(self) -> ir.Model:
        self.built += 1
        return ir.from_proto(perceptron())


def test_a_network_is_built_once_for_all_scores(faked: mock.Mock) -> None:
    faked.side_effect = lambda source, names, **_: [Measurement(n, float(source.nodes)) for n in names]
    network = Counted()
    found = score(network, batch=8, scores="swap")
    assert (found.model, network.built, found.proxies["swap"].value) == ("counted", 1, 3.0)


def test_a_process_that_the_scores_cost_is_done_again_without_them() -> None:
    """The first round loses its processes, as a limit does; the second scores what is asked of it alone."""
    tasks: list[tuple[str, tuple[str, ...]]] = []
    heads: list[dict[str, bool]] = []

    def work(_: Any, given: Any, __: int, failed: Any, ___: Limits, **keywords: bool) -> Iterator[tuple[int, Any]]:
        heads.append(keywords)
        for index, (name, (model, _, options)) in enumerate(given):
            tasks.append((name, options.proxies))
            is_lost = (options.proxies and name != "b") or name == "c"
            lost = failed(name, Failure("took longer than 1 s", 1.0))
            yield index, lost if is_lost else score(perceptron(), batch=8) if model else None

    with mock.patch("epsinas_onnx.scoring.workers.work_in_processes", work):
        found = dict(score_in_processes(["a", "b", "c"], OPTIONS))
    assert heads == [{"ahead": True}, {}]  # a list is handed out ahead of its results
    assert tasks == [("a", OPTIONS.proxies), ("b", OPTIONS.proxies), ("c", OPTIONS.proxies), ("a", ()), ("c", ())]
    assert [found[index].status for index in range(3)] == [Status.OK, Status.OK, Status.ERROR]
    for index in (0, 2):
        for one in found[index].proxies.values():
            assert one.status is MeasurementStatus.ERROR
            assert (one.reason or "").endswith("took longer than 1 s")
        assert found[index].proxies.keys() == {"swap", "nwot"}
    assert isinstance(_Lost("c", Failure("x")).score(OPTIONS), Score)


# How they are written


def results() -> list[Score]:
    one = score(perceptron(), batch=8)
    lacking = Measurement("swap", None, MeasurementStatus.UNSUPPORTED, "<ModelProto>: node 'n|x' has no rule")
    return [
        Score(**{**vars(one), "proxies": {"swap": Measurement("swap", 1234567.0), "zen": Measurement("zen", 0.125)}}),
        Score(**{**vars(one), "proxies": {"swap": lacking, "zen": Measurement("zen", 1e-9)}}),
    ]


def test_every_form_shows_numbers_statuses_and_reasons() -> None:
    import csv
    import io

    from rich.console import Console

    rows = list(csv.DictReader(io.StringIO(to_csv(results()))))
    assert [row["proxies.swap.value"] for row in rows] == ["1234567.0", ""]
    assert [row["proxies.swap.status"] for row in rows] == ["ok", "unsupported"]
    assert "has no rule" in rows[1]["proxies.swap.reason"]
    assert float(rows[1]["proxies.zen.value"]) == 1e-9
    assert [one["proxies"]["swap"]["status"] for one in json.loads(to_json(results()))] == ["ok", "unsupported"]
    wide, narrow = io.StringIO(), io.StringIO()
    print_table(results(), Console(file=wide, force_terminal=False))
    head, first, second, below = wide.getvalue().splitlines()[:4]
    assert head.split()[-2:] == ["swap", "zen"]
    assert first.split()[-2:] == ["1,234,567", "0.125"]
    assert second.split()[-2:] == ["unsupported", "1e-09"]
    assert below.strip() == "swap: node 'n|x' has no rule"
    print_table(results(), Console(file=narrow, force_terminal=True, color_system=None, width=60))
    assert any(line.strip().endswith("swap 1,234,567; zen 0.125") for line in narrow.getvalue().splitlines())
    table = to_markdown(results()).splitlines()
    assert "| seconds | swap | zen | why |" in table[0]
    assert "swap: node 'n&#124;x' has no rule" in table[3]


def test_the_command_takes_names_and_refuses_others(tmp_path: Path) -> None:
    path = save(perceptron(), tmp_path / "m.onnx")
    for given, words in (("bogus", "there is no score bogus"), (",", "--with takes names")):
        done = command("score", path, "--with", given)
        assert done.code == 2
        assert words in done.err
    done = command("score", path, "--batch", "8", "--with", "params, macs", "--format", "json")
    assert done.code == 0, done.err
    [record] = json.loads(done.out)
    assert list(record["proxies"]) == ["params", "macs"]
    assert record["proxies"]["params"]["value"] == 3 * 4 + 4 * 2 + 2
    assert record["proxy_batch"] == 32
