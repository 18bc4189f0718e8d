"""Finds what decides how many entries an output has: detection heads, loops, lists of what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from epsinas_onnx.errors import ModelError, ShapeError
from epsinas_onnx.graph.traversal import StaticValues, operands


class Selection(NamedTuple):
    """A node whose output has as many entries as its values say, and the float value that it decides by."""

    node: ir.Node
    before: ir.Value | None


_SELECTS = frozenset({"NonMaxSuppression", "NonZero", "Compress", "Unique", "Loop", "If", "Range", "TopK", "Slice"})


def selecting(model: ir.Model) -> Selection | None:
    """Return the first node of the main graph that decides how many entries there are, None where none is known."""
    static = StaticValues.of(model)
    for node in model.graph:
        if node.op_type in _SELECTS and any(v is not None and v not in static for v in _sizing(node)):
            floats = (v for v in _behind(node) if v.dtype is not None and v.dtype.is_floating_point())
            return Selection(node, next((value for value in floats if value not in static), None))
    return None


def _sizing(node: ir.Node) -> Sequence[ir.Value | None]:
    """Return the operands that decide how many entries a node gives."""
    if node.op_type in ("TopK", "Slice"):
        return node.inputs[1:]
    return list(operands(node))


def _behind(node: ir.Node) -> Iterable[ir.Value]:
    """Yield what a node reads, nearest first, and what that was computed from."""
    pending = list(operands(node))
    seen = set(pending)
    while pending:
        value = pending.pop(0)
        if value.producer() is not None:
            yield value
        producer = value.producer()
        new = [operand for operand in (() if producer is None else operands(producer)) if operand not in seen]
        seen.update(new)
        pending += new


def check_sizes(model: ir.Model, name: str, sizes: Mapping[float, int]) -> None:
    """Raise ModelError where the size of the output depends on the values: there is nothing to compare then.

    An output without entries is a ShapeError: with larger inputs it may have some.

    sizes: how many entries the output had, by the constant that all weights were.
    """
    if not any(sizes.values()):
        raise ShapeError(f"{name}: the output has no entries; compare another value with --output-name")
    if len(set(sizes.values())) == 1:
        return
    selects = selecting(model)
    by = "" if selects is None else f", which node {selects.node.name!r} ({selects.node.op_type}) decides"
    found = " and ".join(f"{size:,} with weights {constant:g}" for constant, size in sizes.items())
    before = None if selects is None else selects.before
    advice = "" if before is None else f", such as {before.name!r}"
    raise ModelError(
        f"{name}: how many entries the output has depends on the values in the graph ({found}){by}; compare a float "
        f"value in front of it with --output-name{advice}"
    )
