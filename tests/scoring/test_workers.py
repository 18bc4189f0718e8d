"""Batches end, with a result for everything, whatever dies, hangs or grows, and whenever it does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
import psutil
import pytest

import epsinas_onnx
from epsinas_onnx.errors import UsageError
from epsinas_onnx.scoring import process
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.supervisor import Failure, Workers, in_order
from tests.builders import Done, build, command, perceptron, save
from tests.cli.test_commands import on_a_terminal
from tests.tasks import fail, in_the_middle, kill, own_process, same, take, unpicklable
from tests.tiers import tiered

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the signals here are POSIX")

HANGS = 120
"""Seconds after which a test has found a parent that waits for ever."""


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """Fail where a test waits for ever."""

    def hung(*_: Any) -> None:
        raise AssertionError("the parent waits for ever")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(HANGS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def done(found: Any, jobs: int = 2, limits: Limits = Limits()) -> dict[int, Any]:  # noqa: B008
    """Return the results by position, each of which came once."""
    with Workers(jobs, limits) as workers:
        results = list(workers.results(*found))
    assert len(dict(results)) == len(results)
    return dict(results)


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


# Death.


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV], ids=str)
def test_a_task_that_kills_its_process_is_done_again_once(tmp_path: Path, how: signal.Signals) -> None:
    tasks = [(str(tmp_path / "once"), how), ("", how), (str(tmp_path / "once too"), how)]
    found = done((kill, tasks))
    assert set(found) == {0, 1, 2}
    assert isinstance(found[0], int)
    assert isinstance(found[2], int)
    assert f"its worker process died twice ({how.name})" in found[1].cause


def test_a_process_that_dies_between_tasks_costs_nothing() -> None:
    with Workers(1) as workers:
        first = workers.run(own_process, (0,))
        assert isinstance(first, int)
        os.kill(first, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(first)] if psutil.pid_exists(first) else [], timeout=10)
        second = workers.run(own_process, (0,))
    assert isinstance(second, int)
    assert first != second


def test_a_process_that_dies_while_it_answers_costs_its_own_task() -> None:
    with Workers(1) as workers:
        found = workers.run(in_the_middle, (signal.SIGKILL,))
        assert isinstance(found, Failure)
        assert "died twice (SIGKILL)" in found.cause
        assert workers.run(same, (3,)) == 3


@pytest.mark.parametrize("work", [in_the_middle, kill], ids=["in an answer", "in a task"])
def test_a_process_that_is_stopped_is_given_up(work: Any) -> None:
    args = (signal.SIGSTOP,) if work is in_the_middle else ("", signal.SIGSTOP)
    with mock.patch.object(process, "_STOPPED", 0.2), Workers(1) as workers:
        found = workers.run(work, args)
        assert isinstance(found, Failure)
        assert "was stopped from outside (SIGSTOP)" in found.cause
        assert workers.run(same, (3,)) == 3


def test_where_the_helpers_of_python_were_killed_too_nothing_is_said() -> None:
    assert done((same, [(0,)])) == {0: 0}
    for helper in psutil.Process().children():
        helper.kill()
        wait_for(lambda one=helper: one.status() == psutil.STATUS_ZOMBIE)
    process.prepare(["epsinas_onnx.scoring.workers"])
    assert done((same, [(1,)])) == {0: 1}


def test_where_no_process_starts_every_task_fails() -> None:
    with mock.patch.object(process.Process, "_start", side_effect=OSError("no more processes")):
        found = done((same, [(number,) for number in range(5)]))
    assert set(found) == set(range(5))
    assert all("no worker process could be started (OSError: no more processes)" in one.cause for one in found.values())


@pytest.mark.filterwarnings("ignore:resource_tracker")
@pytest.mark.parametrize("seed", [1])
def test_every_task_has_one_result_whatever_is_killed_and_when(seed: int) -> None:
    assert_all_come(seed, tasks=40, kills=12)


@pytest.mark.filterwarnings("ignore:resource_tracker")
@pytest.mark.parametrize("seed", tiered(range(10, 15), slow={"10"}, exhaustive={"11", "12", "13", "14"}))
def test_every_task_has_one_result_over_many_kills(seed: int) -> None:
    assert_all_come(seed, tasks=300, kills=60)


def assert_all_come(seed: int, tasks: int, kills: int) -> None:
    """Kill or stop whatever this process has started, at random moments, what new ones are forked from included."""
    chance = random.Random(seed)
    over = threading.Event()

    def harm() -> None:
        for _ in range(kills):
            if over.wait(chance.uniform(0, 0.1)):
                return
            there = descendants()
            if there:
                try:
                    os.kill(chance.choice(there).pid, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))
                except ProcessLookupError:
                    continue

    with mock.patch.object(process, "_STOPPED", 0.2), mock.patch.object(process, "_STARTING", 5):
        thread = threading.Thread(target=harm)
        thread.start()
        found = done((same, [(number, chance.uniform(0, 0.04)) for number in range(tasks)]))
        over.set()
        thread.join()
    assert set(found) == set(range(tasks))
    assert all(result == number or isinstance(result, Failure) for number, result in found.items())


# Limits.


def test_what_takes_too_long_is_stopped_and_the_others_come_before_it() -> None:
    with Workers(2, Limits(timeout=3)) as workers:
        found = list(workers.results(same, [(0, 1000), *((number, 0) for number in range(1, 20))]))
    assert sorted(index for index, _ in found) == [*range(20)]
    assert found[0] == (1, 1)
    failure = dict(found)[0]
    assert isinstance(failure, Failure)
    assert failure.cause == "took longer than 3 s and was stopped; --timeout gives a model more, or 0 for no limit"
    assert failure.seconds > 0


def test_what_takes_too_much_memory_is_stopped() -> None:
    found = done((take, [(600_000_000, 1000), (1000, 0)]), limits=Limits(memory=0.5))
    assert "needed more than 0.5 GB of memory and was stopped; --memory gives a model more" in found[0].cause
    assert found[1] == 1000


def test_a_process_that_has_grown_is_replaced() -> None:
    tasks = [(number,) for number in range(3)]
    assert len(set(done((own_process, tasks), jobs=1).values())) == 1
    with mock.patch("epsinas_onnx.scoring.supervisor._GROWN", -1):
        assert len(set(done((own_process, tasks), jobs=1).values())) == 3


@pytest.mark.parametrize("limits", [{"timeout": -1}, {"memory": float("nan")}, {"timeout": float("inf")}], ids=str)
def test_a_limit_that_is_none_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="0 for none"):
        epsinas_onnx.score_many([], **limits)


# What goes in and comes out.


def test_what_is_raised_passes_through() -> None:
    with Workers(1) as workers:
        with pytest.raises(UsageError, match="this is wrong"):
            workers.run(fail, (UsageError, "this is wrong"))
        assert workers.run(same, (3,)) == 3


def test_what_cannot_be_handed_over_costs_its_own_task() -> None:
    found = done((same, [(1,), (threading.Lock(),), (2,)]))
    assert (found[0], found[2]) == (1, 2)
    assert "cannot be handed to a worker process" in found[1].cause
    assert "has a result that cannot be handed over" in done((unpicklable, [()]))[0].cause


def test_results_are_put_in_order() -> None:
    assert list(in_order([(1, "b"), (0, "a"), (3, "d"), (2, "c")])) == ["a", "b", "c", "d"]


def test_tasks_are_taken_as_processes_are_free_for_them() -> None:
    taken = []

    def tasks() -> Iterator[tuple[int]]:
        for number in range(1000):
            taken.append(number)
            yield (number,)

    with Workers(2) as workers:
        results = workers.results(same, tasks())
        for _ in range(10):
            next(results)
        assert len(taken) < 20


def test_a_batch_that_is_broken_off_leaves_nothing_to_the_next() -> None:
    with Workers(2) as workers:
        results = workers.results(same, [(0, 0), (1, 1000)])
        assert next(results) == (0, 0)
        results.close()  # type: ignore[attr-defined]
        assert sorted(workers.results(same, [(7,), (8,), (9,)])) == [(0, 7), (1, 8), (2, 9)]


# Files that never end, in every command.

LOOP = """(float[N,3] x) => (float[N,3] y) {
    z = MatMul(x, W)
    y = Loop <body = b (int64 i, bool c, float[N,3] s) => (bool d, float[N,3] t) { d = Identity(c)  t = Sin(s) }>
        (trips, go, z)
}"""


def steps(trips: str = "trips") -> onnx.ModelProto:
    """Build a loop of 2^40 steps, or without an end."""
    import numpy as np

    return build(LOOP.replace("trips", trips), W=(3, 3), go=np.asarray(True), trips=np.asarray(2**40))


def doubling(times: int = 19) -> onnx.ModelProto:
    """Build a kilobyte of functions, each of which calls the one before twice."""
    head = '<domain: "local", opset_import: ["" : 21, "local" : 1]>'
    functions = f"{head} f0 (x) => (y) {{ y = Sin(x) }}"
    for number in range(1, times):
        call = f"local.f{number - 1}"
        functions += f"\n{head} f{number} (x) => (y) {{ a = {call}(x)  y = {call}(a) }}"
    graph = f"(float[N,3] x) => (float[N,3] y) {{ z = MatMul(x, W)  y = local.f{times - 1}(z) }}"
    return build(graph, functions=functions, W=(3, 3))


@pytest.fixture
def endless(tmp_path: Path) -> str:
    return save(doubling(), tmp_path / "endless.onnx")


COMMANDS = {
    "score": ("score", "{endless}"),
    "inspect": ("inspect", "{endless}"),
    "diff": ("diff", "{good}", "{endless}"),
    "strip": ("strip", "{endless}", "-o", "{folder}/out.onnx"),
    "fill": ("fill", "{endless}", "-o", "{folder}/out.onnx"),
    "rewrite": ("rewrite", "{endless}", "-w", "1", "-o", "{folder}/out.onnx"),
    "check": ("check", "{endless}"),
    "baseline write": ("baseline", "write", "{endless}", "--baseline", "{folder}/baseline.json"),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("limit", ["timeout", pytest.param("memory", marks=pytest.mark.slow)])
def test_every_command_ends_a_file_that_never_does(
    endless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    good = save(perceptron(), tmp_path / "good.onnx")
    args = [part.format(endless=endless, good=good, folder=tmp_path) for part in COMMANDS[name]]
    given = ("--timeout", "0.3") if limit == "timeout" else ("--memory", "0.001")
    ended = command(*args, *given)
    text = " ".join((ended.out + ended.err).split())
    assert "endless.onnx" in text
    assert ("took longer than 0.3 s" if limit == "timeout" else "needed more than 0.001 GB") in text
    assert ended.code == (1 if name == "check" else 3)
    assert not (tmp_path / "out.onnx").exists()


def test_files_that_never_end_cost_their_own_rows(tmp_path: Path) -> None:
    good = [save(perceptron(), tmp_path / f"good{number}.onnx") for number in range(3)]
    bad = [save(steps(""), tmp_path / "while.onnx")]
    os.mkfifo(tmp_path / "fifo.onnx")
    bad.append(str(tmp_path / "fifo.onnx"))
    options = {"batch": 8, "weights": (0.1, 0.5)}
    found = list(epsinas_onnx.score_many([*bad, *good], jobs=2, timeout=6, **options))
    assert [result.model for result in found] == [*bad, *good]
    assert [str(result.status) for result in found] == ["error"] * 2 + ["ok"] * 3
    assert "took longer than 6 s" in str(found[0].reason)


def test_a_model_that_takes_more_than_it_may_is_stopped_while_it_does(tmp_path: Path) -> None:
    path = save(build("(float[N,3] x) => (float[N,3] y) { y = MatMul(x, W) }", W=(3, 3)), tmp_path / "a.onnx")
    (result,) = epsinas_onnx.score_many([path], batch=40_000_000, lump=False, memory=0.3)
    assert result.status == "error"
    assert "needed more than 0.3 GB of memory and was stopped" in str(result.reason)


# The command line.


def start(*args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "epsinas_onnx", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **options,
    )  # fmt: skip


def wait_for(true: Any) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def family(one: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(one.pid).children(recursive=True)


def is_busy(one: subprocess.Popen[str]) -> bool:
    """Whether a worker is: a child of what is forked from, whose own work is to import."""
    return any(child.ppid() != one.pid and child.cpu_times().user > 0.5 for child in family(one))


def ended(one: subprocess.Popen[str]) -> Done:
    out, err = one.communicate(timeout=60)
    return Done(one.returncode, out, err)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_helper_process_is_ever_interrupted(tmp_path: Path) -> None:
    """One that is still importing when Ctrl-C comes would print a traceback of its own."""
    running = start("score", save(steps(), tmp_path / "loop.onnx"), "--timeout", "0")
    wait_for(lambda: is_busy(running))
    try:
        for child in family(running):
            told = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            masks = {
                line.split(":")[0]: int(line.split(":")[1], 16)
                for line in told
                if line.startswith(("SigBlk", "SigIgn"))
            }
            bit = 1 << (signal.SIGINT - 1)
            assert (masks["SigBlk"] | masks["SigIgn"]) & bit, child.cmdline()
    finally:
        os.killpg(running.pid, signal.SIGINT)
        ended(running)


def test_ctrl_c_ends_a_single_file_that_onnx_runtime_is_busy_with(tmp_path: Path) -> None:
    running = start("score", save(steps(), tmp_path / "loop.onnx"), "--timeout", "0")
    wait_for(lambda: is_busy(running))
    children = family(running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    done = ended(running)
    assert (done.code, done.out) == (130, "")
    assert done.err == "Interrupted: 0 of 0 scored; 1 files have no row.\n"
    assert not psutil.wait_procs(children, timeout=20)[1]


def test_ctrl_c_keeps_and_shows_what_was_computed(tmp_path: Path) -> None:
    good = [save(perceptron(), tmp_path / f"good{number}.onnx") for number in range(3)]
    target = tmp_path / "rows.jsonl"
    running = start(
        "score", save(steps(), tmp_path / "loop.onnx"), *good, "--jobs", "2", "--batch", "8", "-o", str(target),
    )  # fmt: skip
    wait_for(lambda: target.exists() and target.read_text().count("\n") == 3)
    os.killpg(running.pid, signal.SIGINT)
    done = ended(running)
    assert done.code == 130
    assert "3 of 3 scored; 1 files have no row" in done.err
    assert [json.loads(line)["model"] for line in target.read_text().splitlines()] == good


@pytest.mark.parametrize("name", tiered(["inspect", "strip"], exhaustive={"strip"}))
def test_ctrl_c_ends_a_command_over_one_file(endless: str, tmp_path: Path, name: str) -> None:
    output = ("-o", str(tmp_path / "out.onnx")) if name == "strip" else ()
    running = start(name, endless, *output)
    wait_for(lambda: is_busy(running))
    os.killpg(running.pid, signal.SIGINT)
    done = ended(running)
    assert (done.code, done.out, done.err) == (130, "", "Interrupted.\n")


def test_a_terminal_is_told_what_takes_so_long(tmp_path: Path) -> None:
    text = on_a_terminal("score", save(steps(), tmp_path / "loop.onnx"), "--timeout", "3")
    assert "scoring" in text
    assert "took longer than 3 s" in " ".join(text.split())


@pytest.mark.parametrize("after", [0.2, 0.8, 2.5])
def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path, after: float) -> None:
    running = start("score", save(steps(), tmp_path / "a.onnx"), save(doubling(), tmp_path / "b.onnx"), "--jobs", "2")
    time.sleep(after)
    children = family(running)
    running.kill()
    ended(running)
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]


# Random kills: all rows come, and none twice.

SEEDS = range(int(os.environ.get("EPSINAS_KILLS", "1")))
"""Each is 50 kills of `score` and 50 of `evaluate`; docs/releasing.md asks for 5. CI has time for 20 of each."""
KILLS = pytest.mark.parametrize(
    ("seed", "most"),
    [
        pytest.param(0, 20, id="0-20", marks=pytest.mark.slow),
        *(pytest.param(seed, 50, id=f"{seed}-50", marks=pytest.mark.exhaustive) for seed in SEEDS),
    ],
)


def harmed(running: subprocess.Popen[str], chance: random.Random, kills: int, parent: float) -> int:
    """Kill members of a command's family at random moments until it ends, the parent as often as `parent` says."""
    done = 0
    while running.poll() is None and done < kills:
        time.sleep(chance.uniform(0, 0.4))
        try:
            there = family(running)
            one = psutil.Process(running.pid) if chance.random() < parent else chance.choice(there) if there else None
            if one is not None:
                one.kill()
                done += 1
        except psutil.NoSuchProcess:
            continue
    return done


