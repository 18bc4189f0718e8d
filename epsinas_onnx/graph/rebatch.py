"""Loosens what a model exported with batch 1 has fixed: Reshape targets, initial states, joined tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.rewrite import PREFIX, Emitter
from epsinas_onnx.graph.shapes import InputSpec, known_shape
from epsinas_onnx.graph.static import StaticValues


def fixed_batch(specs: Sequence[InputSpec]) -> bool:
    """Return whether the file fixes the batch axis of an input to 1."""
    return any(spec.batch_axis is not None and spec.declared[spec.batch_axis] == 1 for spec in specs)


def loosen_batch(model: ir.Model, batch: int) -> None:
    """Replace, in place, what ties the main graph to a single sample; whether it worked must be checked by running.

    Reshape targets that begin with the batch, alone or merged with other axes, take it from their input; the initial
    states of RNN, GRU and LSTM, and stored operands of a Concat along another axis, are repeated for every sample.
    Every other constant broadcasts by itself. Shapes must have been inferred for one sample.
    """
    static = StaticValues.of(model)
    emitter = Emitter(model.opset_imports.get("", 1), f"{PREFIX}batch.")
    for node in list(model.graph):
        if node.domain != "" or not node.outputs or node.outputs[0] in static:
            continue
        if node.op_type == "Reshape":
            _loosen_reshape(node, emitter)
        elif node.op_type in ("RNN", "GRU", "LSTM"):
            for slot in (5, 6):
                _repeat(node, slot, 1, batch, static, emitter)
        elif node.op_type == "Concat" and _concat_axis(node) != 0:
            for slot in range(len(node.inputs)):
                _repeat(node, slot, 0, batch, static, emitter)
        if emitter.nodes:
            model.graph.insert_before(node, emitter.take())


def _loosen_reshape(node: ir.Node, emitter: Emitter) -> None:
    operand, target = node.inputs[0], node.inputs[1]
    tensor = None if target is None else ir.convenience.get_const_tensor(target)
    if operand is None or tensor is None or node.attributes.get_int("allowzero", 0) == 1:
        return
    sizes = [int(size) for size in tensor.numpy().reshape(-1)]
    if len(sizes) < 1 or sizes[0] in (0, -1):
        return
    if -1 not in sizes:
        sizes[0] = -1
    elif sizes[0] == 1:
        sizes[0] = 0
    else:
        return
    node.replace_input_with(1, emitter.constant(np.asarray(sizes, np.int64)))


def _repeat(node: ir.Node, slot: int, axis: int, batch: int, static: StaticValues, emitter: Emitter) -> None:
    """Expand a stored operand along its batch axis, where that has one entry and the operand is not the signal."""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    shape = None if value is None else known_shape(value)
    if value is None or value not in static or not shape or len(shape) < 2 or shape[axis] != 1 or emitter.opset < 8:
        return
    wanted = [*shape[:axis], batch, *shape[axis + 1 :]]
    repeated = emitter.op("Expand", [value, emitter.constant(np.asarray(wanted, np.int64))])
    repeated.type, repeated.shape = value.type, ir.Shape(wanted)
    node.replace_input_with(slot, repeated)


def _concat_axis(node: ir.Node) -> int:
    axis = int(node.attributes.get_int("axis", 0))
    return axis if axis >= 0 else axis + (len(node.outputs[0].shape) if node.outputs[0].shape is not None else 99)
