"""Runs the operators that hold graphs: branches, loops, scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra
from epsinas_onnx.evaluate_lumped.call import Call, Unsupported
from epsinas_onnx.evaluate_lumped.families import joined, linear
from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.evaluate_lumped.value import Pair, Value
from epsinas_onnx.lump.graph import Node

Run = Callable[[Sequence[Any]], Sequence[Any]]


def run_of(call: Call, exact: bool) -> Run:
    """Return what runs a node that holds graphs; raises Unsupported for one that nothing is known of."""
    makers = {"If": branch, "Loop": loop, "Scan": scan}
    if call.node.domain != "" or call.op_type not in makers:
        raise Unsupported(f"{call.op_type} holds a graph")
    return makers[call.op_type](call, exact)


def decided(value: Any) -> Any:
    """Return what decides how a graph goes on, which must be the same for the samples and for the reference."""
    if value is None:
        return None
    if isinstance(value, Pair):
        if value.depends and not np.array_equal(value.actual, value.reference):
            raise Unsupported("what happens depends on the samples")
        value = value.actual
    return np.asarray(value).reshape(-1)[0]


def branch(call: Call, exact: bool) -> Run:
    """One of two graphs."""
    return lambda operands: call.bodies["then_branch" if decided(operands[0]) else "else_branch"](())


def loop(call: Call, exact: bool) -> Run:
    """The same graph again, while a condition holds."""
    body = call.bodies["body"]
    number = _number(exact)

    def run(operands: Sequence[Any]) -> Sequence[Any]:
        trips, start, *carried = operands
        count = decided(trips)
        going = True if start is None else bool(decided(start))
        scanned: list[list[Any]] = []
        index = 0
        while going and (count is None or index < count):
            condition, *made = body([number(np.asarray(index, np.int64)), number(np.asarray(going)), *carried])
            going = bool(decided(condition))
            carried = made[: len(carried)]
            scanned.append(made[len(carried) :])
            index += 1
        outputs = len(call.node.outputs) - len(carried)
        if outputs and not scanned:
            raise Unsupported("a loop that never runs")
        return [*carried, *(stacked([row[k] for row in scanned], 0) for k in range(outputs))]

    return run


def scan(call: Call, exact: bool) -> Run:
    """The same graph for every index of some axes."""
    body = call.bodies["body"]
    scanned = int(call.attribute("num_scan_inputs"))
    into = call.attribute("scan_input_axes") or [0] * scanned
    turned = call.attribute("scan_input_directions") or [0] * scanned

    def run(operands: Sequence[Any]) -> Sequence[Any]:
        states = list(operands[: len(operands) - scanned])
        given = operands[len(states) :]
        length = given[0].shape[into[0]]
        rows: list[list[Any]] = []
        for index in range(length):
            now = [
                taken(value, length - 1 - index if back else index, axis)
                for value, axis, back in zip(given, into, turned, strict=True)
            ]
            made = body([*states, *now])
            states = made[: len(states)]
            rows.append(made[len(states) :])
        outputs = len(call.node.outputs) - len(states)
        out = call.attribute("scan_output_axes") or [0] * outputs
        back = call.attribute("scan_output_directions") or [0] * outputs
        columns = [[row[k] for row in (reversed(rows) if back[k] else rows)] for k in range(outputs)]
        return [*states, *(stacked(column, axis) for column, axis in zip(columns, out, strict=True))]

    return run


def _number(exact: bool) -> Callable[[Array], Any]:
    return (lambda array: Pair(array, array)) if exact else (lambda array: array)


def taken(value: Any, index: int, axis: int) -> Any:
    """Return one index of an axis, which is left out."""
    if isinstance(value, Value):
        return linear(lambda call: lambda array: np.take(array, index, axis))(_bare("Gather"))([value])[0]
    if isinstance(value, Pair):
        actual = np.take(value.actual, index, axis)
        return Pair(np.take(value.reference, index, axis) if value.depends else actual, actual)
    return np.take(value, index, axis)


def stacked(rows: Sequence[Any], axis: int) -> Any:
    """Return one behind the other along a new axis."""
    first = rows[0]
    if isinstance(first, Value):
        place = axis % (len(first.shape) + 1)
        shape = (*first.shape[:place], 1, *first.shape[place:])
        lifted = [
            algebra.mapped(row, lambda part: part.become(np.expand_dims(part.array, place), 0), shape) for row in rows
        ]
        return joined(_bare("Concat", axis=place))(lifted)[0]
    if isinstance(first, Pair):
        actual = np.stack([row.actual for row in rows], axis)
        depends = any(row.depends for row in rows)
        return Pair(np.stack([row.reference for row in rows], axis) if depends else actual, actual)
    return np.stack(rows, axis)


def _bare(name: str, **attributes: Any) -> Call:
    return Call(Node(name, "", (), (), attributes, ""), (), {})
