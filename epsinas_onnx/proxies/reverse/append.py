"""Appends the derivative of a model's outputs by its inputs to the model."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.emitter import PREFIX
from epsinas_onnx.graph.traversal import all_graphs
from epsinas_onnx.proxies.reverse.constants import Constants
from epsinas_onnx.proxies.reverse.infer import complete_shapes
from epsinas_onnx.proxies.reverse.rules import MODULES
from epsinas_onnx.proxies.reverse.scope import Scope
from epsinas_onnx.proxies.reverse.walk import backward
from epsinas_onnx.proxies.reverse.writer import Writer


def append_gradient(
    model: ir.Model, outputs: Sequence[ir.Value], wrt: Sequence[ir.Value], name: str = ""
) -> list[ir.Value]:
    """Append the nodes that compute the derivative of the sum of all entries of `outputs` by each of `wrt`.

    This is reverse accumulation: each node on a path from `wrt` to `outputs` has a rule that writes the product of the
    gradients of its outputs with its Jacobian. Where a function has a kink, it is PyTorch's autograd that is followed:
    0 for a Relu at 0, equal shares for a maximum of equals, the first maximum for a pooling window.

    Args:
        model: with static shapes inferred, and without functions; nodes are appended to its main graph, and nodes of
            it may get further outputs, such as the indices of a MaxPool.
        outputs: float values of the main graph; one that is named twice counts twice.
        wrt: float values of the main graph, inputs or others.
        name: of the model, for errors.

    Returns:
        For each of `wrt` a value of its shape and element type, zeros where no path leads there.

    Raises:
        UnsupportedError: a node on a path has no rule, or a shape that its rule needs is not known.

    Source:
        Griewank and Walther, Evaluating Derivatives (2008), chapter 3.
    """
    for value in (*outputs, *wrt):
        if value.dtype is not None and value.dtype not in FLOATS:
            raise UnsupportedError(_message(name, f"value {value.name!r} holds {value.dtype}, which has no derivative"))
    opset = model.opset_imports.get("", 1)
    write = Writer(opset, _free_prefix(model))
    scope = Scope(write, Constants(model.opset_imports), name)
    assert MODULES, "the rules register themselves where they are imported"
    nodes = list(model.graph)
    complete_shapes(nodes, scope)
    seeds: dict[ir.Value, ir.Value] = {}
    for value in outputs:
        shape, dtype = _shape(value, name), value.dtype or ir.DataType.FLOAT
        seeds[value] = write.full(float(sum(value is other for other in outputs)), shape, dtype)
    found = backward(scope, nodes, seeds, wrt)
    gradients = []
    for value in wrt:
        shape, dtype = _shape(value, name), value.dtype or ir.DataType.FLOAT
        gradient = write.op("Identity", [found.get(value) or write.zeros(shape, dtype)])
        gradient.shape, gradient.type = ir.Shape(shape), ir.TensorType(dtype)
        gradients.append(gradient)
    model.graph.extend(write.take())
    return gradients


def _shape(value: ir.Value, name: str) -> tuple[int, ...]:
    shape = known_shape(value)
    if shape is None:
        raise UnsupportedError(_message(name, f"the shape of {value.name!r} is not known, and its derivative needs it"))
    return shape


def _message(name: str, text: str) -> str:
    return f"{name}: {text}" if name else text


def _free_prefix(model: ir.Model) -> str:
    """Return what no value of the model begins with, so that a model may be differentiated twice."""
    names = [str(v.name) for graph in all_graphs(model.graph) for node in graph for v in node.outputs]
    taken = [name for name in names if name.startswith(f"{PREFIX}gradient")]
    count = 0
    while any(name.startswith(f"{PREFIX}gradient{count}.") for name in taken):
        count += 1
    return f"{PREFIX}gradient{count}."
