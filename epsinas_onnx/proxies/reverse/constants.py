"""Tells what values hold that are stored, or that follow from stored ones and from shapes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.evaluate import evaluate
from epsinas_onnx.proxies.reverse.writer import Array

_MOST = 2**22
"""Entries of the largest value that is computed ahead; a larger one that is stored is read where it is."""


class Constants:
    """The values of a graph that do not depend on its inputs, each computed once."""

    def __init__(self, imports: Mapping[str, int]) -> None:
        self._imports = imports
        self._known: dict[ir.Value, Array | None] = {}

    def of(self, value: ir.Value) -> Array | None:
        """Return what a value holds, None where it is not known before a run."""
        if value not in self._known:
            self._known[value] = None  # until it is found: a chain that never ends is unknown
            pending = [value]
            while pending:
                current = pending[-1]
                missing = [v for v in self._operands(current) if v not in self._known]
                if missing:
                    self._known.update(dict.fromkeys(missing))
                    pending += missing
                else:
                    self._known[pending.pop()] = self._compute(current)
        return self._known[value]

    def note(self, value: ir.Value, array: Array) -> None:
        """Remember what a value holds."""
        self._known[value] = array

    def _operands(self, value: ir.Value) -> list[ir.Value]:
        node = value.producer()
        if node is None or node.op_type in ("Constant", "Shape", "Size") or value.const_value is not None:
            return []
        return [operand for operand in node.inputs if operand is not None]

    def _compute(self, value: ir.Value) -> Array | None:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None:
            return np.asarray(tensor.numpy())
        node = value.producer()
        if node is None or not node.inputs or node.domain not in ("", "ai.onnx"):
            return None
        first = node.inputs[0]
        if node.op_type in ("Shape", "Size") and first is not None:
            shape = known_shape(first)
            if shape is None:
                return None
            if node.op_type == "Size":
                return np.asarray(int(np.prod(shape)), np.int64)
            end = node.attributes.get_int("end", len(shape))
            return np.asarray(shape[node.attributes.get_int("start", 0) : end], np.int64)
        arrays = [None if operand is None else self._known.get(operand) for operand in node.inputs]
        if any(array is None and operand is not None for array, operand in zip(arrays, node.inputs, strict=True)):
            return None
        made = evaluate(node, arrays, self._imports, _MOST)
        return None if made is None else np.asarray(made[value.index() or 0])
