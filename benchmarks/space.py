"""Scores a search space as `evaluate` does, beside an independent PyTorch: `python benchmarks/space.py nasbench201`.

Every architecture, the space's own batch and constants, `--jobs` worker processes. Half of the PyTorch networks (build,
set the weights, run, both constants, without gradients, on as many threads) are timed before and half after, and the
ratio is their time for all architectures over ours. Scores of these networks are compared. The memory of each process
is looked at every second.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import torch

import torch_nasbench101
import torch_nasbench201
import torch_nasbenchnlp
import torch_spaces
from epsinas_exporters.spaces import SearchSpace, get, nasbench101
from epsinas_onnx import inspect, normalised_dispersion
from epsinas_onnx.evaluation.families import records_of
from epsinas_onnx.graph.analysis.roles import Role
from epsinas_onnx.inputs.generate import grey_ramp
from epsinas_onnx.inputs.given import read_given
from epsinas_onnx.scoring.process import prepare

SHARED = Path(__file__).parents[2] / "shared" / "data"
TABLES = {
    "nasbench201": "nasbench201.csv.gz",
    "nasbench101": "nasbench101_subset.csv.gz",
    "nasbenchnlp": "nasbenchnlp_ptb.csv.gz",
    "nasbenchmacro": "nasbenchmacro_cifar10.csv.gz",
}
Forward = Callable[[float], np.ndarray]
"""The outputs of one architecture for a constant."""


def architectures(space: SearchSpace, sample: int | None, seed: int) -> list[str]:
    """Return the architectures of the table in `../shared`, each once, or of the space where there is none."""
    path = SHARED / TABLES.get(space.name, "missing")
    if not path.exists():
        return space.sample(sample, seed) if sample else list(space.enumerate())
    with gzip.open(path, "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("test_loss", "1") not in ("", "nan")]
    if sample and sample < len(rows):
        rows = [rows[i] for i in np.random.default_rng(seed).choice(len(rows), sample, replace=False)]
    found: dict[str, None] = {}
    for row in rows:
        try:
            found[space.from_row(row)] = None
        except ValueError:  # a recipe that the benchmark itself could not build
            continue
    return list(found)


def independent(space: SearchSpace, arch: str, batch: np.ndarray) -> Forward:
    """Return PyTorch's implementation of an architecture, which is built when it is called."""
    tensor = torch.from_numpy(np.ascontiguousarray(batch))

    def module() -> torch.nn.Module:
        match space.name:
            case "nasbench201":
                return torch_nasbench201.Network(arch)
            case "nasbench101":
                cell = nasbench101.parse(arch)
                return torch_nasbench101.Network(cell.matrix, cell.operations, 128, 3, 3, 1)
        return torch_spaces.Macro(arch, 1)

    def forward(constant: float) -> np.ndarray:
        network = module()
        torch_nasbench201.set_weights(network, constant)
        with torch.no_grad():
            return network.train()(tensor).numpy()

    if space.name != "nasbenchnlp":
        return forward
    uses = inspect(space.build(arch), batch=2).uses
    shapes = {use.tensor: use.shape for use in uses if use.role != Role.CONSTANT and use.shape is not None}

    def language_model(constant: float) -> np.ndarray:
        with torch.no_grad():
            parameters = {name: torch.full(shape, constant) for name, shape in shapes.items()}
            parameters["embedding.weight"].uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(0))
            return torch_nasbenchnlp.run(json.loads(arch), parameters, batch, layers=3).numpy()

    return language_model


class Memory:
    """The largest resident sizes of this process and its workers, looked at every second, in MB."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._stop.wait(1.0):
            workers = [0.0]
            for child in own.children(recursive=True):
                try:
                    workers.append(child.memory_info().rss / 2**20)
                except psutil.Error:
                    continue
            self.seen.append((time.perf_counter() - self._started, own.memory_info().rss / 2**20, max(workers)))

    def text(self) -> str:
        """Return the largest worker in each quarter of the run, and the parent at its end."""
        if not self.seen:
            return "shorter than a second"
        whole = self.seen[-1][0]
        quarters = [
            max((worker for at, _, worker in self.seen if q <= 4 * at / whole <= q + 1), default=0.0) for q in range(4)
        ]
        largest = ", ".join(f"{quarter:,.0f}" for quarter in quarters)
        return f"largest worker in each quarter {largest} MB; the parent {max(p for _, p, _ in self.seen):,.0f} MB"


def timed_torch(networks: Sequence[Forward], weights: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield seconds and score of each architecture in PyTorch."""
    for forward in networks:
        started = time.perf_counter()
        value = normalised_dispersion(*map(forward, weights))
        yield time.perf_counter() - started, value


def breakdown(records: Sequence[Mapping[str, Any]], wall: float, jobs: int) -> dict[str, float]:
    """Return seconds of all workers by stage, and what is left: start, hand-over, waiting."""
    stages: Counter[str] = Counter()
    for record in records:
        stages.update({name: seconds for name, seconds in record["seconds"].items() if name != "total"})
    return {**stages, "the rest": wall * jobs - sum(stages.values())}


