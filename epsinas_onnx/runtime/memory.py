"""Estimates what a run will need, and refuses before anything is allocated."""

from __future__ import annotations

import math

import onnx_ir as ir

from epsinas_onnx._util.memory import available_bytes, readable
from epsinas_onnx.errors import OutOfMemory
from epsinas_onnx.graph.analysis.shapes import known_shape

_LITTLE = 2**25
"""Bytes that are not worth the question how many are left, which takes a hundredth of a small network's time."""


def peak_bytes(model: ir.Model) -> tuple[int, str]:
    """Return an estimate of the bytes that a run of the main graph holds at its peak, and the largest value's name.

    Weights live from start to end, twice, because ONNX Runtime keeps a packed copy beside them; every other value
    lives from its producer to its last use. Values whose shape inference does not know count as nothing, so this is a
    lower bound.
    """
    order = {node: index for index, node in enumerate(model.graph)}
    end = len(order)
    change = [0] * (end + 2)
    largest, name = 0, ""
    for value in (*model.graph.inputs, *(output for node in order for output in node.outputs)):
        size = _bytes(value)
        if size > largest:
            largest, name = size, str(value.name)
        producer = value.producer()
        first = 0 if producer is None else order[producer]
        uses = [order.get(use.node, end) for use in value.uses()]
        change[first] += size
        change[max([first, *uses]) + 1 if not value.is_graph_output() else end + 1] -= size
    peak = current = 0
    for delta in change:
        current += delta
        peak = max(peak, current)
    weights = sum(_bytes(output) for node in order if node.op_type in ("Expand", "Tile") for output in node.outputs)
    return peak + weights, name


def refuse_if_too_large(estimate: tuple[int, str], name: str, jobs: int = 1) -> None:
    """Raise OutOfMemory when `jobs` runs at a time need more than the memory that is left.

    estimate: bytes of one run at its peak, and the largest value's name.
    """
    needed, largest = estimate
    if needed * jobs <= _LITTLE:
        return
    free = available_bytes()
    if needed * jobs > free:
        raise OutOfMemory(
            f"{name}: needs about {readable(needed)} of memory (largest tensor: {largest!r}) and {readable(free)} is "
            f"left for {jobs} job(s); lower --batch, give smaller shapes with --shape or --dim, or use fewer --jobs"
        )


def _bytes(value: ir.Value) -> int:
    shape = known_shape(value)
    if shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return 0
    return math.ceil(math.prod(shape) * value.dtype.itemsize)
