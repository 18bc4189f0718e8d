"""A Ray cluster gives the rows of one machine, each once, whatever of it is lost; the slow tests have a real one."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import pickle
import queue
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

import epsinas_onnx
from epsinas_onnx.errors import UsageError
from epsinas_onnx.scoring.api import score_as_done
from epsinas_onnx.scoring.cluster import dispatch
from epsinas_onnx.scoring.cluster.dispatch import Dispatch, differences
from epsinas_onnx.scoring.cluster.engine import as_score
from epsinas_onnx.scoring.cluster.messages import (
    End,
    Gone,
    Hello,
    Lost,
    Model,
    Order,
    Refused,
    Report,
    Row,
    Said,
    Unseen,
    Wanted,
)  # fmt: skip
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.versions import versions
from tests.builders import command, perceptron, save
from tests.scoring.test_workers import ended, start, steps, wait_for
from tests.tasks import Trouble

ROOT = Path(__file__).parents[2]
OPTIONS: dict[str, Any] = {"batch": 8, "weights": (0.1, 0.5)}


# Who gets which models, with seats that are objects of this process.


class Seats:
    """A cluster that does what chance says. lose: how often an answer is that a seat is lost, or its node with it.

    deadly: the model that ends its seat. heavy: one that no seat is done with in an answer with those before it.
    other: the node that has other versions.
    """

    kind = "CPU"

    def __init__(self, seed: int = 0, lose: float = 0.0, deadly: int = -1, heavy: int = -1, other: str = "") -> None:
        self.chance = random.Random(seed)
        self.rooms = {"a": 2, "b": 3, "c": 1}
        self.lose, self.deadly, self.heavy, self.other = lose, deadly, max(heavy, deadly), other
        self.queues: dict[int, tuple[str, list[Model]]] = {}
        self.calls: dict[int, tuple[str, int]] = {}
        self.taken, self.most, self.ended = 0, 0, 0

    def nodes(self) -> dict[str, int]:
        return dict(self.rooms)

    def seat(self) -> int:
        number = len(self.queues) + 1
        self.queues[number] = (self.chance.choice(list(self.rooms)), [])
        return number

    def hello(self, seat: int) -> int:
        return self._call("hello", seat)

    def exchange(self, seat: int, models: list[Model], pause: float) -> int:
        self.queues[seat][1].extend(models)
        self.most = max(self.most, len(self.queues[seat][1]))
        return self._call("exchange", seat)

    def _call(self, what: str, seat: int) -> int:
        self.calls[len(self.calls)] = (what, seat)
        return len(self.calls) - 1

    def wait(self, calls: list[Any], seconds: float) -> list[Any]:
        return self.chance.sample(calls, self.chance.randint(1, len(calls)))

    def answer(self, call: int) -> Any:
        what, seat = self.calls[call]
        node, waiting = self.queues[seat]
        if node not in self.rooms:
            return Gone("its node died")
        if what == "hello":
            return Hello(node, f"node {node}", {"numpy": "0"} if node == self.other else dict(versions()))
        if waiting[0].index == self.deadly:
            return Gone("killed")
        if self.chance.random() < self.lose:
            if self.chance.random() < 0.5:
                del self.rooms[node]
                self.rooms[f"{node}'"] = 2
            return Gone("killed")
        before = next((at for at, model in enumerate(waiting) if at and model.index == self.heavy), len(waiting))
        done = waiting[: self.chance.randint(1, before)]
        back = waiting[len(done) + 1 :] if self.chance.random() < 0.2 else []
        self.queues[seat] = node, [model for model in waiting if model not in done and model not in back]
        rows = tuple(Row(model.index, model.name, b"") for model in done)
        return Report(rows, tuple(model.index for model in back), 0.01)

    def end(self, seat: int) -> None:
        self.ended += 1


class Asker:
    """The other end of a dispatch: gives as many models as are wanted, and keeps what comes."""

    def __init__(self, models: int) -> None:
        self.models, self.inbox = iter(range(models)), queue.SimpleQueue[Any]()
        self.rows: list[Row] = []
        self.said: list[str] = []
        self.taken = self.most_waiting = 0

    def send(self, message: Any) -> None:
        match message:
            case Wanted(count):
                for _ in range(count):
                    index = next(self.models, None)
                    if index is None:
                        self.inbox.put(End())
                        return
                    self.taken += 1
                    self.inbox.put(Model(index, str(index), ""))
                self.most_waiting = max(self.most_waiting, self.taken - len(self.rows))
            case Said(sentence):
                self.said.append(sentence)
            case tuple() as rows:
                self.rows += rows


def dispatched(seats: Seats, models: int) -> tuple[Asker, Any]:
    asker = Asker(models)
    order = Order(ScoreOptions(), Limits(), None, None, "", versions())
    return asker, Dispatch(seats, order, asker, asker.inbox).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_every_model_has_one_row_whatever_is_lost(seed: int) -> None:
    seats = Seats(seed, lose=0.05)
    asker, end = dispatched(seats, 300)
    assert end == End()
    assert sorted(row.index for row in asker.rows) == [*range(300)]
    for row in asker.rows:
        if row.data:
            assert "lost" in pickle.loads(row.data).cause


def test_where_nothing_is_lost_nothing_is_given_up_and_all_seats_are_ended() -> None:
    seats = Seats(1)
    asker, end = dispatched(seats, 500)
    assert end == End()
    assert sorted(row.index for row in asker.rows) == [*range(500)]
    assert [(row.index, pickle.loads(row.data)) for row in asker.rows if row.data] == []
    assert seats.ended == len(seats.queues) == 6
    assert seats.most > 5, "a seat has several models at a time once they are known to be quick"


def test_models_are_taken_as_there_is_room_for_them() -> None:
    asker, _ = dispatched(Seats(2), 10_000)
    depth = dispatch._STOCK * (dispatch._PAUSE + 6 * dispatch._PAUSE_EACH) / 0.01
    assert asker.most_waiting <= 6 * 1.5 * depth + 6


def test_a_model_that_loses_its_seat_twice_is_given_up_and_costs_no_other() -> None:
    asker, end = dispatched(Seats(3, deadly=40), 100)
    assert end == End()
    assert sorted(row.index for row in asker.rows) == [*range(100)]
    (given_up,) = [row for row in asker.rows if row.data]
    assert given_up.index == 40
    assert pickle.loads(given_up.data) == Lost("its worker on the cluster was lost twice (killed)")


def test_nodes_that_are_lost_are_no_fault_of_a_model() -> None:
    seats = Seats(4, heavy=7)
    answer, lost = seats.answer, []

    def once_a_node(call: int) -> Any:
        what, seat = seats.calls[call]
        node, waiting = seats.queues[seat]
        if what == "exchange" and any(model.index == 7 for model in waiting[:1]) and len(lost) < 4:
            lost.append(node)
            seats.rooms.pop(node, None)
            seats.rooms[f"{node}'"] = 1
        return answer(call)

    with mock.patch.object(seats, "answer", once_a_node):
        asker, end = dispatched(seats, 50)
    assert end == End()
    assert len(lost) == 4
    assert [(row.index, pickle.loads(row.data)) for row in asker.rows if row.data] == []


def test_a_node_with_other_versions_ends_the_run() -> None:
    _, end = dispatched(Seats(5, other="b"), 100)
    assert isinstance(end, Refused)
    assert end.sentence.startswith("node b: other versions than on the machine of the command (")
    assert f"numpy 0 there and {versions()['numpy']} here" in end.sentence


def test_a_node_with_other_versions_that_comes_later_is_left_out() -> None:
    seats = Seats(6, other="d")
    with (
        mock.patch.object(seats, "nodes", return_value={**seats.rooms, "d": 9}),
        mock.patch.object(dispatch, "_LOOK", 0.0),
    ):
        asker = Asker(200)
        order = Order(ScoreOptions(), Limits(), None, None, "", versions())
        seats.rooms["d"] = 9
        run = Dispatch(seats, order, asker, asker.inbox)  # type: ignore[arg-type]
        run._first_nodes = frozenset("abc")
        assert run.run() == End()
    assert sorted(row.index for row in asker.rows) == [*range(200)]
    assert any("it is left out" in sentence for sentence in asker.said)


def test_where_no_seat_starts_the_run_ends() -> None:
    seats = Seats(7)
    with mock.patch.object(seats, "answer", return_value=Gone("a\nno disk\n")):
        _, end = dispatched(seats, 5)
    assert end == Refused("no worker starts on the cluster (no disk)", is_usage=False)


def test_where_no_gpu_is_there_for_cuda_the_run_does_not_begin() -> None:
    seats = Seats(8)
    seats.kind, seats.rooms = "GPU", {"a": 0}
    _, end = dispatched(seats, 5)
    assert isinstance(end, Refused)
    assert "the cluster has no GPU; use --provider cpu" in end.sentence


def test_both_packages_of_onnx_runtime_are_the_same_version() -> None:
    assert differences({"onnxruntime-gpu": "1.2"}, {"onnxruntime": "1.2"}) is None
    assert "onnx not there and 1 here" in str(differences({}, {"onnx": "1"}))


def test_a_file_that_a_node_does_not_see_is_a_row_that_names_both(tmp_path: Path) -> None:
    path = save(perceptron(), tmp_path / "a.onnx")
    row = Row(0, path, pickle.dumps(Unseen("node n1 (10.0.0.1)", path)))
    found = as_score(row, ScoreOptions())
    assert found.status == "error"
    assert str(found.reason).startswith(f"{path}: node n1 (10.0.0.1) does not see {path}; keep models where every node")


# What is said where there is no cluster.


def test_without_ray_a_sentence_says_how_to_install_it(tmp_path: Path) -> None:
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
        done = command("score", save(perceptron(), tmp_path / "a.onnx"), "--engine", "ray")
    assert done.code == 2
    assert "--engine ray needs Ray; run 'pip install" in done.err
    assert "[ray]" in done.err


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1 (Connection refused)"),
        ("ray://127.0.0.1:10001", "is the address of a Ray client; give HOST:PORT"),
        ("somewhere", "the address of a Ray cluster is HOST:PORT"),
        ("no-such-host.invalid:6379", "nothing answers at no-such-host.invalid:6379"),
    ],
)
def test_an_address_without_a_cluster_is_said_at_once(tmp_path: Path, address: str, said: str) -> None:
    with mock.patch.object(importlib.util, "find_spec", return_value=object()):
        done = command("score", save(perceptron(), tmp_path / "a.onnx"), "--engine", "ray", "--ray-address", address)
    assert done.code == 2
    assert said in done.err


def test_an_address_goes_with_the_engine_and_an_engine_has_a_name() -> None:
    with pytest.raises(UsageError, match="add --engine ray"):
        epsinas_onnx.score_many([], ray_address="127.0.0.1:1")
    with pytest.raises(UsageError, match="the engine is one of local, ray, not 'slurm'"):
        epsinas_onnx.score_many([], engine="slurm")  # type: ignore[arg-type]


def test_scoring_on_this_machine_never_loads_ray(tmp_path: Path) -> None:
    path = save(perceptron(), tmp_path / "a.onnx")
    code = (
        f"import sys, epsinas_onnx.cli.main as m; sys.argv[1:] = ['score', {path!r}, '--batch', '8']\n"
        "try: m.main()\n"
        "finally: print('ray' in sys.modules)"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


# A real cluster of two nodes.

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


class Nodes:
    """The cluster of the slow tests: its address, and what can be done to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "ray_cluster.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def do(self, what: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def seats(self) -> list[psutil.Process]:
        return [one for one in descendants(psutil.Process(self.process.pid)) if "ray::Seat" in " ".join(line_of(one))]

    def end(self) -> None:
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.communicate(timeout=60)
        _, left = psutil.wait_procs(family, timeout=20)
        for one in left:
            one.kill()
        assert not left


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return the children of a process and theirs, none where it has just ended."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def line_of(one: psutil.Process) -> list[str]:
    try:
        return list(one.cmdline())
    except psutil.Error:
        return []


