"""Makes the nodes that a pass adds to a graph, under names that cannot clash with a user's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

PREFIX = "epsinas."
"""Every value that the rewriter adds is called so; none of them is part of the user's graph."""


class Emitter:
    """Collects the nodes that a rewrite puts in front of a node, with names that cannot clash."""

    def __init__(self, opset: int, prefix: str = PREFIX) -> None:
        self.opset = opset
        self._prefix = prefix
        self.nodes: list[ir.Node] = []
        self._count = 0

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], name: str = "", **attributes: object) -> ir.Value:
        """Append a node and return its output; `name` makes the output the user's own."""
        label = name or self._fresh(op_type)
        given = [
            value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(key, value)  # type: ignore[arg-type]
            for key, value in attributes.items()
        ]
        node = ir.Node(
            "", op_type, inputs, given,
            name=label, outputs=[ir.Value(name=label)],
        )  # fmt: skip
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, array: np.ndarray) -> ir.Value:
        """Return a Constant node's output that holds `array`."""
        tensor = ir.Tensor(array)
        made = self.op("Constant", [], value=ir.AttrTensor("value", tensor))
        made.type, made.shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
        return made

    def reshape(self, value: ir.Value | None, shape: Sequence[int]) -> ir.Value:
        """Append a Reshape; -1 stands for what is left."""
        return self.op("Reshape", [value, self.constant(np.asarray(shape, np.int64))])

    def reduce_mean(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Append a ReduceMean that keeps its dimensions; the axes became an input with operator set 18."""
        if self.opset >= 18:
            return self.op("ReduceMean", [value, self.constant(np.asarray(axes, np.int64))])
        return self.op("ReduceMean", [value], axes=list(axes))

    def fill(self, scalar: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Append a tensor of `shape` full of `scalar`; Expand came with operator set 8, Tile serves the older one."""
        target = self.constant(np.asarray(shape, np.int64))
        if self.opset >= 8:
            full = self.op("Expand", [scalar, target])
        else:
            ones = self.constant(np.ones(len(shape), np.int64))
            full = self.op("Tile", [self.op("Reshape", [scalar, ones]), target])
        full.type, full.shape = scalar.type, ir.Shape(shape)
        return full

    def take(self) -> list[ir.Node]:
        """Return the nodes collected so far and start anew."""
        nodes, self.nodes = self.nodes, []
        return nodes

    def _fresh(self, op_type: str) -> str:
        self._count += 1
        return f"{self._prefix}{op_type}.{self._count}"