@KILLS
def test_score_gives_a_row_for_every_file_over_many_kills(tmp_path: Path, seed: int, most: int) -> None:
    chance = random.Random(seed)
    paths = [save(perceptron(width=4 + number), tmp_path / f"{number:02}.onnx") for number in range(30)]
    target = tmp_path / "rows.jsonl"
    kills = 0
    while kills < most:
        signal.alarm(HANGS)
        running = start("score", *paths, "--jobs", "2", "--batch", "8", "-o", str(target))
        kills += harmed(running, chance, 10, 0)
        done = ended(running)
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        assert sorted(row["model"] for row in rows) == paths, done.err
        assert not [row["reason"] for row in rows if row["status"] == "error" and "SIGKILL" not in row["reason"]]


@KILLS
def test_evaluate_goes_on_until_every_row_is_there_over_many_kills(tmp_path: Path, seed: int, most: int) -> None:
    chance = random.Random(seed)
    operations = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

    def cell() -> str:
        nodes = ("|".join(f"{chance.choice(operations)}~{source}" for source in range(node)) for node in (1, 2, 3))
        return "+".join(f"|{node}|" for node in nodes)

    cells = sorted({cell() for _ in range(40)})
    table, target = tmp_path / "table.csv", tmp_path / "rows.jsonl"
    table.write_text("arch,accuracy\n" + "".join(f"{one},{number}\n" for number, one in enumerate(cells)))
    kills, code = 0, 1
    while kills < most or code != 0:
        signal.alarm(HANGS)
        if code == 0:
            target.unlink()
        running = start(
            "evaluate", str(table), "--space", "nasbench201", "--column", "accuracy", "--batch", "4", "--jobs", "2",
            "--resamples", "0", "-o", str(target),
        )  # fmt: skip
        kills += harmed(running, chance, 10 if kills < most else 0, 0.2)
        done = ended(running)
        code = done.code
        assert code in (0, -signal.SIGKILL), done.err
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    finished = [row["model"] for row in rows if row["status"] != "error"]
    assert len({row["model"] for row in rows}) == len(cells)
    assert len(set(finished)) == len(finished)


def test_the_seconds_of_a_row_are_all_that_was_waited_for() -> None:
    from epsinas_onnx.scoring import judged

    def slowly(*args: Any) -> Any:
        time.sleep(0.2)
        return judge(*args)

    judge = judged.judge
    with mock.patch.object(judged, "judge", slowly):
        result = epsinas_onnx.score(perceptron(), batch=8)
    assert result.seconds["judge"] >= 0.2


SCRIPT = """
from epsinas_onnx import score_many

{guard}
    print("begin", flush=True)
    for result in score_many({models!r}, jobs=2, batch=8):
        print(result.status)
"""


@pytest.mark.parametrize("guard", ["if True:", 'if __name__ == "__main__":'])
def test_a_script_that_workers_read_again_is_told_so_once(tmp_path: Path, guard: str) -> None:
    script = tmp_path / "script.py"
    models = [str(Path(__file__).parents[2] / "models" / f"{name}.onnx") for name in ("mlp", "lstm")]
    script.write_text(SCRIPT.format(guard=guard, models=models))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    if guard == "if True:":
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("epsinas_onnx.errors.UsageError: each worker process reads")
        assert "error" not in done.stdout
    else:
        assert (done.returncode, done.stdout) == (0, "begin\nok\nok\n")
