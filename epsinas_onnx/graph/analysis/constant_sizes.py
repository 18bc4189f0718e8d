"""Tells how large what a graph computes from constants alone becomes, before it is computed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx._util.memory import available_bytes
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.constant_tensor import constant_tensor, node_proto
from epsinas_onnx.graph.evaluate import evaluate
from epsinas_onnx.graph.output_sizes import Known, outcome, refuse_if_large, refuse_if_larger
from epsinas_onnx.graph.tensor_summary import read
from epsinas_onnx.graph.traversal import RANDOM, all_graphs, node_bodies

_SMALL = 4096
"""Entries of the largest values that are computed to find sizes that follow from them."""


def refuse_large_constants(model: ir.Model, replaced: Collection[tuple[ir.Node, int]], name: str) -> None:
    """Raise OutOfMemory where a model makes more out of constants alone than is computed, or than there is memory.

    The second is for what inference finds no shape of, though it follows from constants. replaced: the operands, by
    node and slot, that are replaced by weights, so that nothing need be computed for them.
    """
    needed = _needed(model.graph, replaced)
    main, *bodies = all_graphs(model.graph)
    nodes = [*(node for node in main if node in needed), *(node for body in bodies for node in body)]
    if not _measured(nodes, model, replaced, name, compute=False):
        _measured(nodes, model, replaced, name, compute=True)


def _measured(
    nodes: Iterable[ir.Node], model: ir.Model, replaced: Collection[tuple[ir.Node, int]], name: str, compute: bool
) -> bool:
    """Refuse what is too large; return whether all sizes were found.

    compute: whether small values are computed, since sizes may follow from them.
    """
    found: dict[ir.Value, Known] = {}
    fixed: set[ir.Value] = set()
    free = available_bytes()
    complete = True
    for node in nodes:
        if node_bodies(node):
            continue
        operands = [None if value is None else found.get(value) or _stored(value, compute) for value in node.inputs]
        constant = node.op_type not in RANDOM and all(
            value is None or value in fixed or (value not in found and operand is not None)
            for value, operand in zip(node.inputs, operands, strict=True)
        )
        measures = node.op_type in ("Shape", "Size") and node.domain == ""
        constant = measures or (constant and not any((node, slot) in replaced for slot in range(len(operands))))
        made = [_declared(value) for value in node.outputs]
        if compute and (any(each.shape is None for each in made) or (constant and _is_short(made))):
            known = [o or (None if v is None else _declared(v)) for v, o in zip(node.inputs, operands, strict=True)]
            made = _made(node, known, constant, model.opset_imports)
        complete &= all(each.most is not None for each in made)
        if constant:
            fixed.update(node.outputs)
            refuse_if_large(node, operands, made, name)
        elif compute:
            refuse_if_larger(node, made, free, name)
        found.update(zip(node.outputs, made, strict=False))
    return complete


def _stored(value: ir.Value, compute: bool) -> Known | None:
    """Return what is known of a stored value, None of another."""
    tensor = constant_tensor(value)
    if tensor is None:
        return None
    shape = tuple(int(dim) for dim in tensor.shape)  # type: ignore[arg-type]
    array = None
    if compute and tensor.size <= _SMALL and not isinstance(tensor, ir.ExternalTensor):
        array = read(tensor)
    return Known(tensor.dtype, shape, array, tensor.size)


def _declared(value: ir.Value) -> Known:
    shape = known_shape(value)
    return Known(value.dtype or ir.DataType.FLOAT, shape, None, None if shape is None else math.prod(shape))


def _is_short(made: Sequence[Known]) -> bool:
    return all(each.most is not None and each.most <= _SMALL for each in made)


def _made(node: ir.Node, operands: Sequence[Known | None], constant: bool, imports: Mapping[str, int]) -> list[Known]:
    """Return what a node makes: its entries where it is a constant of few, what is known of its sizes otherwise."""
    if node.op_type in ("Shape", "Size") and node.inputs[0] is not None:
        shape = known_shape(node.inputs[0])
        if shape is None:
            return [Known(ir.DataType.INT64, None, None, 64)]
        end = node.attributes.get("end")
        part = shape[node.attributes.get_int("start", 0) : None if end is None else int(end.value)]
        return [Known.of(np.asarray(math.prod(shape) if node.op_type == "Size" else part, np.int64))]
    arrays = [None if operand is None else operand.array for operand in operands]
    if constant and all(operand is None or operand.array is not None for operand in operands):
        results = evaluate(node, arrays, imports, _SMALL)
        if results is not None and all(isinstance(result, np.ndarray | np.generic) for result in results):
            return [Known.of(np.asarray(result)) for result in results]
    return outcome(node_proto(node), operands, imports)


def _needed(graph: ir.Graph, replaced: Collection[tuple[ir.Node, int]]) -> set[ir.Node]:
    needed: set[ir.Node] = set()
    pending = list(graph.outputs)
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in needed:
            needed.add(node)
            pending += _reads(node, replaced)
    return needed


def _reads(node: ir.Node, replaced: Collection[tuple[ir.Node, int]]) -> Iterable[ir.Value]:
    yield from (v for slot, v in enumerate(node.inputs) if v is not None and (node, slot) not in replaced)
    for body in node_bodies(node):
        yield from body.outputs
        for inner in body:
            yield from _reads(inner, replaced)
