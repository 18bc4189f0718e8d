"""Estimates what a graph costs: multiply-adds of the user's and of the lowered graph, and the lowered one's memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from epsinas_onnx.lump.graph import LoweredGraph, Node, reads
from epsinas_onnx.lump.value import Dims, Tensor


def peak_bytes(graph: LoweredGraph, outputs: Sequence[Tensor]) -> tuple[int, str]:
    """Return the most bytes that live tensors of one run take together, and the name of the largest tensor."""
    live = graph.live_nodes(outputs)
    end = len(live)
    owner: dict[Tensor, Tensor] = {}  # a reshape shares the memory of its operand, which lives as long as it does
    last: dict[Tensor, int] = {}
    for index, node in enumerate(live):
        for tensor in reads(node):
            last[owner.get(tensor, tensor)] = index
        if node.op_type == "Reshape" and node.inputs[0] is not None:
            owner[node.outputs[0]] = owner.get(node.inputs[0], node.inputs[0])
    for tensor in outputs:
        last[owner.get(tensor, tensor)] = end
    change = [0] * (end + 2)
    largest, name = 0, ""
    for tensor in graph.inputs:
        change[0] += _bytes(tensor)
        largest, name = max((largest, name), (_bytes(tensor), tensor.name))
    for index, node in enumerate(live):
        if node.op_type == "Reshape":
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
    """Return the multiply-adds of the convolutions, matrix products and recurrences among nodes of a lowered graph."""
    total = 0
    for node in nodes:
        dims = [None if tensor is None else tensor.shape for tensor in node.inputs]
        total += products(node.op_type, dims, node.outputs[0].shape if node.outputs else None)
    return total


RECURRENT = frozenset({"RNN", "GRU", "LSTM"})
MULTIPLYING = frozenset({"Conv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm"}) | RECURRENT
"""The operators whose products are counted."""


def products(op_type: str, operands: Sequence[Dims | None], output: Dims | None) -> int:
    """Return how many products one operator adds up: convolution, matrix product or recurrence; 0 for any other."""
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
    if op_type in RECURRENT and len(operands) > 2 and operands[2] is not None:
        return math.prod(operands[0][:2]) * (math.prod(operands[1]) + math.prod(operands[2]))
    return 0


def _bytes(tensor: Tensor) -> int:
    return math.ceil(tensor.elements * tensor.dtype.itemsize) if tensor.shape is not None else 0
