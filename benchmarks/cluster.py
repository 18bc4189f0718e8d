"""What a Ray cluster costs beside worker processes: the same networks by both engines in turns, on this machine.

`python benchmarks/cluster.py --networks 300 --repeats 2` starts a cluster of two nodes with a core each, and prints
processor seconds a network (of every process that takes part, Ray's own included, from the first row to the last), and
how long the first row takes.
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import psutil

from epsinas_exporters import spaces
from epsinas_onnx._util.text import to_json
from epsinas_onnx.scoring.api import score_as_done

CLUSTER = Path(__file__).parents[1] / "tests" / "ray_cluster.py"


class Clock:
    """Processor seconds of all processes below this one, those that have ended included as far as they were seen."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], float] = {}
        self._watching = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(0.5)
            self.now()
            self._watching = time.thread_time()

    def now(self) -> float:
        """Return the seconds until now."""
        own = psutil.Process()
        for one in [own, *own.children(recursive=True)]:
            try:
                times = one.cpu_times()
                self._seen[one.pid, one.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        return sum(self._seen.values()) - self._watching


def main() -> None:
    """Print both engines' figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()
    space = spaces.get("nasbench201")
    networks = [space.network(arch) for arch in space.sample(args.networks, seed=1)]
    cluster = subprocess.Popen(
        [sys.executable, str(CLUSTER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert cluster.stdout is not None
    engines = {"local": {"jobs": 2}, "ray": {"engine": "ray", "ray_address": cluster.stdout.readline().strip()}}
    clock, figures = Clock(), {name: [] for name in engines}
    scores: dict[str, dict[int, float | None]] = {name: {} for name in engines}
    for _ in range(args.repeats):
        for name, options in engines.items():
            begun, first, at_first, rows = time.perf_counter(), 0.0, 0.0, 0
            for index, score in score_as_done(networks, batch=args.batch, weights=(1e-7, 1.0), **options):
                scores[name][index] = score.score
                rows += 1
                if rows == 1:
                    first, at_first = time.perf_counter() - begun, clock.now()
            wall, spent = time.perf_counter() - begun, clock.now() - at_first
            figures[name].append((1e3 * spent / (rows - 1), 1e3 * (wall - first) / (rows - 1), first))
    cluster.communicate()
    print(f"{len(networks)} networks of NAS-Bench-201, batch {args.batch}, two cores; medians of {args.repeats}")
    print("engine  CPU ms a network  wall ms a network  s to the first row")
    for name, found in figures.items():
        cpu, each, first = (median(column) for column in zip(*found, strict=True))
        print(f"{name:6}  {cpu:16.1f}  {each:17.1f}  {first:18.1f}")
    print(f"scores equal bit for bit: {scores['local'] == scores['ray']}")
    line = to_json(score.to_dict(), indent=None)
    print(f"a row: {len(line)} bytes as a line of JSON, {len(pickle.dumps(score))} pickled")
    print(f"a network on its way: {len(pickle.dumps(networks[0]))} bytes")


if __name__ == "__main__":
    main()
