"""Finds out which execution providers really make a session: that one is listed says nothing of its libraries."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from epsinas_onnx.runtime.libraries import CUDA, TENSORRT, missing
from epsinas_onnx.runtime.providers import CPU, runtime


@dataclass(frozen=True)
class ProviderState:
    """Whether a provider runs a graph. seconds: of making a session and running it, None where it does not run."""

    name: str
    works: bool
    reason: str | None
    seconds: float | None


def try_providers() -> list[ProviderState]:
    """Return the state of every provider that the installed ONNX Runtime lists, CPU included.

    Raises MissingRuntime where there is no ONNX Runtime.
    """
    ort = runtime()
    graph = _graph()
    wanted = [name for name in ort.get_available_providers() if name in (CPU, CUDA, TENSORRT)]
    return [_tried(ort, name, graph) for name in wanted]


def _tried(ort: Any, name: str, graph: bytes) -> ProviderState:
    lacks = missing(name)
    if lacks is not None:
        return ProviderState(name, False, lacks, None)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    started = time.perf_counter()
    try:
        session = ort.InferenceSession(graph, options, providers=[name])
        if name not in session.get_providers():
            return ProviderState(name, False, "ONNX Runtime fell back to the CPU", None)
        (given,) = session.run(None, {"x": np.ones((1, 1, 4, 4), np.float32)})
    except Exception as error:  # ONNX Runtime raises its own kinds, all derived from Exception
        return ProviderState(name, False, " ".join(str(error).split())[:300], None)
    if not np.allclose(given, 4.0):
        return ProviderState(name, False, f"gives {given.reshape(-1)[0]:g} where 4 is right", None)
    return ProviderState(name, True, None, time.perf_counter() - started)


def _graph() -> bytes:
    """Return a graph of one convolution, which every provider has a kernel for."""
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 2, 2], [1.0] * 4)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None, None]) for name in "xy"]
    graph = helper.make_graph([node], "doctor", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())
