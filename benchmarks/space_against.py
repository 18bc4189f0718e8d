"""Times `evaluate` on a space against an older tree: `python benchmarks/space_against.py --against PATH nasbench201`.

What is compared is CPU time a network, start-up included, each side in one process of one thread. This tree evaluates
the whole table, since networks that compute the same are run once; the older one, in which each is run, a part that is
drawn by seed, half of it before and half after.
"""

from __future__ import annotations

import argparse
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
                "--column", column, "--jobs", "1", "--resamples", "0", "--provider", "cpu", *drawn, "-o", str(output),
            ],
            env={**os.environ, **single, "PYTHONPATH": f"{tree}:{tree / 'exporters'}"}, cwd=folder, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = _cpu() - started
        records = [json.loads(line) for line in output.read_text().splitlines()]
    return Cost(seconds, Counter(str(record["status"]) for record in records))


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
    half = options.networks // 2
    before = evaluated(options.against, options.space, half, 1)
    here = evaluated(HERE, options.space, options.sample, 0)
    older = before + evaluated(options.against, options.space, half, 2)
    print(f"{options.space}, its own batch, input and constants; one process, CPU time\n")
    print(f"{'tree':8} {'networks':>8} {'seconds':>9} {'ms a network':>13}  status")
    print(older.text("older"))
    print(here.text("here"))
    print(f"ratio a network: {(older.seconds / older.networks) / (here.seconds / here.networks):.1f}")


if __name__ == "__main__":
    main()