@contextlib.contextmanager
def held(how: int) -> Iterator[None]:
    """Hold a lock of all processes of the tests, for as long as clusters of theirs are there, or must not be."""
    with (Path(tempfile.gettempdir()) / "epsinas-tests-ray.lock").open("w") as file:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, how | fcntl.LOCK_NB)
                break
            time.sleep(0.2)
        yield


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with held(fcntl.LOCK_SH):
        cluster = Nodes()
        yield cluster
        cluster.end()


def on(nodes: Nodes) -> dict[str, Any]:
    return {"engine": "ray", "ray_address": nodes.address}


def record(score: epsinas_onnx.Score) -> dict[str, Any]:
    found = score.to_dict()
    for timed in (found, *found["proxies"].values()):
        del timed["seconds"]
    return found


@pytest.mark.slow
@needs_ray
def test_without_an_address_ray_is_started_for_the_run_and_ended_with_it(tmp_path: Path) -> None:
    """A cluster on this machine is taken otherwise, so that of another process of the tests must have ended."""
    with held(fcntl.LOCK_EX):
        run_without_an_address(tmp_path)


def run_without_an_address(tmp_path: Path) -> None:
    """Score two files with an engine that has to start Ray."""
    variables = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    paths = [save(perceptron(width=width), tmp_path / f"{width}.onnx") for width in (4, 5)]
    running = start("score", *paths, "--engine", "ray", "--batch", "8", "--format", "json", env=variables)
    seen: set[psutil.Process] = set()

    def is_over() -> bool:
        with contextlib.suppress(psutil.Error):
            seen.update(psutil.Process(running.pid).children(recursive=True))
        return running.poll() is not None

    wait_for(is_over)
    done = ended(running)
    assert [row["status"] for row in json.loads(done.out)] == ["ok", "ok"]
    assert (done.code, done.err) == (0, "")
    assert seen
    assert not psutil.wait_procs(seen, timeout=30)[1]


