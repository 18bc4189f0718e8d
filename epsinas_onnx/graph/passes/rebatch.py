"""Loosens what a model exported with batch 1 has fixed: Reshape targets, initial states, joined tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import known_shape, model_inputs
from epsinas_onnx.graph.emitter import PREFIX, Emitter
from epsinas_onnx.graph.tensor_summary import read
from epsinas_onnx.graph.traversal import StaticValues


def fixed_batch(specs: Sequence[InputSpec]) -> bool:
    """Return whether the file fixes the batch axis of an input to 1."""
    return any(spec.batch_axis is not None and spec.declared[spec.batch_axis] == 1 for spec in specs)


def loosen_batch(model: ir.Model, specs: Sequence[InputSpec], batch: int) -> None:
    """Replace, in place, what ties the main graph to a single sample; whether it worked must be checked by running.

    The batch axis is followed from the inputs through the graph. A stored Reshape target gets a free size where the
    batch lies; the initial states of RNN, GRU and LSTM, and stored operands of a Concat along another axis, are
    repeated for every sample. Every other constant broadcasts by itself. Shapes must have been inferred for one
    sample.
    """
    static = StaticValues.of(model)
    emitter = Emitter(model.opset_imports.get("", 1), f"{PREFIX}batch.")
    by_name = {spec.name: spec.batch_axis for spec in specs}
    axes = {value: axis for value in model_inputs(model) if (axis := by_name[str(value.name)]) is not None}
    for node in list(model.graph):
        if node.domain != "" or not node.outputs or node.outputs[0] in static:
            continue
        axis = batch_axis_behind(node, axes)
        if node.op_type == "Reshape":
            _loosen_reshape(node, axis, emitter)
        elif node.op_type in ("RNN", "GRU", "LSTM"):
            for slot in (5, 6):
                _repeat(node, slot, 1, batch, static, emitter)
        elif node.op_type == "Concat" and axis is not None and _whole_axis(node, "axis", 0) != axis:
            for slot in range(len(node.inputs)):
                _repeat(node, slot, axis, batch, static, emitter)
        if emitter.nodes:
            model.graph.insert_before(node, emitter.take())
        if axis is not None:
            # An RNN gives [steps, directions, batch, hidden], and its last states [directions, batch, hidden].
            later = 1 if node.op_type in ("RNN", "GRU", "LSTM") else axis
            axes.update({output: axis if k == 0 else later for k, output in enumerate(node.outputs)})


def batch_axis_behind(node: ir.Node, axes: Mapping[ir.Value, int]) -> int | None:
    """Return the batch axis of a node's first output, None where no operand has one.

    axes: batch axis by value. Operators that are not named here keep the axis, counted from the end where operands of
    different rank are broadcast; the caller checks the outcome.
    """
    operand = next((value for value in node.inputs if value is not None and value in axes), None)
    if operand is None:
        return None
    axis, shape = axes[operand], known_shape(operand)
    rank = len(shape) if shape is not None else None
    match node.op_type:
        case "Transpose":
            perm = node.attributes.get_ints("perm", None)
            if perm is None:
                return axis if rank is None else rank - 1 - axis
            return list(perm).index(axis) if axis in perm else None
        case "RNN" | "GRU" | "LSTM":
            return 2
        case "Gather":
            along = _whole_axis(node, "axis", 0)
            indices = node.inputs[1]
            if operand is indices:
                return along + axis
            dropped = 1 - (len(indices.shape) if indices is not None and indices.shape is not None else 1)
            return axis - dropped if along < axis else axis
        case "Squeeze" | "Unsqueeze":
            moved = _stored_axes(node)
            return _shifted(axis, moved, node.op_type == "Unsqueeze", rank)
        case "Reshape" | "Flatten":
            target = known_shape(node.outputs[0])
            return 0 if shape is None or target is None else batch_axis_after_reshape(shape, axis, target)
        case name if name.startswith("Reduce") and not node.attributes.get_int("keepdims", 1):
            return _shifted(axis, _stored_axes(node), False, rank)
    output = known_shape(node.outputs[0])
    return axis if rank is None or output is None else max(axis + len(output) - rank, 0)


def batch_axis_after_reshape(shape: Sequence[int], axis: int, target: Sequence[int]) -> int:
    """Return the axis of `target` in which axis `axis` of `shape` lands; both are shapes for a single sample.

    The batch is outermost in its axis, so it lands where the entries in front of it end. An axis of size 1 there is
    the batch alone. Without one it is merged with a neighbour: with the one in front where all behind it stays as it
    was or is the last axis, which holds features (a flattened sequence), else with the one behind (heads).
    """
    in_front = math.prod(shape[:axis])
    boundaries = [k for k in range(len(target)) if math.prod(target[:k]) == in_front]
    alone = [k for k in boundaries if target[k] == 1]
    if alone:
        return alone[0]
    behind = tuple(shape[axis + 1 :])
    same_behind = shape[axis] == 1 and behind and tuple(target[len(target) - len(behind) :]) == behind
    features = bool(boundaries) and boundaries[0] == len(target) - 1
    if boundaries and not (boundaries[0] > 0 and (same_behind or features)):
        return boundaries[0]
    return next((k for k in reversed(range(len(target))) if math.prod(target[:k]) < in_front), 0)


def _loosen_reshape(node: ir.Node, axis: int | None, emitter: Emitter) -> None:
    """Make the size of the batch axis follow the input, in a Reshape whose target is stored."""
    stored = node.inputs[1] is not None and ir.convenience.get_const_tensor(node.inputs[1]) is not None
    target = known_shape(node.outputs[0])
    if axis is None or not stored or target is None:
        return
    sizes = [-1 if k == axis else size for k, size in enumerate(target)]
    node.replace_input_with(1, emitter.constant(np.asarray(sizes, np.int64)))


def _stored_axes(node: ir.Node) -> list[int] | None:
    """Return the axes of a Squeeze, Unsqueeze or Reduce: an attribute first, an input in newer operator sets."""
    attribute = node.attributes.get_ints("axes", None)
    if attribute is not None:
        return list(attribute)
    operand = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = None if operand is None else ir.convenience.get_const_tensor(operand)
    array = None if tensor is None else read(tensor)
    return None if array is None else [int(axis) for axis in array.reshape(-1)]


def _shifted(axis: int, moved: Sequence[int] | None, inserted: bool, rank: int | None) -> int:
    """Return where an axis is after axes were inserted or removed."""
    if moved is None or rank is None:
        return axis
    total = rank + len(moved) if inserted else rank
    places = sorted(place % total for place in moved)
    if not inserted:
        return axis - sum(place < axis for place in places)
    for place in places:
        axis += place <= axis
    return axis


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


def _whole_axis(node: ir.Node, name: str, default: int) -> int:
    """Return an axis attribute counted from the front."""
    axis = int(node.attributes.get_int(name, default))
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis if axis >= 0 else axis + (len(shape) if shape is not None else 0)
