"""Measures what the store costs a network: CPU time and bytes, over architectures of NAS-Bench-201.

    python benchmarks/store.py [--networks 1000] [--scored 100]

The store is measured with scores that are there already, so that nothing else is in the figures; what scoring
takes is measured on the first --scored of them. CPU time of one process and its threads, since machines are shared.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from epsinas_exporters import spaces
from epsinas_onnx.scoring.api import score_many
from epsinas_onnx.scoring.limits import NO_LIMITS
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.store.going_on import going_on
from epsinas_onnx.store.network import network_of
from epsinas_onnx.store.sources import source_of
from epsinas_onnx.store.store import Store

BATCH = 256


def main() -> None:
    """Print a line for each thing that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--scored", type=int, default=100)
    wanted = parser.parse_args()
    space = spaces.get("nasbench201")
    networks = [space.network(arch) for arch in space.sample(wanted.networks, seed=0)]
    with tempfile.TemporaryDirectory() as folder:
        _measure(networks, wanted.scored, Path(folder))


def _measure(networks: Sequence[Any], scored: int, folder: Path) -> None:
    few = networks[:scored]
    list(score_many(few[:3], batch=BATCH, threads=1))  # libraries are loaded
    scores: list[Score] = []
    _say("scoring, without a store", len(few), lambda: scores.extend(score_many(few, batch=BATCH, threads=1)))
    options = ScoreOptions(batch=BATCH)

    def ready(models: Iterable[Any], names: Sequence[str]) -> Iterator[tuple[int, Score]]:
        for index, model in enumerate(models):
            yield index, dataclasses.replace(scores[index % len(scores)], model=model.name)

    path = folder / "results.db"

    def run() -> None:
        with Store(path) as store:
            for _ in going_on(networks, options, store, ready, isolated=False, limits=NO_LIMITS):
                pass

    _say("the store: looked up, and written", len(networks), run)
    print(f"{'bytes of the store a network':36} {path.stat().st_size / len(networks):8.0f}")
    _say("the store: found", len(networks), run)
    files = []
    for network in few[:50]:
        files.append(folder / f"{len(files)}.onnx")
        ir.save(network.build(), files[-1])
    _say("a file: its bytes", len(files), lambda: [source_of(file) for file in files])
    _say("a file: which network it is", len(files), lambda: [network_of(file) for file in files])


def _say(what: str, count: int, work: Callable[[], Any]) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    used, passed = time.process_time() - cpu, time.perf_counter() - started
    print(f"{what:36} {1e3 * used / count:8.3f} ms CPU a network ({count:,}; {passed:.1f} s on the wall)", flush=True)


if __name__ == "__main__":
    main()
