"""Tells which values of a graph do not depend on its inputs, and which stored tensors they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

LAYOUT = frozenset(
    {"Identity", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile",
     "Slice", "Gather", "Split", "Pad", "DequantizeLinear", "Dropout"}
)  # fmt: skip
"""Operators that move the entries of input 0 about; their other inputs say how."""

ARITHMETIC = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Abs", "Exp", "Concat", "Sum", "Where", "MatMul",
     "ReduceSum", "ReduceMean", "ReduceL2", "ReduceSumSquare", "Sigmoid", "Softplus", "Tanh", "Clip", "Relu"}
)  # fmt: skip
"""Operators that make one weight out of others (weight normalisation, scale folding, packed gates)."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


@dataclass
class StaticValues:
    """The values of a model that are the same for every input.

    A value is static when it is stored, or computed from static values alone; shapes count as static, because the
    scorer makes them concrete. Values inside If, Loop and Scan bodies take part; what a loop feeds its body does not
    count as static. inputs: what the model is fed.
    """

    values: set[ir.Value] = field(default_factory=set)
    inputs: set[ir.Value] = field(default_factory=set)

    @classmethod
    def of(cls, model: ir.Model) -> StaticValues:
        """Find the static values of `model`, bodies included."""
        stored = model.graph.initializers
        found = cls(inputs={value for value in model.graph.inputs if value.name not in stored})
        found._visit(model.graph)
        return found

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def _visit(self, graph: ir.Graph) -> None:
        self.values.update(graph.initializers.values())
        for node in graph:
            bodies = node_bodies(node)
            for body in bodies:
                self._visit(body)
            if self._is_static(node, bodies):
                self.values.update(node.outputs)

    def _is_static(self, node: ir.Node, bodies: list[ir.Graph]) -> bool:
        if node.op_type in ("Shape", "Size") and node.domain == "":
            return True
        if node.op_type in RANDOM or (bodies and node.op_type != "If"):
            return False
        for value in node.inputs:
            if value is not None and value not in self.values:
                return False
        return not bodies or all(output in self.values for body in bodies for output in body.outputs)

    def stored(self, value: ir.Value) -> list[ir.Value] | None:
        """Return the stored tensors that a static value is made of, or None where a formula made it.

        Stored means: an initializer, a Constant, a ConstantOfShape, or a Tile of one number. The chain may lay them out
        anew or do arithmetic on them; anything else (a cosine, a range, a shape, one number repeated to the size of the
        signal) is a formula, and no training changes it.
        """
        roots: dict[ir.Value, None] = {}
        pending, seen = [value], {value}
        while pending:
            current = pending.pop()
            producer = current.producer()
            if producer is None:
                roots[current] = None
                continue
            if self._repeats_a_number(producer):
                return None
            if producer.op_type in ("Constant", "ConstantOfShape") or fills(producer):
                roots[current] = None
                continue
            operands = _data_operands(producer)
            if operands is None:
                return None
            new = [operand for operand in operands if operand not in seen]
            seen.update(new)
            pending += new
        return list(roots)

    def _repeats_a_number(self, node: ir.Node) -> bool:
        """Whether a node fills as many entries with one number as the signal has."""
        if node.op_type == "ConstantOfShape":
            return self._measures_signal(node.inputs[0])
        if node.op_type not in ("Expand", "Tile") or node.domain != "":
            return False
        number = None if node.inputs[0] is None else ir.convenience.get_const_tensor(node.inputs[0])
        return number is not None and number.size == 1 and self._measures_signal(node.inputs[1])

    def _measures_signal(self, value: ir.Value | None) -> bool:
        """Whether a static value is computed from the shape of something that is not static."""
        pending, seen = [value], {value}
        while pending:
            current = pending.pop()
            node = None if current is None else current.producer()
            if node is None:
                continue
            if node.op_type in ("Shape", "Size") and node.inputs[0] not in self.values:
                return True
            new = [operand for operand in node.inputs if operand not in seen]
            seen.update(new)
            pending += new
        return False


def fills(node: ir.Node) -> bool:
    """Whether a node repeats one stored number to a stored shape, as ConstantOfShape does from operator set 9 on."""
    if node.op_type != "Tile" or node.domain != "" or len(node.inputs) != 2:
        return False
    number, shape = (None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs)
    return number is not None and number.size == 1 and shape is not None


WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators of the standard domain that hold graphs."""


def node_bodies(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs that a node holds in its attributes (If, Loop, Scan, SequenceMap)."""
    if node.domain == "" and node.op_type not in WITH_BODIES:
        return []
    return list(_graph_attributes(node))


def _graph_attributes(node: ir.Node) -> Iterable[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def body_outputs(model: ir.Model) -> dict[ir.Value, list[ir.Value]]:
    """Return for each output of a body the outputs of its node that are made of it."""
    found: dict[ir.Value, list[ir.Value]] = {}
    for graph in all_graphs(model.graph):
        for node in graph:
            conditions = 1 if node.op_type == "Loop" else 0  # whether to go on is no output of the node
            for body in node_bodies(node):
                for inside, outside in zip(body.outputs[conditions:], node.outputs, strict=False):
                    found.setdefault(inside, []).append(outside)
    return found


def proto_bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a serialised node holds in its attributes."""
    own = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [*own, *(body for attribute in node.attribute for body in attribute.graphs)]


_HAS_NONE = "epsinas.no_bodies"
"""Marks a graph of which every node was asked for bodies; no pass adds one to a graph that has none."""


def note_bodies(graph: ir.Graph) -> None:
    """Mark a graph that has no bodies, because walks over all graphs begin with that question, dozens of times."""
    graph.meta.pop(_HAS_NONE, None)
    if len(list(all_graphs(graph))) == 1:
        graph.meta[_HAS_NONE] = True


def all_graphs(graph: ir.Graph) -> Iterable[ir.Graph]:
    """Yield `graph` and every body below it, outermost first."""
    yield graph
    if graph.meta.get(_HAS_NONE):
        return
    for node in graph:
        if node.op_type in WITH_BODIES or node.domain:  # asked of every node of every graph, many times
            for body in node_bodies(node):
                yield from all_graphs(body)


def _data_operands(node: ir.Node) -> list[ir.Value] | None:
    if node.domain not in ("", "com.microsoft"):
        return None
    if node.op_type in LAYOUT:
        first = node.inputs[0]
        return None if first is None else [first]
    if node.op_type in ARITHMETIC:
        if node.op_type.startswith("Reduce") or node.op_type == "Clip":  # the others are axes and bounds
            return [value for value in node.inputs[:1] if value is not None]
        if node.op_type == "Where":
            return [value for value in node.inputs[1:] if value is not None]
        return [value for value in node.inputs if value is not None]
    return None


def operands(node: ir.Node) -> Sequence[ir.Value]:
    """Return what a node reads, what its bodies capture included."""
    found = [value for value in node.inputs if value is not None]
    for body in node_bodies(node):
        for inner in body.all_nodes():
            found += [value for value in inner.inputs if value is not None and value.graph is not body]
    return found


def needed_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes of a graph that its outputs need."""
    needed: set[ir.Node] = set()
    pending = list(graph.outputs)
    while pending:
        producer = pending.pop().producer()
        if producer is None or producer in needed:
            continue
        if producer.graph is graph:
            needed.add(producer)
            pending += _reads(producer)
    return needed


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    for body in node_bodies(node):
        yield from body.outputs
        yield from _within(body)


def _within(body: Iterable[ir.Node]) -> Iterator[ir.Value]:
    for node in body:
        yield from _reads(node)
