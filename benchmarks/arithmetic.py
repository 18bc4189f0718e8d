"""Times scores of this tree against an older one, side by side: `python benchmarks/arithmetic.py --against PATH`.

Both sides go from a file to a score with both constants, on one thread of one core, in a process of their own that
scores nothing else meanwhile; what is compared is CPU time, not the clock. They take turns network by network, and a
ratio is the median of one side over that of the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent.parent
GROUPS = {
    "nasbench201": {},
    "nasbench101": {},
    "resnet50": {},
    "mobilenet_v2": {},
    "photographs": {"inputs": "normal"},
    "sequences": {},
    "files": {},
}
"""Sections, and how their networks are scored."""


class Reply(NamedTuple):
    """What one score took: milliseconds of CPU time, its status and its number."""

    cpu: float
    status: str
    score: float | None


class Side:
    """One tree in a process of its own, which is asked for scores one at a time."""

    def __init__(self, tree: Path) -> None:
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **single, "PYTHONPATH": str(tree)},
        )  # fmt: skip

    def score(self, file: Path, options: dict[str, Any]) -> Reply:
        """Score a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(file), options]), file=self._process.stdin, flush=True)
        return Reply(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def worker() -> None:
    """Score what comes line by line, and answer with a line."""
    import epsinas_onnx

    for line in sys.stdin:
        file, options = json.loads(line)
        started = time.process_time()
        try:
            result = epsinas_onnx.score(file, threads=1, providers="cpu", **options)
            status, number = str(result.status), result.score
        except epsinas_onnx.ModelError as error:
            status, number = type(error).__name__, None
        print(json.dumps([1e3 * (time.process_time() - started), status, number]), flush=True)


def written(folder: Path, name: str, model: Any) -> Path:
    """Write a network and return its file."""
    import onnx_ir as ir

    file = folder / f"{name}.onnx"
    file.write_bytes(ir.to_proto(model).SerializeToString())
    return file


def networks(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield the sections that were asked for, each with its files."""
    from epsinas_exporters import classics, spaces

    def cells(name: str, count: int) -> list[Path]:
        if name == "nasbench201" and options.nasbench201 is not None:
            return sorted(options.nasbench201.glob("*.onnx"))[:count]
        space = spaces.get(name)
        drawn = space.sample(count, options.seed)
        return [written(folder, space.file_name(arch).removesuffix(".onnx"), space.build(arch)) for arch in drawn]

    def classic(build: Callable[..., Any]) -> list[Path]:
        return [written(folder, f"{build.__name__}-{size}", build(size=size)) for size in (224, 448)]

    makers: dict[str, Callable[[], list[Path]]] = {
        "nasbench201": lambda: cells("nasbench201", options.networks),
        "nasbench101": lambda: cells("nasbench101", options.networks),
        "resnet50": lambda: classic(classics.resnet50),
        "mobilenet_v2": lambda: classic(classics.mobilenet_v2),
        "photographs": lambda: cells("nasbench201", min(options.networks, 8)),
        "sequences": lambda: [
            written(folder, "transformer", classics.transformer()),
            written(folder, "lstm", classics.lstm()),
        ],
        "files": lambda: [] if options.files is None else sorted(options.files.rglob("*.onnx")),
    }
    for name in options.only:
        if name in makers:
            yield name, makers[name]()


def compared(options: argparse.Namespace, folder: Path, ours: Side, theirs: Side | None, own: dict[str, Any]) -> None:
    """Print a row a network, and the geometric mean of each section's ratios."""
    for name, files in networks(options, folder):
        if not files:
            continue
        how = {"batch": options.batch, **GROUPS[name]}
        fed = "".join(f", {key} {value}" for key, value in GROUPS[name].items())
        print(f"\n{name}, batch {options.batch}{fed}; medians of {options.repeats}")
        print(f"{'network':34} {'older ms':>9} {'here ms':>9} {'ratio':>6}  older, here")
        ratios = []
        for file in files:
            rows = [
                (ours.score(file, {**how, **own}), None if theirs is None else theirs.score(file, how))
                for _ in range(options.repeats + 1)
            ][1:]  # the first pair warms up
            here = statistics.median(mine.cpu for mine, _ in rows)
            mine, other = rows[-1]
            if other is None:
                print(f"{file.stem:34} {'':>9} {here:9.1f} {'':>6}  {shown(mine)}", flush=True)
                continue
            there = statistics.median(old.cpu for _, old in rows if old is not None)
            ratios.append(there / here)
            print(
                f"{file.stem:34} {there:9.1f} {here:9.1f} {ratios[-1]:6.2f}  {shown(other)}, {shown(mine)}", flush=True
            )
        if ratios:
            print(f"{'geometric mean':34} {'':>9} {'':>9} {statistics.geometric_mean(ratios):6.2f}")


def shown(reply: Reply) -> str:
    """Return a score, or why there is none."""
    return reply.status if reply.score is None else f"{reply.score:.6f}"


def main() -> None:
    """Print the sections; `--only` picks them by name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="checkout of an older tree; without it nothing is compared")
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--networks", type=int, default=20, help="cells drawn from each search space")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--nasbench201", type=Path, help="folder of NAS-Bench-201 files instead of drawn ones")
    parser.add_argument("--files", type=Path, help="folder of further files, such as silero-vad's")
    parser.add_argument("--arithmetic", choices=("auto", "exact", "float32"), help="of this tree alone")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker()
        return
    own = {} if options.arithmetic is None else {"arithmetic": options.arithmetic}
    ours, theirs = Side(HERE), None if options.against is None else Side(options.against)
    with tempfile.TemporaryDirectory() as folder:
        compared(options, Path(folder), ours, theirs, own)
    for side in (ours, theirs):
        if side is not None:
            side.close()


if __name__ == "__main__":
    main()
