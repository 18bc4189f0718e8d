"""Whatever is killed, nothing is lost but what was in flight, nothing is double, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from epsinas_onnx import Store, score_many
from epsinas_onnx.scoring.result import Status
from tests.builders import perceptron, save
from tests.store.counting import Counted, built
from tests.store.holding import ask, held

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the signals here are POSIX")

ROOT = Path(__file__).parents[2]
PATIENCE = 120
"""Seconds after which a test has found that nothing happens."""

SCRIPT = """
import sys
from epsinas_onnx import score_many
from tests.store.counting import Counted

if __name__ == "__main__":
    store, log, seconds, jobs, *names = sys.argv[1:]
    networks = [Counted(name, log, width=2 + len(name), seconds=float(seconds)) for name in names]
    for result in score_many(networks, batch=4, store=store, jobs=int(jobs)):
        print(result.model, result.status, flush=True)
"""


def start(words: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": paths}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(store: Path, log: Path, names: Sequence[str], *, seconds: float = 0.0, jobs: int = 1) -> subprocess.Popen[str]:
    """Start a run of its own over counted networks."""
    script = store.with_name("run.py")
    script.write_text(SCRIPT)
    return start([str(script), str(store), str(log), str(seconds), str(jobs), *names], store.parent)


def rows(store: Path) -> int:
    return int(ask(store, "SELECT count(*) FROM results")[0][0]) if store.exists() else 0


def wait_for(store: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a store holds so many results, which a running process writes."""
    until = time.monotonic() + PATIENCE
    while rows(store) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_worker_that_is_killed_costs_nothing(store: Path, log: Path, tmp_path: Path) -> None:
    networks = [Counted(f"n{number}", str(log)) for number in range(4)]
    networks[1] = Counted("n1", str(log), kills=str(tmp_path / "once"))
    networks[2] = Counted("n2", str(log), kills=str(tmp_path / "twice"), always=True)
    results = list(score_many(networks, batch=4, store=store, jobs=2))
    assert [result.status for result in results] == [Status.OK, Status.OK, Status.ERROR, Status.OK]
    assert held(store) == {"n0": "ok", "n1": "ok", "n2": "error", "n3": "ok"}
    assert Counter(built(log)) == {"n0": 1, "n1": 2, "n2": 2, "n3": 1}
    again = list(score_many([*networks[:2], Counted("n2", str(log)), networks[3]], batch=4, store=store))
    assert [result.status for result in again] == [Status.OK] * 4
    assert Counter(built(log)) == {"n0": 1, "n1": 2, "n2": 3, "n3": 1}
    assert held(store) == dict.fromkeys(("n0", "n1", "n2", "n3"), "ok")


@pytest.mark.parametrize(
    ("jobs", "how"),
    [
        (1, signal.SIGINT),
        (1, signal.SIGKILL),
        pytest.param(2, signal.SIGINT, marks=pytest.mark.exhaustive),
        pytest.param(2, signal.SIGKILL, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_that_is_killed_goes_on(store: Path, log: Path, how: signal.Signals, jobs: int) -> None:
    names = [f"n{number}" for number in range(10)]
    first = run(store, log, names, seconds=0.1, jobs=jobs)
    wait_for(store, 3, first)
    first.send_signal(how)
    first.communicate(timeout=PATIENCE)
    assert first.returncode != 0
    time.sleep(0.3)  # workers find out that nobody waits for them
    kept, begun = held(store), Counter(built(log))
    assert 3 <= len(kept) < len(names)
    assert set(kept) <= set(begun)
    assert len(set(begun) - set(kept)) <= jobs  # those in flight, and no other, are lost
    second = run(store, log, names)
    out, err = second.communicate(timeout=PATIENCE)
    assert (second.returncode, err) == (0, "")
    assert out.splitlines() == [f"{name} ok" for name in names]
    assert held(store) == dict.fromkeys(names, "ok")
    after = Counter(built(log))
    assert {name: after[name] for name in kept} == dict.fromkeys(kept, 1)  # what was kept is not computed again
    assert set(after) == set(names)
    assert max(after.values()) <= 2


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on(store: Path, tmp_path: Path) -> None:
    files = [save(perceptron(width=3 + number), tmp_path / "models" / f"m{number:02}.onnx") for number in range(12)]
    command = ["-m", "epsinas_onnx", "score", "models", "--store", store.name, "-f", "jsonl", "--batch", "50000"]
    first = start([*command, "--no-lump"], tmp_path)
    wait_for(store, 2, first)
    first.kill()
    first.communicate(timeout=PATIENCE)
    kept = {json.loads(text)["model"]: text for (text,) in ask(store, "SELECT record FROM results")}
    assert 2 <= len(kept) < len(files)
    second = start([*command, "--no-lump"], tmp_path)
    out, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0
    assert f"{len(kept)} results found, {len(files) - len(kept)} added" in err
    found = {record["model"]: record for record in map(json.loads, out.splitlines())}
    assert sorted(found) == [str(Path(file).relative_to(tmp_path)) for file in files]
    for model, text in kept.items():  # the clock gives no two runs the same seconds
        assert found[model]["seconds"] == json.loads(text)["seconds"]
    assert len(held(store)) == len(files)


def test_two_runs_over_overlapping_sets_lose_and_double_nothing(store: Path, log: Path) -> None:
    names = [f"n{number}" for number in range(12)]
    sets = [names[:8], names[:3:-1]]
    runs = [run(store, log, some, seconds=0.05) for some in sets]
    for process, some in zip(runs, sets, strict=True):
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
        assert out.splitlines() == [f"{name} ok" for name in some]
    assert held(store) == dict.fromkeys(names, "ok")
    assert set(Counter(built(log)).values()) <= {1, 2}


def test_threads_share_a_store(store: Path, log: Path) -> None:
    sets = [[f"n{(start + number) % 9}" for number in range(6)] for start in range(0, 9, 3)]
    found: dict[int, list[Any]] = {}
    with Store(store) as shared:

        def score(number: int) -> None:
            networks = [Counted(name, str(log)) for name in sets[number]]
            found[number] = [result.model for result in score_many(networks, batch=4, store=shared)]

        threads = [threading.Thread(target=score, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found[number] for number in range(3)] == sets
    assert held(store) == {f"n{number}": "ok" for number in range(9)}


@pytest.fixture
def fork(store: Path) -> Iterator[Store]:
    with Store(store) as opened:
        yield opened


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_process_writes_by_a_connection_of_its_own(fork: Store, store: Path, log: Path) -> None:
    [_] = score_many([Counted("before", str(log))], batch=4, store=fork)
    child = os.fork()
    if not child:
        code = 1
        try:
            from tests.store.holding import entry

            fork.add(entry("child"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    [_] = score_many([Counted("after", str(log))], batch=4, store=fork)
    assert held(store) == {"before": "ok", "child": "ok", "after": "ok"}
