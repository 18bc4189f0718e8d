"""Estimates what a graph costs: multiply-adds of the user's and of the lowered graph, and the lowered one's memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from epsinas_onnx.lump.graph import LoweredGraph, Node
from epsinas_onnx.lump.value import Dims, Tensor


def peak_bytes(graph: LoweredGraph, outputs: Sequence[Tensor]) -> tuple[int, str]:
    """Return the most bytes that live tensors of one run take together, and the name of the largest tensor."""
    live = graph.live_nodes(outputs)
    end = len(live)
    last: dict[Tensor, int] = dict.fromkeys(outputs, end)
    for index, node in enumerate(live):
        for tensor in node.inputs:
            if tensor is not None:
                last[tensor] = max(last.get(tensor, 0), index)
    change = [0] * (end + 2)
    largest, name = 0, ""
    for tensor in graph.inputs:
        change[0] += _bytes(tensor)
        largest, name = max((largest, name), (_bytes(tensor), tensor.name))
    for index, node in enumerate(live):
        if node.op_type == "Reshape":  # shares the memory of its operand
            continue
        for tensor in node.outputs:
            size = _bytes(tensor)
            largest, name = max((largest, name), (size, tensor.name))
            change[index] += size
            change[last.get(tensor, index) + 1] -= size
    peak = current = 0
    for delta in change:
        current += delta
        peak = max(peak, current)
    return peak, name


def multiply_adds(nodes: Iterable[Node]) -> int:
    """Return the multiply-adds of the convolutions and matrix products among nodes of a lowered graph."""
    total = 0
    for node in nodes:
        dims = [None if tensor is None else tensor.shape for tensor in node.inputs]
        total += products(node.op_type, dims, node.outputs[0].shape if node.outputs else None)
    return total


def products(op_type: str, operands: Sequence[Dims | None], output: Dims | None) -> int:
    """Return how many products one operator adds up; 0 for what is no convolution or matrix product, or unknown."""
    if output is None or len(operands) < 2 or operands[0] is None or operands[1] is None:
        return 0
    if op_type == "Conv":
        return math.prod(output) * math.prod(operands[1][1:])
    if op_type == "ConvTranspose":
        return math.prod(operands[0]) * math.prod(operands[1][1:])
    if op_type in ("MatMul", "FusedMatMul"):
        return math.prod(output) * operands[0][-1]
    if op_type == "Gemm":
        return math.prod(output) * (math.prod(operands[0]) // max(1, output[0]))
    return 0


def _bytes(tensor: Tensor) -> int:
    return math.ceil(tensor.elements * tensor.dtype.itemsize) if tensor.shape is not None else 0
