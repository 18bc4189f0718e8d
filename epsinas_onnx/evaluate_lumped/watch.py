"""Looks at tensors inside of bodies, turn by turn, while a program runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra
from epsinas_onnx.evaluate_lumped.evaluator import as_value
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.lump.graph import Body, LoweredGraph, Node
from epsinas_onnx.lump.value import Lumped, Tensor

Turn: TypeAlias = tuple[int, ...]
"""How often the loops around a body have turned, outermost first; branches do not count."""
Look: TypeAlias = Callable[[str, Turn, Value], None]


class Watch:
    """Hands on what some values in bodies are at the end of each turn (`program.Observer`).

    wanted: by name, what became of each value. places: where a tensor lies in the program. look: called with a name,
    the turn, and what the value's representatives are.
    """

    def __init__(
        self, graph: LoweredGraph, wanted: Mapping[str, Lumped], places: Mapping[Tensor, int], look: Look
    ) -> None:
        self._look = look
        held = list(bodies_of(graph.nodes))
        self._loops = {body for node, _, body in held if node.op_type in ("Loop", "Scan")}
        self._wanted: dict[Body, list[tuple[str, Lumped, int]]] = {}
        scopes = scopes_of(graph)
        for name, lumped in wanted.items():
            if lumped.tensor in scopes and lumped.tensor in places:
                self._wanted.setdefault(scopes[lumped.tensor], []).append((name, lumped, places[lumped.tensor]))
        self._ran: set[Body] = set()
        self._branches = [(node.source, name, body) for node, name, body in held if node.op_type == "If"]
        self._turns: list[Turn] = [()]
        self._times: list[dict[Body, int]] = [{}]

    def enter(self, body: Body) -> None:
        """Note that a body begins."""
        self._ran.add(body)
        times, turn = self._times[-1], self._turns[-1]
        count = times[body] = times.get(body, -1) + 1
        self._turns.append((*turn, count) if body in self._loops else turn)
        self._times.append({})

    def leave(self, body: Body, values: Sequence[Any]) -> None:
        """Look at what a body holds at its end."""
        self._times.pop()
        turn = self._turns.pop()
        for name, lumped, place in self._wanted.get(body, ()):
            if values[place] is not None:
                self._look(name, turn, _representatives(lumped, as_value(values[place])))

    def idle(self) -> set[tuple[str, str]]:
        """Return the branches that did not run: the user's If, and the attribute.

        A value in one may be the same tensor as one outside, but for a factor, and then it was seen all the same.
        """
        return {(source, name) for source, name, body in self._branches if body not in self._ran}


def bodies_of(nodes: Iterable[Node]) -> Iterator[tuple[Node, str, Body]]:
    """Yield the bodies in a graph, and those in them, with the node that holds each and the name of its attribute."""
    for node in nodes:
        for name, body in node.bodies.items():
            yield node, name, body
            yield from bodies_of(body.nodes)


def scopes_of(graph: LoweredGraph) -> dict[Tensor, Body]:
    """Return for each tensor that is made in a body, or given to one, which it is."""
    found: dict[Tensor, Body] = {}
    for _, _, body in bodies_of(graph.nodes):
        found.update(dict.fromkeys((*body.inputs, *(tensor for node in body.nodes for tensor in node.outputs)), body))
    return found


def _representatives(lumped: Lumped, value: Value) -> Value:
    """Return a tensor as its value has it: its factor multiplied in, in the shape of its classes."""
    if lumped.factor != 1.0:
        value = algebra.multiply(algebra.number(lumped.factor), value)
    if lumped.parts is None:
        return value
    shape = (1, *lumped.counts) if lumped.varied else lumped.counts
    if value.shape == shape:
        return value
    whole = value.shape
    return algebra.mapped(
        value, lambda part: part.become(np.broadcast_to(part.array, whole).reshape(shape), 0), shape
    )  # fmt: skip
