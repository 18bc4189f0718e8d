"""Times the plain graph against PyTorch on the same definition, side by side: `python benchmarks/plain.py`.

Both sides start from an architecture and end with two outputs at batch 256, both constants, with the same number of
threads: ours is ONNX bytes to score (load, roles, rewrite, sessions, runs), theirs builds the module, sets its weights
and runs it twice without gradients. They take turns, and the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import numpy as np
import onnx_ir as ir
import torch

from epsinas_exporters.spaces import nasbench201
from epsinas_onnx import normalised_dispersion, score
from epsinas_onnx.inputs.generate import grey_ramp
from torch_nasbench201 import Network, set_weights

WEIGHTS = (1e-7, 1.0)


def ours(data: bytes, batch: np.ndarray, threads: int) -> tuple[float, float | None]:
    """Return seconds and score of the plain graph."""
    started = time.perf_counter()
    result = score(data, weights=WEIGHTS, inputs=batch, lump=False, providers="cpu", threads=threads)
    return time.perf_counter() - started, result.score


def theirs(arch: str, batch: torch.Tensor) -> tuple[float, float | None]:
    """Return seconds and score of the PyTorch module."""
    started = time.perf_counter()
    network = Network(arch)
    outputs = []
    with torch.no_grad():
        for constant in WEIGHTS:
            set_weights(network, constant)
            outputs.append(network(batch).numpy())
    value = normalised_dispersion(*outputs)
    return time.perf_counter() - started, value if math.isfinite(value) else None


def main() -> None:
    """Print a row a network and the geometric mean of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batch = grey_ramp((options.batch, 3, 32, 32), 0)
    tensor = torch.from_numpy(batch)
    ratios = []
    print(f"batch {options.batch}, {options.threads} threads, torch {torch.__version__}; medians of {options.repeats}")
    print(f"{'network':32} {'ours s':>8} {'torch s':>8} {'ratio':>6} {'our score':>11} {'torch score':>11}")
    for arch in nasbench201.architectures()[: options.networks]:
        data = ir.to_proto(nasbench201.build(arch)).SerializeToString()
        ours(data, batch, options.threads)  # warms both sides up
        theirs(arch, tensor)
        pairs = [(ours(data, batch, options.threads), theirs(arch, tensor)) for _ in range(options.repeats)]
        ratio = statistics.median(b[0] / a[0] for a, b in pairs)
        ratios.append(ratio)
        mine, other = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
        scores = [f"{s:.6f}" if s is not None else "none" for s in (pairs[0][0][1], pairs[0][1][1])]
        name = nasbench201.file_name(arch).removesuffix(".onnx")
        print(f"{name:32} {mine:8.3f} {other:8.3f} {ratio:6.2f} {scores[0]:>11} {scores[1]:>11}", flush=True)
    print(f"geometric mean of the ratios torch/ours: {statistics.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
