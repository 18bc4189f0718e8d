"""Adds up the products of a graph's nodes, bodies included, and says what could not be counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from epsinas_onnx.multiply_adds.call import Body, Call, Uncountable, elements
from epsinas_onnx.multiply_adds.table import COUNTED, UNCOUNTABLE, takes_no_products

_ENDLESS = 2**31
"""Trip counts from here on stand for a loop that only its condition ends."""


class MultiplyAdds(NamedTuple):
    """How many there are: products that are added up, of convolutions, matrix products, attention and recurrences.

    Of the branches of an If the costlier one counts; the body of a loop counts as often as it runs. uncounted: the
    first node that could not be counted. why: the end of the sentence that says why not. once: the first loop whose
    body counts once, since how often it runs is known at run time only. Each is None where there is no such node.
    """

    total: int
    uncounted: str | None = None
    why: str | None = None
    once: str | None = None

    @property
    def known(self) -> int | None:
        """How many there are, None where not all could be counted."""
        return self.total if self.uncounted is None else None

    def notes(self) -> list[str]:
        """Return why there may be more of them than are counted, a sentence each."""
        notes = []
        if self.uncounted is not None:
            notes.append(f"the multiply-adds of node {self.uncounted} cannot be counted: {self.why}")
        if self.once is not None:
            notes.append(
                f"the multiply-adds in the body of node {self.once} are counted once: how often it runs is known at "
                f"run time only"
            )
        return notes

    def plus(self, other: MultiplyAdds, times: int = 1) -> MultiplyAdds:
        """Return both together, the other one taken `times` times; of what could not be counted the first is kept."""
        first = self if self.uncounted is not None else other
        return MultiplyAdds(self.total + times * other.total, first.uncounted, first.why, self.once or other.once)


def added_up(calls: Iterable[Call]) -> MultiplyAdds:
    """Return the multiply-adds of nodes and of all that they hold."""
    total = MultiplyAdds(0)
    for call in calls:
        total = total.plus(node_products(call))
        if call.bodies:
            total = _with_bodies(call, total)
    return total


def node_products(call: Call) -> MultiplyAdds:
    """Return the multiply-adds of one node, those of its bodies left out."""
    key = (call.domain, call.op_type)
    formula = COUNTED.get(key)
    if formula is None:
        if takes_no_products(*key):
            return MultiplyAdds(0)
        return MultiplyAdds(0, call.place, UNCOUNTABLE.get(key, "it is an operator that the count does not know"))
    try:
        return MultiplyAdds(formula(call))
    except Uncountable as error:
        return MultiplyAdds(0, call.place, str(error))
    except (ArithmeticError, LookupError, TypeError, ValueError):  # operands that contradict each other
        return MultiplyAdds(0, call.place, "its operands contradict each other")


def _with_bodies(call: Call, total: MultiplyAdds) -> MultiplyAdds:
    found = [added_up(body.calls) for body in call.bodies]
    if call.op_type == "If" and call.domain == "":
        costliest = max(found, key=lambda body: body.total)
        return total.plus(costliest).plus(next((body for body in found if body.uncounted is not None), costliest), 0)
    times = _repetitions(call)
    if times is None and any(body.total or body.uncounted for body in found):
        total = total.plus(MultiplyAdds(0, once=call.place))
    for body in found:
        total = total.plus(body, 1 if times is None else times)
    return total


def _repetitions(call: Call) -> int | None:
    """Return how often the bodies of a node run, None where only running it tells."""
    if call.domain == "" and call.op_type == "Loop":
        trips = call.number(0)
        return trips if trips is not None and trips < _ENDLESS and _runs_through(call, call.bodies[0]) else None
    if call.domain == "" and call.op_type == "Scan":
        scanned = call.integer("num_scan_inputs", 1)
        shape = call.shape(len(call.inputs) - scanned)
        if shape is None:
            return None
        if call.opset < 9:  # [batch, sequence, ...]
            return elements(shape[:2])
        axes = call.attributes.get("scan_input_axes")
        return shape[axes[0] if axes else 0]
    return 1 if call.op_type == "FlexAttention" else None


def _runs_through(call: Call, body: Body) -> bool:
    """Whether a loop's condition is true before the first time, and then stays so."""
    given = call.inputs[1] if call.has(1) else None
    starts = given is None or (given.value is not None and bool(np.all(given.value)))
    return starts and body.endless
