"""Measures what a score of a small network takes here, stage by stage, and what the machine's arithmetic gives."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
import onnx

_SIDE = 512
_RUNS = 5


def import_seconds() -> float | None:
    """Return how long a new Python takes until it can score; None where none can be started."""
    started = time.perf_counter()
    try:
        subprocess.run([sys.executable, "-c", "import epsinas_onnx.scoring.api"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return time.perf_counter() - started


def gigaflops() -> float:
    """Return how many multiply-adds, in thousands of millions a second, NumPy's matrix product does on one thread."""
    from epsinas_onnx.runtime.blas import single_threaded

    matrix = np.ones((_SIDE, _SIDE), np.float64)
    with single_threaded():
        return _SIDE**3 / _fastest(lambda: matrix @ matrix) / 1e9


def score_seconds() -> Mapping[str, float]:
    """Return the seconds of each stage of a score of a residual network of ten convolutions, batch 256."""
    from epsinas_onnx.scoring.api import score

    model = _network()
    score(model, threads=1, providers="cpu")
    found = min((score(model, threads=1, providers="cpu").seconds for _ in range(3)), key=lambda s: sum(s.values()))
    return dict(found)


def _fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return max(min(times), 1e-9)


def _network() -> onnx.ModelProto:
    from onnx import TensorProto, helper

    nodes, weights, x = [], [], "x"
    for layer in range(10):
        name, channels = f"conv{layer}", 3 if layer == 0 else 16
        weights.append(helper.make_tensor(f"{name}.w", TensorProto.FLOAT, [16, channels, 3, 3], [0.1] * 144 * channels))
        nodes.append(helper.make_node("Conv", [x, f"{name}.w"], [name], name=name, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [name], [f"relu{layer}"], name=f"relu{layer}"))
        if layer:
            nodes.append(helper.make_node("Add", [f"relu{layer}", x], [f"add{layer}"], name=f"add{layer}"))
        x = nodes[-1].output[0]
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["y"], name="pool"))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "doctor", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
