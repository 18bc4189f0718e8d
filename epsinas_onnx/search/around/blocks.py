"""Finds blocks: parts of a graph between two values of one shape that all of the signal passes through."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx_ir as ir

from epsinas_onnx.graph.attributes import attribute_texts
from epsinas_onnx.graph.traversal import node_bodies

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
"""What a block holds at least one of."""
_WORTH_A_LOOK = 4
"""Nodes of the smallest stretch in which blocks of its own are looked for."""
_END = -1


@dataclass(frozen=True)
class Blocks:
    """Equal blocks in a row. cuts: the values before, between and behind them, by name. nodes: of each, by name."""

    cuts: tuple[str, ...]
    nodes: tuple[tuple[str, ...], ...]

    @property
    def count(self) -> int:
        """Return how many there are in the file."""
        return len(self.nodes)


def find_blocks(
    graph: ir.Graph, dynamic: Collection[ir.Node], shapes: Mapping[str, tuple[int, ...]], imports: Mapping[str, int]
) -> list[Blocks]:
    """Return the blocks of a graph, in order, none inside another.

    dynamic: nodes that depend on the graph's inputs, be it on their shape alone.
    """
    finder = _Finder(graph, dynamic, shapes, imports)
    return finder.find()


class _Finder:
    def __init__(
        self, graph: ir.Graph, dynamic: Collection[ir.Node], shapes: Mapping[str, tuple[int, ...]],
        imports: Mapping[str, int],
    ) -> None:  # fmt: skip
        self.nodes = [node for node in graph if node in dynamic]
        self.index = {node: number for number, node in enumerate(self.nodes)}
        self.shapes, self.imports = shapes, imports
        self.followers = [self._followers(node) for node in self.nodes]
        self.meeting = self._meeting_points()
        self.below = self._below()
        self.seen: set[int] = set()
        self.found: list[Blocks] = []

    def find(self) -> list[Blocks]:
        starts = [n for n, node in enumerate(self.nodes) if any(v and v.is_graph_input() for v in node.inputs)]
        for start in sorted(starts, key=lambda start: -len(self._passed(start, _END))):
            if start not in self.seen:
                self._chain(start, _END)
        return sorted(self.found, key=lambda blocks: self.order(blocks.nodes[0][0]))

    def order(self, name: str) -> int:
        return next(number for number, node in enumerate(self.nodes) if node.name == name)

    def _followers(self, node: ir.Node) -> list[int]:
        found = {self.index[use.node] for value in node.outputs for use in value.uses() if use.node in self.index}
        captured = [use.node for value in node.outputs for use in value.uses() if use.node not in self.index]
        if captured or any(value.is_graph_output() for value in node.outputs):
            found.add(_END)
        return sorted(found)

    def _meeting_points(self) -> list[int]:
        """Return for each node the first one through which all that it gives passes."""
        meeting, depth = [_END] * len(self.nodes), {_END: 0}
        for number in range(len(self.nodes) - 1, -1, -1):
            common: int | None = None
            for follower in self.followers[number]:
                common = follower if common is None else self._common(common, follower, meeting, depth)
            meeting[number] = _END if common is None else common
            depth[number] = depth[meeting[number]] + 1
        return meeting

    @staticmethod
    def _common(first: int, second: int, meeting: Sequence[int], depth: Mapping[int, int]) -> int:
        while first != second:
            if depth[first] < depth[second]:
                first, second = second, first
            first = meeting[first]
        return first

    def _below(self) -> list[int]:
        """Return for each node those that depend on it, itself included, as bits."""
        below = [0] * len(self.nodes)
        for number in range(len(self.nodes) - 1, -1, -1):
            below[number] = 1 << number
            for follower in self.followers[number]:
                if follower != _END:
                    below[number] |= below[follower]
        return below

    def _between(self, start: int, end: int) -> list[int]:
        """Return the nodes behind `start` that `end` depends on, `end` included."""
        return [
            number for number in range(start + 1, end + 1)
            if self.below[start] >> number & 1 and self.below[number] >> end & 1
        ]  # fmt: skip

    def _passed(self, start: int, end: int) -> list[int]:
        """Return the nodes before `end` through which all that `start` gives passes, itself included."""
        chain = [start]
        while (following := self.meeting[chain[-1]]) not in (_END, end):
            chain.append(following)
        return chain

    def _chain(self, start: int, end: int) -> None:
        chain = self._passed(start, end)
        if end != _END:
            chain.append(end)
        new = [number for number in chain if number not in self.seen or number == end]
        self.seen.update(new)
        taken: set[int] = set()
        run: list[int] = []
        for number in [*new, _END]:
            if run and (number == _END or not self._alike(run[-1], number)):
                taken.update(self._blocks(run))
                run = []
            if number != _END and self._is_cut(number):
                run.append(number)
        for first, second in pairwise(new):
            if second not in taken and len(inside := self._between(first, second)) >= _WORTH_A_LOOK:
                for follower in self.followers[first]:
                    if follower in inside and follower != second and follower not in self.seen:
                        self._chain(follower, second)

    def _is_cut(self, number: int) -> bool:
        node = self.nodes[number]
        return (
            len(node.outputs) == 1
            and not node.outputs[0].is_graph_output()
            and str(node.outputs[0].name) in self.shapes
        )

    def _alike(self, first: int, second: int) -> bool:
        if not self._is_cut(second):
            return False
        a, b = self.nodes[first].outputs[0], self.nodes[second].outputs[0]
        return self.shapes[str(a.name)] == self.shapes[str(b.name)] and a.dtype == b.dtype

    def _blocks(self, run: Sequence[int]) -> set[int]:
        """Note the blocks between values of one shape; return the ends of the stretches that are in one."""
        stretches = [self._between(a, b) for a, b in pairwise(run)]
        if any(node_bodies(self.nodes[n]) for stretch in stretches for n in stretch):
            return set()
        has_layer = [any(self._is_layer(self.nodes[n]) for n in stretch) for stretch in stretches]
        if not any(has_layer):
            return set()
        kinds = [self._kind(stretch) for stretch in stretches]
        start, period, times = _repeated(kinds, has_layer)
        rows = [(start, period, times)] if times else []
        rest = [(0, start), (start + period * times, len(stretches))] if times else [(0, len(stretches))]
        for first, last in rest:
            position = first
            for index in range(first, last):
                if has_layer[index]:
                    rows.append((position, index + 1 - position, 1))
                    position = index + 1
        taken: set[int] = set()
        for first, length, count in rows:
            parts = [stretches[first + k * length : first + (k + 1) * length] for k in range(count)]
            cuts = tuple(str(self.nodes[run[first + k * length]].outputs[0].name) for k in range(count + 1))
            names = tuple(tuple(str(self.nodes[n].name) for part in each for n in part) for each in parts)
            self.found.append(Blocks(cuts, names))
            taken.update(run[first + 1 : first + length * count + 1])
        return taken

    def _is_layer(self, node: ir.Node) -> bool:
        stored = [v for v in node.inputs if v is not None and not v.is_graph_input()]
        return node.op_type in LAYERS and any(v.producer() not in self.index for v in stored)

    def _kind(self, stretch: Iterable[int]) -> str:
        lines = []
        for number in stretch:
            node = self.nodes[number]
            texts = [text for text in attribute_texts(node, self.imports, None) if text[0] != "group"]
            lines.append(f"{node.domain} {node.op_type} {len(node.inputs)} {texts}")
        return "\n".join(lines)


def _repeated(kinds: Sequence[str], has_layer: Sequence[bool]) -> tuple[int, int, int]:
    """Return where equal rows of stretches begin, how many stretches a row has, and how many rows there are.

    The choice covers most stretches; zero rows where nothing is repeated.
    """
    best, covered = (0, 0, 0), 0
    for start in range(len(kinds)):
        for period in range(1, (len(kinds) - start) // 2 + 1):
            if (len(kinds) - start) // period * period <= covered:
                continue
            if not any(has_layer[start : start + period]):
                continue
            count = 1
            while kinds[start : start + period] == kinds[start + count * period : start + (count + 1) * period]:
                count += 1
            if count > 1 and count * period > covered:
                best, covered = (start, period, count), count * period
    return best