@pytest.mark.slow
@needs_ray
class TestCluster:
    def test_rows_are_those_of_one_machine(self, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from epsinas_exporters import spaces

        monkeypatch.chdir(tmp_path)
        space = spaces.get("nasbench201")
        save(perceptron(), tmp_path / "a.onnx")
        models = [
            "a.onnx", str(tmp_path / "a.onnx"), "missing.onnx", b"no model", perceptron().SerializeToString(),
            perceptron("Sin"), *map(space.network, space.sample(3, seed=1)), ROOT / "models" / "lstm.onnx",
        ]  # fmt: skip
        here = list(epsinas_onnx.score_many(models, jobs=2, scores="params", **OPTIONS))
        there = list(epsinas_onnx.score_many(models, scores="params", **on(nodes), **OPTIONS))
        assert [record(one) for one in there] == [record(one) for one in here]
        assert [str(one.status) for one in there].count("error") == 2
        wait_for(lambda: not nodes.seats())

    def test_what_breaks_a_limit_or_its_process_costs_its_own_row(self, nodes: Nodes, tmp_path: Path) -> None:
        bad = [
            Trouble("kills its seat", "kill its parent"),
            Trouble("kills", "kill"),
            Trouble("hangs", "hang"), Trouble("grows", "grow"),
            Trouble("kills once", "kill", str(tmp_path / "killed")),
        ]  # fmt: skip
        good = [Trouble(f"good {number}", "") for number in range(4)]
        found = list(epsinas_onnx.score_many([*bad, *good], timeout=20, memory=1.2, **on(nodes), **OPTIONS))
        assert [one.model for one in found] == [one.name for one in (*bad, *good)]
        assert [str(one.status) for one in found] == ["error"] * 4 + ["ok"] * 5
        for one, reason in zip(found, (
            "its worker on the cluster was lost twice", "its worker process died twice (SIGKILL)",
            "took longer than 20 s and was stopped", "needed more than 1.2 GB of memory and was stopped",
        ), strict=False):  # fmt: skip
            assert reason in str(one.reason)

    def test_a_node_is_killed_in_the_middle_and_another_one_comes(self, nodes: Nodes, tmp_path: Path) -> None:
        paths = [save(perceptron(width=4 + number), tmp_path / f"{number:03}.onnx") for number in range(300)]
        target = tmp_path / "rows.jsonl"
        running = start(
            "score", *paths, "--engine", "ray", "--ray-address", nodes.address, "--batch", "64", "-o", str(target)
        )
        wait_for(lambda: len(nodes.seats()) == 2 and target.exists() and target.read_text().count("\n") > 5)
        nodes.do("kill")
        nodes.do("add")
        done = ended(running)
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        assert sorted(row["model"] for row in rows) == paths
        assert not [row["reason"] for row in rows if row["status"] == "error"]
        assert (done.code, done.out) == (0, "")
        assert done.err == f"300 of 300 scored, written to {target}\n"

    @pytest.mark.exhaustive  # one comes in the test above too
    def test_a_node_that_comes_later_gets_work(self, nodes: Nodes) -> None:
        nodes.do("kill")
        hangs = [Trouble(f"hangs {number}", "hang") for number in range(2)]
        found = score_as_done([Trouble("good", ""), *hangs], timeout=1000, jobs=3, **on(nodes), **OPTIONS)
        assert next(found)[0] == 0
        assert len(nodes.seats()) == 1
        nodes.do("add")
        wait_for(lambda: len(nodes.seats()) == 2)
        found.close()  # type: ignore[attr-defined]
        wait_for(lambda: not nodes.seats())

    @pytest.mark.exhaustive  # how many are taken is tested without a cluster too
    def test_models_are_taken_as_they_are_needed_and_nothing_goes_on_behind_the_end(self, nodes: Nodes) -> None:
        taken = []

        def endless() -> Iterator[Trouble]:
            while True:
                taken.append(len(taken))
                yield Trouble(f"good {len(taken)}", "")

        found = score_as_done(endless(), **on(nodes), **OPTIONS)
        first = [next(found) for _ in range(20)]
        assert all(score.status == "ok" for _, score in first)
        assert len(taken) < 3000
        found.close()  # type: ignore[attr-defined]
        wait_for(lambda: not nodes.seats())

    def test_ctrl_c_keeps_the_rows_and_ends_what_runs_elsewhere(self, nodes: Nodes, tmp_path: Path) -> None:
        good = [save(perceptron(), tmp_path / f"good{number}.onnx") for number in range(3)]
        target = tmp_path / "rows.jsonl"
        loop = save(steps(), tmp_path / "loop.onnx")
        running = start(
            "score", loop, *good, "--engine", "ray", "--ray-address", nodes.address, "--batch", "8", "-o", str(target)
        )
        wait_for(lambda: target.exists() and target.read_text().count("\n") == 3)
        scoring = [child for seat in nodes.seats() for child in descendants(seat)]
        assert scoring
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        done = ended(running)
        assert done.code == 130
        assert done.err == "Interrupted: 3 of 3 scored; 1 files have no row.\n"
        assert sorted(json.loads(line)["model"] for line in target.read_text().splitlines()) == good
        assert not psutil.wait_procs(scoring, timeout=20)[1]
        wait_for(lambda: not nodes.seats())

    def test_where_the_connection_is_lost_the_rows_are_kept(self, nodes: Nodes, tmp_path: Path) -> None:
        good, loop = save(perceptron(), tmp_path / "good.onnx"), save(steps(), tmp_path / "loop.onnx")
        running = start(
            "score", loop, good, "--engine", "ray", "--ray-address", nodes.address, "--batch", "8", "--format", "jsonl"
        )
        assert running.stdout is not None
        line = running.stdout.readline()
        for one in psutil.Process(running.pid).children():
            one.kill()
        done = ended(running)
        assert json.loads(line)["model"] == good
        assert done.code == 3
        assert "the connection with the Ray cluster was lost" in done.err
        wait_for(lambda: not nodes.seats())
