"""Times other training-free scores against PyTorch, side by side: `python benchmarks/proxies.py`.

Both sides start from an architecture of NAS-Bench-201 (ours from the bytes of its file, theirs from its module) and end
with a score, or with all of them, of the same minibatch size on as many threads. They take turns by network, and a
ratio is the median of one side over that of the other. `--clock cpu` counts processor time, for a machine that is busy.

What the two sides do is not the same in three places. Ours reads, checks and understands a file, where theirs knows the
network already: the row `read or build` is what either takes before any score, drawing of weights included for theirs.
MeCo is that of one sample of the minibatch, and both sides run the minibatch for it; the published code runs one sample
alone, which is the row `meco of one` (ours is the same there). Theirs builds and draws the module again for each score,
as they change it (synflow, zen), also in `all together`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import onnx_ir as ir
import torch

from epsinas_exporters.spaces import nasbench201
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.proxies.measure import measure
from torch_nasbench201 import Network
from torch_proxies import SCORES, built, initialised, meco_of_one

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
BUILD, ONE = "read or build", "meco of one"
THEIRS = {**SCORES, BUILD: built, ONE: meco_of_one}


def ours(data: bytes, names: Sequence[str], options: argparse.Namespace) -> float:
    """Return the seconds that scores take from the bytes of a file."""
    clock = CLOCKS[options.clock]
    started = clock()
    if names == [BUILD]:
        load_model(data)
        return clock() - started
    scores = ["meco" if name == ONE else name for name in names]
    found = measure(data, scores, batch=options.batch, threads=options.threads)
    seconds = clock() - started
    failed = [f"{one.name}: {one.reason}" for one in found if one.value is None]
    if failed:
        print("no number:", "; ".join(failed))
    return seconds


def theirs(arch: str, names: Sequence[str], options: argparse.Namespace) -> float:
    """Return the seconds that scores take from an architecture."""
    clock = CLOCKS[options.clock]
    started = clock()
    batch = torch.randn(options.batch, 3, 32, 32)
    for name in names:
        THEIRS[name](initialised(Network(arch)), batch)
    return clock() - started


def row(label: str, mine: Callable[[int], float], other: Callable[[int], float], options: argparse.Namespace) -> float:
    """Print medians over the networks, and return their ratio."""
    pairs = []
    for index in range(options.networks):
        mine(index), other(index)  # warms both sides up
        pairs += [(mine(index), other(index)) for _ in range(options.repeats)]
    here, there = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    print(f"{label:16} {1e3 * here:9.1f} {1e3 * there:9.1f} {there / here:7.2f}", flush=True)
    return there / here


def main() -> None:
    """Print a row a score, and one of all together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--only", nargs="*", default=list(SCORES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    archs = nasbench201.sample(options.networks, options.seed)
    files = [ir.to_proto(nasbench201.build(arch)).SerializeToString() for arch in archs]
    print(f"NAS-Bench-201, batch {options.batch}, {options.threads} thread(s), torch {torch.__version__}; medians of")
    print(f"{options.repeats} runs of each of {options.networks} networks, {options.clock} clock")
    print(f"{'score':16} {'ours ms':>9} {'torch ms':>9} {'ratio':>7}")
    rows = [[name] for name in options.only]
    if len(rows) > 1:
        rows = [[BUILD], *rows, *([[ONE]] if "meco" in options.only else []), list(options.only)]
    for names in rows:
        row(
            names[0] if len(names) == 1 else "all together",
            lambda index, names=names: ours(files[index], names, options),  # type: ignore[misc]
            lambda index, names=names: theirs(archs[index], names, options),  # type: ignore[misc]
            options,
        )


if __name__ == "__main__":
    main()
