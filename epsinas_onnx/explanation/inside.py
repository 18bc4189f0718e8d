"""Finds the node in a body behind which the signal ends, turn by turn, where `score` names the node that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from epsinas_onnx.evaluate_lumped.watch import Turn
from epsinas_onnx.explanation.nested import Nested, Place, bodies
from epsinas_onnx.explanation.turns import State
from epsinas_onnx.graph.traversal import operands

Zero = Callable[[ir.Node], bool]
_At = tuple[ir.Value, Turn]


class Unrolled:
    """The values in the bodies of one node, unrolled: each once a turn.

    holder: the node that `score` names. states: what was seen, by name and turn; of a value outside of all loops the
    turn is (). A value that was not seen differs where what it is made of does.
    """

    def __init__(self, nested: Nested, holder: ir.Node, states: Mapping[str, Mapping[Turn, State]]) -> None:
        self._nested, self._holder, self._states = nested, holder, states
        self._places = {place.value: place for place in nested.places()}
        self._turns: dict[tuple[ir.Graph, Turn], int] = {}
        for value, place in self._places.items():
            graph = value.graph if place.given else place.node.graph
            if not isinstance(graph, ir.Graph):
                continue
            for turn in states.get(place.name, {}):
                self._note(graph, turn)
        self._known: dict[_At, bool] = {}

    def _note(self, graph: ir.Graph, turn: Turn) -> None:
        """Note that a body had a turn, and so those around it."""
        while graph in self._nested.holder_of:
            node = self._nested.holder_of[graph][0]
            outer = turn
            if node.op_type != "If":
                if not turn:
                    return
                outer = turn[:-1]
                self._turns[graph, outer] = max(self._turns.get((graph, outer), 0), turn[-1] + 1)
            else:
                self._turns[graph, outer] = 1
            if not isinstance(node.graph, ir.Graph):
                return
            graph, turn = node.graph, outer

    def lost(self, multiplies_by_zero: Zero) -> ir.Node | None:
        """Return the first node in a body that makes what differs the same for all samples, and feeds what is lost.

        Those that multiply by 0 come last. None where it is none in a body.
        """
        pending: list[_At] = [(value, ()) for value in self._holder.outputs if not self._differs((value, ()))]
        visited = set(pending)
        found: list[tuple[bool, tuple[int, ...], ir.Node]] = []
        while pending:
            at = pending.pop()
            place = self._places.get(at[0])
            if place is None or not (place.node is self._holder or self._holder in place.holders):
                continue
            before = list(self._before(place, at[1]))
            if not place.given and not bodies(place.node) and any(self._differs(one) for one in before):
                found.append((multiplies_by_zero(place.node), self._when(place, at[1]), place.node))
            new = [one for one in before if one not in visited and not self._differs(one)]
            visited.update(new)
            pending += new
        return min(found, key=lambda one: one[:2])[2] if found else None

    def exploded(self) -> ir.Node | None:
        """Return the first node in a body that gives NaN or infinity for finite operands; None where there is none."""
        found = []
        for value, place in self._places.items():
            if self._holder not in place.holders or place.given or bodies(place.node):
                continue
            for turn, state in self._states.get(self._nested.names[value], {}).items():
                if not state.finite and all(self._finite(one) for one in self._before(place, turn)):
                    found.append((self._when(place, turn), place.node))
        return min(found, key=lambda one: one[0])[1] if found else None

    def _before(self, place: Place, turn: Turn) -> Iterator[_At]:
        """Yield what a value in one turn is made of."""
        nested, node, value = self._nested, place.node, place.value
        if place.given:
            source, carried = nested.given_from(value), nested.carried_from(value)
            if carried is not None and turn and turn[-1] > 0:
                yield carried, (*turn[:-1], turn[-1] - 1)
            elif source is not None:
                yield source, turn[:-1]
            return
        held = bodies(node)
        if not held:
            yield from ((one, turn[: nested.loops_around(one)]) for one in operands(node))
            return
        index = list(node.outputs).index(value)
        for _, body in held:
            ran = self._turns.get((body, turn), 0)
            if node.op_type == "If":
                if ran:
                    yield body.outputs[index], turn
                continue
            made = body.outputs[index + (node.op_type == "Loop")]
            first = 0 if index >= nested.states(node) else max(ran - 1, 0)
            yield from ((made, (*turn, one)) for one in range(first, ran))

    def _differs(self, at: _At) -> bool:
        """Whether samples differ in a value in one turn."""
        pending = [at]
        while pending:
            current = pending[-1]
            if current in self._known:
                pending.pop()
                continue
            state = self._state(current)
            place = self._places.get(current[0])
            if state is not None or place is None:
                self._known[current] = current[0].is_graph_input() if state is None else state.differs
                continue
            before = [one for one in self._before(place, current[1]) if one != current]
            new = [one for one in before if one not in self._known]
            if new:
                pending += new
            else:
                self._known[current] = any(self._known.get(one, False) for one in before)
        return self._known[at]

    def _finite(self, at: _At) -> bool:
        state = self._state(at)
        return state is None or state.finite

    def _state(self, at: _At) -> State | None:
        """Return what was seen; a value that is the same in every turn was seen in none."""
        value, turn = at
        seen = self._states.get(self._nested.names.get(value, ""), {})
        while turn not in seen and turn:
            turn = turn[:-1]
        return seen.get(turn)

    def _when(self, place: Place, turn: Turn) -> tuple[int, ...]:
        """Return a key that sorts by when a node runs."""
        key: list[int] = []
        loops = 0
        for holder in place.holders:
            key.append(self._nested.position[holder])
            if holder.op_type != "If":
                key.append(turn[loops] if loops < len(turn) else 0)
                loops += 1
        return (*key, self._nested.position[place.node])
