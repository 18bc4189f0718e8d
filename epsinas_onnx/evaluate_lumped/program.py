"""Turns a lowered graph into a list of closures over numbered places, once for any number of constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import RunError
from epsinas_onnx.evaluate_lumped import bodies
from epsinas_onnx.evaluate_lumped.balanced import zeros_of
from epsinas_onnx.evaluate_lumped.call import Call, Unsupported
from epsinas_onnx.evaluate_lumped.families import as_formed
from epsinas_onnx.evaluate_lumped.fused.chain import Chain
from epsinas_onnx.evaluate_lumped.fused.find import Found, find_chains
from epsinas_onnx.evaluate_lumped.single_node import single_node
from epsinas_onnx.evaluate_lumped.table import find_entry
from epsinas_onnx.evaluate_lumped.value import Pair, Value, fixed
from epsinas_onnx.lump.graph import Body, LoweredGraph, Node, needed_nodes, reads
from epsinas_onnx.lump.value import Array, Tensor

Run = Callable[[Sequence[Any]], Sequence[Any]]


class Step(NamedTuple):
    """One node. done: the places that nobody reads afterwards."""

    run: Run
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    done: tuple[int, ...]
    node: Node


class Begun(NamedTuple):
    """What no constant changes, once computed. values: what lies at every place. nodes: how many ran."""

    values: Sequence[Any]
    nodes: int


class Observer(Protocol):
    """Looks at bodies while they run."""

    def enter(self, body: Body) -> None:
        """Note that a body begins."""

    def leave(self, body: Body, values: Sequence[Any]) -> None:
        """Look at what lies at every place when a body ends."""


class Program:
    """The nodes that some tensors need, in order. exact: whether on values with base and deviation, or plain arrays.

    centred: the user's nodes that sum up to 0 what a normalisation has centred. spared: whether what these alone need
    is left out, so that nothing says of which shape they are for fewer samples. without_rule: nodes that ONNX Runtime
    runs on formed values. observer: what looks at bodies while they run, if anything does. Raises Unsupported for what
    cannot be run here.
    """

    def __init__(
        self, graph: LoweredGraph, outputs: Sequence[Tensor], exact: bool, keep: bool = False, spare: bool = False
    ) -> None:
        self.graph = graph
        self.exact = exact
        self.without_rule: list[Node] = []
        self.observer: Observer | None = None
        self._values: list[Any] = []
        live = graph.live_nodes(outputs)
        self._zeros = zeros_of(graph, live) if exact else set()
        self.centred = frozenset(node.source for node in self._zeros)
        self.spared = spare and bool(self._zeros)
        if self.spared:
            live = needed_nodes(live, outputs, self._zeros)
        read = [[] if self.spared and node in self._zeros else reads(node) for node in live]
        needed = {tensor for tensors in read for tensor in tensors}.union(outputs)
        stored = [tensor for tensor in graph.initializers if tensor in needed]
        derived = [tensor for tensor in graph.derived if tensor in needed]
        lasting = dict.fromkeys([*graph.inputs, *stored, *derived, *outputs])
        made = [tensor for node in live for tensor in node.outputs]
        self._places = {tensor: place for place, tensor in enumerate(dict.fromkeys([*lasting, *made]))}
        self.inputs = [(tensor, self.place(tensor)) for tensor in graph.inputs]
        self._stored = {self.place(tensor): self._as_stored(tensor, graph.initializers[tensor]) for tensor in stored}
        self._derived = [(self.place(tensor), tensor, graph.derived[tensor]) for tensor in derived]
        self.outputs = [self.place(tensor) for tensor in outputs]
        self._done = [()] * len(live) if keep else self._read_last(read, set(lasting))
        self.nodes = live
        self._independent = self._count_independent()
        self._chains = [] if keep else self._find_chains(outputs)
        self._steps: list[Step | None] = [None] * len(live)
        begin = 0
        for _, first, last in self._chains:
            self._ready(begin, first)
            begin = last
        self._ready(begin, len(live))

    def _count_independent(self) -> int:
        """Return how many nodes are in front of the first that depends on a constant or has bodies, 0 where none is.

        What is kept of bodies is what the last run left there.
        """
        varied = {tensor for _, tensor, _ in self._derived}
        stops = (index for index, node in enumerate(self.nodes) if node.bodies or not varied.isdisjoint(reads(node)))
        return next(stops, 0)

    def _find_chains(self, outputs: Sequence[Tensor]) -> Sequence[Found]:
        """Return the chains, which are the same for both kinds of arithmetic where nothing is 0 by proof."""
        statistics = {tensor for node in self.nodes for tensor in node.outputs[1:]}
        kept = frozenset(outputs) - statistics
        key = tuple(self.nodes), kept, frozenset(self._zeros)
        found = self.graph.chains.get(key)
        if found is None:
            found = self.graph.chains[key] = find_chains(self.nodes, kept, self._zeros, self._call, self._independent)
        return found

    def _ready(self, first: int, last: int) -> Sequence[Step]:
        """Return the steps of some nodes; those of chains are not made before a chain cannot be run."""
        for index in range(first, last):
            if self._steps[index] is None:
                self._steps[index] = self._step(self.nodes[index], self._done[index])
        return self._steps[first:last]  # type: ignore[return-value]

    def _call(self, node: Node, held: Mapping[str, Callable[[Sequence[Any]], list[Any]]] | None = None) -> Call:
        known = self.graph.initializers
        stored = [None if tensor is None else known.get(tensor) for tensor in node.inputs]
        return Call(node, stored, self.graph.imports, held or {})

    def place(self, tensor: Tensor) -> int:
        """Return where a tensor's value lies."""
        places = self._places
        found = places.get(tensor)
        if found is None:
            found = places[tensor] = len(places)
        return found

    def tensors(self) -> Mapping[Tensor, int]:
        """Return the place of every tensor."""
        return self._places

    def _as_stored(self, tensor: Tensor, array: Array) -> Any:
        return fixed(array) if self.exact else array.astype(tensor.dtype.numpy(), copy=False)

    def _read_last(self, read: Sequence[Sequence[Tensor]], alive: set[Tensor]) -> list[tuple[int, ...]]:
        """Return for each node the places that nobody reads afterwards. read: what each reads. alive: what stays."""
        places, done = self._places, []
        for tensors in reversed(read):
            last = {tensor: None for tensor in tensors if tensor not in alive}
            done.append(tuple([places[tensor] for tensor in last if tensor in places]))  # what bodies make has none yet
            alive.update(last)
        done.reverse()
        return done

    def _step(self, node: Node, done: tuple[int, ...]) -> Step:
        given = () if self.spared and node in self._zeros else node.inputs
        inputs = tuple([-1 if tensor is None else self.place(tensor) for tensor in given])
        return Step(self._run_of(node), inputs, tuple([self.place(tensor) for tensor in node.outputs]), done, node)

    def _run_of(self, node: Node) -> Run:
        return self._run_of_zeros(node) if node in self._zeros else self._ordinary_run(node)

    def _run_of_zeros(self, node: Node) -> Run:
        """Return what gives zeros; for fewer samples than the graph is made for, of the shape that the node gives."""
        ordinary = None if self.spared else self._ordinary_run(node)
        before, after = node.inputs[0], node.outputs[0].dims

        def run(operands: Sequence[Any]) -> Sequence[Any]:
            if ordinary is None or before is None or operands[0].shape == before.shape:
                return (Value(after, None, None),)
            return (Value(ordinary(operands)[0].shape, None, None),)

        return run

    def _ordinary_run(self, node: Node) -> Run:
        kind = node.kind
        ready: Run | None = None if kind is None else kind.made.get(self.exact)
        if ready is not None:
            return ready
        held = {name: self._body(body) for name, body in node.bodies.items()}
        call = self._call(node, held)
        if held:
            return bodies.run_of(call, self.exact)
        entry = find_entry(node.domain, node.op_type)
        try:
            if entry is not None:
                run = entry.rule(call) if self.exact else _listed(entry.kernel(call))
                if kind is not None:
                    kind.made[self.exact] = run
                return run
        except Unsupported:
            pass
        self.without_rule.append(node)
        return as_formed(single_node)(call) if self.exact else _listed(single_node(call))

    def _body(self, body: Body) -> Callable[[Sequence[Any]], list[Any]]:
        inputs = [self.place(tensor) for tensor in body.inputs]
        outer = dict(self._places)
        steps = [self._step(node, ()) for node in body.nodes]
        for tensor in {tensor for node in body.nodes for tensor in reads(node)} | set(body.outputs):
            if tensor in self.graph.initializers and tensor not in outer:
                self._stored[self.place(tensor)] = self._as_stored(tensor, self.graph.initializers[tensor])
        outputs = [self.place(tensor) for tensor in body.outputs]

        def run(operands: Sequence[Any]) -> list[Any]:
            values, observer = self._values, self.observer
            if observer is not None:
                observer.enter(body)
            for place, operand in zip(inputs, operands, strict=True):
                values[place] = operand
            _advance(steps, values)
            if observer is not None:
                observer.leave(body, values)
            return [values[place] for place in outputs]

        return run

    def compiled_entries(self) -> int:
        """Return how many entries chains compute."""
        chained = (node for _, first, last in self._chains for node in self.nodes[first:last])
        return sum(tensor.elements for node in chained for tensor in node.outputs)

    def peak_bytes(self) -> tuple[int, str]:
        """Return an estimate of what a run holds at its peak, and the name of the largest tensor.

        Base and deviation are float64, and a node holds about as much again while it works, where windows are laid out
        side by side (MaxPool) as many times as they have positions. Tensors of unknown shape count as nothing.
        """
        width = 24 if self.exact else 4
        sizes = {place: tensor.elements * width for tensor, place in self.inputs}
        peak, current = 0, sum(sizes.values())
        largest, name = max(((sizes[place], tensor.name) for tensor, place in self.inputs), default=(0, ""))
        for node, done in zip(self.nodes, self._done, strict=True):
            made = 0
            for tensor in node.outputs:
                size = sizes[self._places[tensor]] = tensor.elements * width
                made += size
                if size > largest:
                    largest, name = size, tensor.name
            working = made * (_window_of(node) if self.exact else 1)
            peak = max(peak, current + made + working)
            current += made - sum([sizes.get(place, 0) for place in done])
        return peak + sum(_bytes_of(stored) for stored in self._stored.values()), name

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Run the nodes in front of all that depend on a constant; raises as `run` does."""
        values: list[Any] = [None] * len(self._places)
        values.append(None)  # what place -1, an operand that is left out, reads
        for place, stored in self._stored.items():
            values[place] = stored
        for tensor, place in self.inputs:
            values[place] = inputs.get(tensor.name)
        self._values = values
        count = self._independent
        with np.errstate(all="ignore"):
            _advance(self._ready(0, count), values)
        return Begun(values, count)

    def run(self, derived: Callable[[Callable[[Array], Array]], Any], begun: Begun) -> list[Any]:
        """Return the outputs; raises RunError where operands do not fit.

        derived: what a tensor made of the constants holds. begun: what `begin` gives, for any number of runs.
        """
        values = list(begun.values)
        for place, _, make in self._derived:
            values[place] = derived(make)
        self._values = values
        with np.errstate(all="ignore"):
            begin = begun.nodes
            for chain, first, last in self._chains:
                _advance(self._ready(begin, first), values)
                self._along(chain, first, last)
                begin = last
            _advance(self._ready(begin, len(self.nodes)), values)
        return [values[place] for place in self.outputs]

    def _along(self, chain: Chain, first: int, last: int) -> None:
        """Run the nodes of a chain: as one from where its operands let it, those in front of that one by one."""
        values, begin = self._values, first
        run = chain.run if self.exact else chain.run_plain
        for entry in chain.entries():
            _advance(self._ready(begin, first + entry.link), values)
            begin = first + entry.link
            done = run(entry, values, self._places)
            if done:
                return
            if done is None:
                break
        _advance(self._ready(begin, last), values)

    @property
    def values(self) -> list[Any]:
        """Return what lies at every place after the last run, where it was kept."""
        return self._values


def _window_of(node: Node) -> int:
    """Return how many copies of its output a node lays out."""
    if node.op_type != "MaxPool":
        return 1
    value = node.attributes.get("kernel_shape", ())
    return math.prod(value.value if isinstance(value, ir.Attr) else value)


def _bytes_of(stored: Any) -> int:
    if isinstance(stored, Value):
        return sum(part.array.nbytes for part in (stored.base, stored.deviation) if part is not None)
    return int((stored.actual if isinstance(stored, Pair) else stored).nbytes)


def _advance(steps: Sequence[Step], values: list[Any]) -> None:
    for run, inputs, outputs, done, node in steps:
        try:
            made = run([values[place] for place in inputs])
        except (ArithmeticError, AssertionError, LookupError, TypeError, Unsupported, ValueError) as error:
            raise RunError(f"node {node.source!r} ({node.op_type}) cannot be evaluated: {error}") from error
        for place, value in zip(outputs, made):  # noqa: B905 -- outputs that nobody reads may be left out
            values[place] = value
        for place in done:
            values[place] = None


def _listed(kernel: Callable[..., Any]) -> Run:
    def run(operands: Sequence[Any]) -> Sequence[Any]:
        made = kernel(*operands)
        return made if isinstance(made, (tuple, list)) else (made,)

    return run