def main() -> None:
    """Print rates, coverage, memory, the breakdown and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", choices=list(TABLES))
    parser.add_argument("--sample", type=int, help="this many architectures of the table, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batch", type=int, help="the space's own otherwise")
    parser.add_argument("--input", help="a kind, or a file of arrays; the space's own otherwise")
    parser.add_argument("--output", type=Path, help="JSON for docs/pictures/performance.py")
    parser.add_argument("--torch", type=int, default=20, help="networks that PyTorch runs too; 0 for none")
    options = parser.parse_args()
    space = get(options.space)
    weights, batch = space.defaults.weights, options.batch or space.defaults.batch
    inputs = options.input or space.defaults.input
    archs = architectures(space, options.sample, options.seed)
    chosen = [archs[i] for i in np.random.default_rng(1).choice(len(archs), min(options.torch, len(archs)), False)]
    torch.set_num_threads(options.jobs)
    fed = _fed(space, inputs, batch)
    others = [independent(space, arch, fed) for arch in chosen]
    half = len(chosen) // 2
    theirs = list(timed_torch(others[:half], weights))
    print(f"{space.name}: {len(archs):,} architectures, batch {batch}, input {options.input or inputs}, constants "
          f"{weights[0]:g} and {weights[1]:g}, {options.jobs} processes; onnxruntime {onnxruntime.__version__}, "
          f"torch {torch.__version__}", flush=True)  # fmt: skip
    prepare(["epsinas_onnx.scoring.workers"])
    keywords: dict[str, Any] = {"weights": weights, "inputs": inputs, "batch": batch, "jobs": options.jobs, "seed": 0}
    networks = [space.network(arch) for arch in archs]
    started = time.perf_counter()
    with Memory() as memory:
        records = list(records_of(networks, (), {}, keywords))
    wall = time.perf_counter() - started
    theirs += list(timed_torch(others[half:], weights))
    run = [record for record in records if "total" not in record["seconds"]]
    print(
        f"{wall:.1f} s, {len(archs) / wall:.1f} networks a second; {len(run):,} were run, the others share their score"
    )
    for name, key in (("status", "status"), ("status in float32", "float32_status")):
        told = Counter(str(record.get(key)) for record in records).most_common()
        print(f"{name}: " + ", ".join(f"{count:,} {status}" for status, count in told))
    print(f"memory: {memory.text()}")
    stages = breakdown(run, wall, options.jobs)
    print("worker time by stage:")
    for name, seconds in stages.items():
        print(f"  {name:10} {seconds:8.1f} s {seconds / (wall * options.jobs):6.1%}")
    if options.output is not None:
        before = json.loads(options.output.read_text()) if options.output.exists() else {}
        label = f"{space.name}, {'photographs' if options.input else inputs}"
        kept = {"architectures": len(archs), "run": len(run), "wall": round(wall, 1), "jobs": options.jobs}
        shares = {name: round(seconds, 1) for name, seconds in stages.items()}
        before.setdefault("spaces", {})[label] = {**kept, "stages": shares}
        options.output.write_text(json.dumps(before, indent=1) + "\n")
    if theirs:
        known = {record["model"]: record for record in records} if inputs not in ("normal", "tokens") else {}
        print(compared(theirs, [known.get(arch, {}) for arch in chosen], wall, len(archs)))


def _fed(space: SearchSpace, inputs: str, batch: int) -> np.ndarray:
    """Return what PyTorch is fed: the same minibatch."""
    if space.name == "nasbenchnlp":
        return np.random.default_rng(0).integers(0, 10_000, (batch, 70))
    if inputs == "grey":
        return np.asarray(grey_ramp((batch, 3, 32, 32), 0))
    if inputs == "normal":
        return np.random.default_rng(0).standard_normal((batch, 3, 32, 32), np.float32)
    arrays = read_given(inputs)
    assert isinstance(arrays, dict), "name a file of arrays, not a folder"
    return np.asarray(next(iter(arrays.values())), np.float32)[:batch]


def compared(theirs: Sequence[tuple[float, float]], ours: Sequence[Mapping[str, Any]], wall: float, count: int) -> str:
    """Return the ratio, and how far scores are apart that both have. ours: records, empty where the inputs differ."""
    seconds = [one[0] for one in theirs]
    apart = [
        abs(value - record["score"]) / abs(value)
        for record, (_, value) in zip(ours, theirs, strict=True)
        if math.isfinite(value) and value and record.get("float32_status") == "ok"
    ]
    expected = statistics.fmean(seconds) * count
    return (
        f"PyTorch on {len(theirs)}: {statistics.fmean(seconds):.2f} s a network ({min(seconds):.2f} to "
        f"{max(seconds):.2f}), {expected / 3600:.1f} h for all; ratio {expected / wall:.0f}\n"
        f"scores of both: {len(apart)}, largest relative difference {max(apart, default=math.nan):.1e}"
    )


if __name__ == "__main__":
    main()
