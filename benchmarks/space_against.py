"""Times `evaluate` on a space against an older tree: `python benchmarks/space_against.py --against PATH nasbench201`.

What is compared is CPU time a network, each side with two workers of one thread; what three networks take, which is the
start of Python and of workers, is taken off. This tree evaluates the whole table, since networks that compute the
same are run once; the older one, in which each is run, a part that is drawn by seed, half of it before and half after.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent
SHARED = HERE.parent / "shared" / "data"
TABLES = {
    "nasbench201": ("nasbench201.csv.gz", "cifar10_test"),
    "nasbench101": ("nasbench101_subset.csv.gz", "val_accuracy_108"),
    "nasbenchmacro": ("nasbenchmacro_cifar10.csv.gz", "mean_test_accuracy"),
}

_SET_CHILD_SUBREAPER = 36  # of prctl(2), on Linux


class Cost(NamedTuple):
    """What some networks took. seconds: of CPU. status: how many have which."""

    seconds: float
    status: Counter[str]

    @property
    def networks(self) -> int:
        """How many they were."""
        return sum(self.status.values())

    def __add__(self, other: object) -> Cost:
        assert isinstance(other, Cost)
        return Cost(self.seconds + other.seconds, self.status + other.status)

    def text(self, label: str) -> str:
        """Return a row."""
        found = ", ".join(f"{count:,} {status}" for status, count in self.status.most_common())
        each = 1e3 * self.seconds / self.networks
        return f"{label:8} {self.networks:>8,} {self.seconds:>9.1f} {each:>13.1f}  {found}"


def evaluated(tree: Path, space: str, sample: int | None, seed: int) -> Cost:
    """Evaluate a table in a tree."""
    table, column = TABLES[space]
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    drawn = [] if sample is None else ["--sample", str(sample), "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "records.jsonl"
        started = _cpu()
        subprocess.run(
            [
                sys.executable, "-m", "epsinas_onnx", "evaluate", str(SHARED / table), "--space", space,
                "--column", column, "--jobs", "2", "--resamples", "0", "--provider", "cpu", *drawn, "-o", str(output),
            ],
            env={**os.environ, **single, "PYTHONPATH": f"{tree}:{tree / 'exporters'}"}, cwd=folder, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        _wait_for_all()
        seconds = _cpu() - started
        records = [json.loads(line) for line in output.read_text().splitlines()]
    return Cost(seconds, Counter(str(record["status"]) for record in records))


def beyond_start(tree: Path, space: str, sample: int | None, seed: int) -> Cost:
    """Return the same less what three networks take."""
    start, cost = evaluated(tree, space, 3, seed), evaluated(tree, space, sample, seed)
    return cost._replace(seconds=cost.seconds - start.seconds)


def _adopt() -> None:
    """Become the parent of orphans: workers' time counts only for who has waited for them."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)


def _wait_for_all() -> None:
    """Wait for what this process has inherited."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print a row a side, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", choices=list(TABLES))
    parser.add_argument("--against", type=Path, required=True, help="checkout of an older tree")
    parser.add_argument("--networks", type=int, default=600, help="that the older tree evaluates")
    parser.add_argument("--sample", type=int, help="that this tree evaluates; the whole table otherwise")
    options = parser.parse_args()
    _adopt()
    half = options.networks // 2
    older = beyond_start(options.against, options.space, half, 1)
    here = beyond_start(HERE, options.space, options.sample, 0)
    older += beyond_start(options.against, options.space, half, 2)
    print(f"{options.space}, its own batch, input and constants; two workers of one thread, CPU time\n")
    print(f"{'tree':8} {'networks':>8} {'seconds':>9} {'ms a network':>13}  status")
    print(older.text("older"))
    print(here.text("here"))
    print(f"ratio a network: {(older.seconds / older.networks) / (here.seconds / here.networks):.1f}")


if __name__ == "__main__":
    main()
