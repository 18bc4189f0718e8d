"""Tells which axis of a value holds its channels, wherever an exporter puts them."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.proxies.prepared import Prepared

_SECOND = frozenset(
    {"Conv", "ConvTranspose", "AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool",
     "InstanceNormalization", "GroupNormalization", "BatchNormalization"}
)  # fmt: skip
"""Operators whose channels are axis 1."""
_LAST = frozenset({"MatMul", "Gemm"})
_KEEP = frozenset(
    {"Add", "Sub", "Mul", "Div", "Sum", "Pow", "Sqrt", "Max", "Min", "Where", "Identity", "Cast", "Dropout", "Pad",
     "Concat", "Resize", "Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "Celu", "ThresholdedRelu", "Softplus",
     "Softsign", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu", "Mish", "Swish", "QuickGelu",
     "LayerNormalization", "RMSNormalization", "LRN"}
)  # fmt: skip
"""Operators whose result has its channels where an operand of as many axes has them."""


def channel_axis(prepared: Prepared, value: ir.Value) -> int | None:
    """Return the axis of a value's channels, None where its rank is unknown or it has no axis behind the samples.

    It is followed back to a convolution or pooling, where it is axis 1, or to a matrix product, where it is the last,
    through permutations and what computes each entry alone. Where none is found it is the last of three axes, else axis
    1.
    """
    shape = prepared.shape(value)
    if shape is None or len(shape) < 2:
        return None
    rank = len(shape)
    moves: list[list[int]] = []
    current: ir.Value | None = value
    seen = set()
    while current is not None and current not in seen:
        seen.add(current)
        node = current.producer()
        axis = None
        if node is None:
            break
        if node.op_type in _SECOND:
            axis = 1
        elif node.op_type in _LAST:
            axis = rank - 1
        elif node.op_type == "Transpose":
            moves.append(list(node.attributes.get_ints("perm", list(range(rank))[::-1])))
            current = node.inputs[0]
            continue
        elif node.op_type not in _KEEP:
            break
        if axis is not None:
            for move in reversed(moves):
                axis = move.index(axis)
            return axis
        signal = [v for v in node.inputs if v is not None and v not in prepared.static]
        current = next((v for v in signal if len(prepared.shape(v) or ()) == rank), None)
    return rank - 1 if rank == 3 else 1
