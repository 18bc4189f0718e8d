"""Tells how many axes values have, and has shapes inferred when that is first asked of a value without one."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir


class Ranks:
    """How many axes the values of a model have, the same whether its shapes were inferred before or not.

    infer: infers them, None where that was done. What is decided by ranks is asked of few graphs, and inference costs
    more than everything else that is done with a convolutional one.
    """

    def __init__(self, infer: Callable[[], None] | None = None) -> None:
        self._infer = infer

    @property
    def inferred(self) -> bool:
        """Whether all shapes are inferred by now."""
        return self._infer is None

    def of(self, value: ir.Value | None) -> int | None:
        """Return the number of axes, None where it cannot be told."""
        if value is not None and value.shape is None and self._infer is not None:
            self._infer()
            self._infer = None
        return rank_of(value)


# The first operand of these gives the output its rank, where inference lost it.
_KEEPS_RANK = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu", "Softplus",
     "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "InstanceNormalization", "Dropout", "Cast",
     "Identity", "Pad", "Resize", "Upsample", "Concat", "Softmax"}
)  # fmt: skip


def rank_of(value: ir.Value | None) -> int | None:
    """Return how many axes a value has: as inferred, or as the convolution in front of it tells; None if unknown."""
    while value is not None:
        if value.shape is not None:
            return len(value.shape)
        node = value.producer()
        if node is None or not node.inputs:
            return None
        if node.op_type in ("Conv", "ConvTranspose") and len(node.inputs) > 1:
            value = node.inputs[1]
        elif node.op_type in ("Add", "Sub", "Mul", "Div"):
            ranks = [rank_of(operand) for operand in node.inputs]
            known = [rank for rank in ranks if rank is not None]
            return max(known) if known and (len(known) == len(ranks) or max(known) > 2) else None
        elif node.op_type in _KEEPS_RANK:
            value = node.inputs[0]
        else:
            return None
    return None
