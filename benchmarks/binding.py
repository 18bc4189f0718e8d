"""Times a constant that is bound into the graph against one that is fed, in turns: `python benchmarks/binding.py`.

Bound, ONNX Runtime folds the weights into its kernels and needs a session for each constant; fed, it makes the weights
at run time and one session serves both. Both columns count sessions and runs for two constants.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import onnx_ir as ir

from epsinas_exporters.spaces import nasbench201
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.inputs.generate import grey_ramp
from epsinas_onnx.runtime.providers import CPU
from epsinas_onnx.runtime.session import Engine, bind_constant, to_proto
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plain_graph, plan

BATCH, REPEATS, NETWORKS = 256, 3, 4


def seconds(model: ir.Model, binds: bool) -> float:
    """Return the seconds of two sessions or one, and two runs."""
    prepared = plain_graph(plan(load_model(model), BATCH, GraphOptions()))
    proto = to_proto(prepared.model, "network")
    engine = Engine(lambda weight: bind_constant(proto, weight) if binds else proto, "network", [CPU], 2, binds)
    feeds = {"input": grey_ramp((BATCH, 3, 32, 32), 0)}
    started = time.perf_counter()
    for constant in (1e-7, 1.0):
        engine.run(np.asarray(constant, np.float32), feeds, prepared.outputs)
    return time.perf_counter() - started


def main() -> None:
    """Print a row a network and the geometric mean of the ratios."""
    ratios = []
    print(f"batch {BATCH}, 2 threads; medians of {REPEATS}")
    print(f"{'network':32} {'bound s':>8} {'fed s':>8} {'ratio':>6}")
    for arch in nasbench201.architectures()[:NETWORKS]:
        model = nasbench201.build(arch)
        pairs = [(seconds(model, True), seconds(model, False)) for _ in range(REPEATS + 1)][1:]
        ratios.append(statistics.median(fed / bound for bound, fed in pairs))
        bound, fed = (statistics.median(column) for column in zip(*pairs, strict=True))
        name = nasbench201.file_name(arch).removesuffix(".onnx")
        print(f"{name:32} {bound:8.3f} {fed:8.3f} {ratios[-1]:6.2f}", flush=True)
    print(f"geometric mean of the ratios fed/bound: {statistics.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
