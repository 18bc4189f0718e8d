"""Checks many models, a broken one among them, and prints the rate and how much memory the processes hold meanwhile.

python benchmarks/check_many.py --count 500 --jobs 2 models/ more/*.onnx
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
import time
from pathlib import Path

import psutil

from epsinas_onnx.check.config import Config
from epsinas_onnx.check.runner import check_many
from epsinas_onnx.cli.common import find_models

_STEPS = 5


def held_bytes() -> tuple[int, int]:
    """Return the resident bytes of this process, and of its workers together."""
    own = psutil.Process()
    workers = [child.memory_info().rss for child in own.children(recursive=True) if child.is_running()]
    return own.memory_info().rss, sum(workers)


def main() -> None:
    """Copy the models in turn until there are enough, check them all, and print a line for each fifth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = itertools.cycle(find_models(options.models))
        paths = [Path(folder) / f"{number:05}.onnx" for number in range(options.count)]
        for path in paths:
            shutil.copy(next(sources), path)
        paths[options.count // 2].write_bytes(b"no model")
        started, since, most, findings = time.perf_counter(), time.perf_counter(), 0, 0
        step = max(1, options.count // _STEPS)
        print("models  models/s  this process  workers, at most")
        for number, checked in enumerate(check_many([str(p) for p in paths], Config(), jobs=options.jobs), start=1):
            findings += any(finding.rule == "unreadable" for finding in checked.findings)
            own, workers = held_bytes()
            most = max(most, workers)
            if number % step == 0:
                now = time.perf_counter()
                print(f"{number:6}  {step / (now - since):8.1f}  {own / 2**20:8.0f} MiB  {most / 2**20:12.0f} MiB")
                since, most = now, 0
        seconds = time.perf_counter() - started
        print(
            f"{options.count} models in {seconds:.1f} s, {options.count / seconds:.1f} models/s; {findings} unreadable"
        )


if __name__ == "__main__":
    main()
