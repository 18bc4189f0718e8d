"""Times other training-free scores against PyTorch, side by side: `python benchmarks/proxies.py`.

Both sides start from an architecture of NAS-Bench-201 (ours from the bytes of its file, theirs from its module) and end
with a score, or with all of them, of the same minibatch size on as many threads. They take turns by network, and a
ratio is the median of one side over that of the other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import onnx_ir as ir
import torch

from epsinas_exporters.spaces import nasbench201
from epsinas_onnx.proxies.measure import measure
from torch_nasbench201 import Network
from torch_proxies import SCORES, initialised


def ours(data: bytes, names: Sequence[str], options: argparse.Namespace) -> float:
    """Return the seconds that scores take from the bytes of a file."""
    started = time.perf_counter()
    found = measure(data, names, batch=options.batch, threads=options.threads)
    seconds = time.perf_counter() - started
    failed = [f"{one.name}: {one.reason}" for one in found if one.value is None]
    if failed:
        print("no number:", "; ".join(failed))
    return seconds


def theirs(arch: str, names: Sequence[str], options: argparse.Namespace) -> float:
    """Return the seconds that scores take from an architecture."""
    started = time.perf_counter()
    batch = torch.randn(options.batch, 3, 32, 32)
    for name in names:
        SCORES[name](initialised(Network(arch)), batch)
    return time.perf_counter() - started


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
    parser.add_argument("--only", nargs="*", default=list(SCORES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    archs = nasbench201.sample(options.networks, options.seed)
    files = [ir.to_proto(nasbench201.build(arch)).SerializeToString() for arch in archs]
    print(f"NAS-Bench-201, batch {options.batch}, {options.threads} thread(s), torch {torch.__version__}; medians of")
    print(f"{options.repeats} runs of each of {options.networks} networks, wall clock")
    print(f"{'score':16} {'ours ms':>9} {'torch ms':>9} {'ratio':>7}")
    for names in [[name] for name in options.only] + ([list(options.only)] if len(options.only) > 1 else []):
        row(
            names[0] if len(names) == 1 else "all together",
            lambda index, names=names: ours(files[index], names, options),  # type: ignore[misc]
            lambda index, names=names: theirs(archs[index], names, options),  # type: ignore[misc]
            options,
        )


if __name__ == "__main__":
    main()
