"""Computes ahead what a graph computes from the shapes of stored tensors, so that none is read to be measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.graph.evaluate import evaluate
from epsinas_onnx.graph.tensor_summary import stored_shape
from epsinas_onnx.graph.traversal import RANDOM, all_graphs, node_bodies

Array = npt.NDArray[Any]
_LARGEST = 64
"""Entries of the largest list of sizes that is computed."""
_MOST_AXES = 16
"""The most axes of a tensor; a number repeated to fewer entries than this is taken for a list of sizes or axes."""


def fold_shapes(model: ir.Model) -> bool:
    """Replace Shape and Size of stored tensors by what they give, and what integers follow from them, in place.

    ONNX's shape inference follows sizes through a few operators only; a weight that is reshaped by a product of sizes
    has no shape without this. A short list that is one number repeated becomes a Constant, so that it is read as any
    other list is. Returns whether any was.
    """
    listed = _list_repeated(model)
    return _fold(model, stored_shape) or listed


def _list_repeated(model: ir.Model) -> bool:
    found = False
    known: dict[ir.Value, tuple[int, ...] | None] = {}  # many tensors of one shape share its list of sizes
    for graph in all_graphs(model.graph):
        for node in list(graph):
            if node.op_type != "ConstantOfShape" or node.domain != "" or node.inputs[0] is None:
                continue
            listed = node.inputs[0]
            if listed not in known:
                sizes = ir.convenience.get_const_tensor(listed)
                short = sizes is not None and sizes.size <= _MOST_AXES
                known[listed] = tuple(map(int, sizes.numpy().reshape(-1))) if sizes is not None and short else None
            dims = known[listed]
            if dims is not None and min(dims, default=0) >= 0 and math.prod(dims) < _MOST_AXES:
                filling = node.attributes.get("value")
                number = np.zeros(1, np.float32) if filling is None else filling.as_tensor().numpy()
                _replace(graph, node, np.full(dims, number.reshape(-1)[0], number.dtype))
                found = True
    return found


def fold_known_shapes(model: ir.Model) -> bool:
    """Replace Shape and Size of every value of a known shape, and what integers follow, in place; whether any was."""
    return _fold(model, _known_shape)


def _fold(model: ir.Model, shape_of: Callable[[ir.Value | None], list[int] | None]) -> bool:
    folded: set[ir.Value] = set()
    for graph in all_graphs(model.graph):
        for node in list(graph):
            array = None
            if node.op_type in ("Shape", "Size") and node.domain == "":
                dims = shape_of(node.inputs[0])
                array = None if dims is None else _measure(node, dims)
            if array is None and folded and not folded.isdisjoint(node.inputs):
                array = _computed(node, model.opset_imports)
            if array is not None:
                folded.add(_replace(graph, node, array))
    return bool(folded)


def _known_shape(value: ir.Value | None) -> list[int] | None:
    dims = [] if value is None or value.shape is None else [dim for dim in value.shape if isinstance(dim, int)]
    return dims if value is not None and value.shape is not None and len(dims) == len(value.shape) else None


def _measure(node: ir.Node, dims: Sequence[Any]) -> Array:
    """Return what a Shape or Size node gives for a value of these dimensions."""
    end = node.attributes.get("end")
    part = dims[node.attributes.get_int("start", 0) : None if end is None else int(end.value)]
    return np.asarray(math.prod(dims) if node.op_type == "Size" else part, np.int64)


def _computed(node: ir.Node, imports: Mapping[str, int]) -> Array | None:
    """Return the only output of a node of small known lists; None where it is none."""
    if len(node.outputs) != 1 or node.op_type in RANDOM or node_bodies(node):
        return None
    arrays = []
    for value in node.inputs:
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        if value is not None and (tensor is None or tensor.size > _LARGEST or tensor.dtype.is_floating_point()):
            return None
        arrays.append(None if tensor is None else tensor.numpy())
    results = evaluate(node, arrays, imports, _LARGEST)
    array = None if results is None else np.asarray(results[0])
    return array if array is not None and array.dtype.kind in "iub" else None


def _replace(graph: ir.Graph, node: ir.Node, array: Array) -> ir.Value:
    tensor = ir.tensor(array)
    constant = ir.node("Constant", [], {"value": tensor}, name=node.name, num_outputs=1)
    new, old = constant.outputs[0], node.outputs[0]
    new.name, new.type, new.shape, new.const_value = (
        old.name,
        ir.TensorType(tensor.dtype),
        ir.Shape(array.shape),
        tensor,
    )
    graph.insert_before(node, constant)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return new
