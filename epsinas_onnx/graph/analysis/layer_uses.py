"""Tells what a layer's result is used for: an output, a gate, an activation of its own, or more features."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from epsinas_onnx.graph.traversal import StaticValues

LAYOUT = frozenset(
    {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Concat",
     "Gather", "GatherElements", "Resize", "Upsample", "Pad", "DepthToSpace", "SpaceToDepth", "Expand", "Tile",
     "Dropout", "GlobalAveragePool", "QuantizeLinear", "DequantizeLinear"}
)  # fmt: skip
"""What may stand between a last layer and an output, or a layer and its gate, and computes no features."""
ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "Celu", "HardSwish", "Mish", "Softplus", "Gelu",
     "ThresholdedRelu"}
)  # fmt: skip
HEADS = frozenset(
    {"Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin", "TopK", "NonMaxSuppression",
     "Tanh"}
)  # fmt: skip
"""What stands behind the last layer of a classifier or a detector; the sigmoids also in gates and swish."""
_SQUASHING = frozenset({"Sigmoid", "HardSigmoid", "Tanh"})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Pow", "Exp", "Max", "Min", "Sqrt", "Neg"})
_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"})
_LAYERS = frozenset({"Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul"})


def is_head(end: ir.Value, static: StaticValues) -> bool:
    """Whether a layer's result reaches an output, a softmax or a sigmoid with no further features in between."""

    def found(node: ir.Node) -> bool:
        return node.op_type in HEADS and _factor(node.outputs[0], static) is None

    def goes_on(node: ir.Node) -> bool:
        return node.domain == "" and (node.op_type in LAYOUT or _with_stored(node, static))

    return _reaches(end, found, goes_on, outputs=True)


def is_gate(end: ir.Value, static: StaticValues) -> bool:
    """Whether a value goes through a sigmoid, or a Clip that stands for one, and multiplies features not its own."""
    return any(not _same(factor, end, static) for factor in _factors(end, static))


def is_swish(end: ir.Value, static: StaticValues) -> bool:
    """Whether a value goes through a sigmoid, or a Clip that stands for one, and multiplies itself."""
    return any(_same(factor, end, static) for factor in _factors(end, static))


def makes_gate(x: ir.Value | None, end: ir.Value, static: StaticValues) -> bool:
    """Whether a layer from `x` to `end` is the first of two on globally pooled features, the second of which gates."""
    if not _is_pooled(x, static):
        return False

    def found(node: ir.Node) -> bool:
        ends = (node.outputs[0], _shifted(node, static))
        return node.op_type in _LAYERS and any(is_gate(value, static) for value in ends)

    def goes_on(node: ir.Node) -> bool:
        return node.op_type in ACTIVATIONS | LAYOUT | _ARITHMETIC | _SQUASHING

    return _reaches(end, found, goes_on)


def _reaches(
    start: ir.Value, found: Callable[[ir.Node], bool], goes_on: Callable[[ir.Node], bool], outputs: bool = False
) -> bool:
    """Whether a node that `found` accepts, or a graph output, uses `start`, directly or behind nodes that go on."""
    pending, seen = [start], {start}
    while pending:
        value = pending.pop()
        if outputs and value.is_graph_output():
            return True
        for use in value.uses():
            if found(use.node):
                return True
            if goes_on(use.node):
                new = [output for output in use.node.outputs if output not in seen]
                seen.update(new)
                pending += new
    return False


def _with_stored(node: ir.Node, static: StaticValues) -> bool:
    """Whether a node does arithmetic on one value of the signal and stored ones."""
    signal = [value for value in node.inputs if value is not None and value not in static]
    return node.op_type in _ARITHMETIC and len(signal) == 1


def _factors(end: ir.Value, static: StaticValues) -> list[ir.Value]:
    """Return what the sigmoids of a value are multiplied by, hard ones written as Add, Clip included."""
    found = []
    for use in end.uses():
        squashed = None
        if use.node.op_type in _SQUASHING:
            squashed = use.node.outputs[0]
        elif use.node.op_type == "Add" and _with_stored(use.node, static):
            clips = [user.node for user in use.node.outputs[0].uses() if user.node.op_type in ("Clip", "Relu")]
            squashed = clips[0].outputs[0] if clips else None
        factor = None if squashed is None else _factor(squashed, static)
        if factor is not None:
            found.append(factor)
    return found


def _factor(value: ir.Value, static: StaticValues) -> ir.Value | None:
    """Return what a value is multiplied by at run time, behind layout and stored factors; None where it is not."""
    pending, seen = [value], {value}
    while pending:
        for use in pending.pop().uses():
            node = use.node
            others = [v for i, v in enumerate(node.inputs) if i != use.idx and v is not None and v not in static]
            if node.op_type == "Mul" and others:
                return others[0]
            if node.op_type in LAYOUT | {"Clip"} or _with_stored(node, static):
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                pending += new
    return None


def is_input(value: ir.Value, static: StaticValues) -> bool:
    """Whether a value is an input of the model up to layout: what is done to it then is preprocessing."""
    return any(source in static.inputs for source in _sources(value, static))


def _same(value: ir.Value, end: ir.Value, static: StaticValues) -> bool:
    """Whether a value is `end` up to layout."""
    return end in _sources(value, static)


def _is_pooled(value: ir.Value | None, static: StaticValues) -> bool:
    """Whether a value was reduced over all positions, up to layout."""
    sources = () if value is None else _sources(value, static)
    return any((node := source.producer()) is not None and node.op_type in _POOLS for source in sources)


def _sources(value: ir.Value, static: StaticValues) -> Iterator[ir.Value]:
    """Yield a value of the signal, what it holds laid out anew, what that holds, and so on.

    What is looked up in a stored table by the signal holds none of it.
    """
    while value not in static:
        yield value
        node = value.producer()
        if node is None or node.op_type not in LAYOUT:
            return
        moved = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        signal = [operand for operand in moved if operand is not None and operand not in static]
        if not signal:
            return
        value = signal[0]


def _shifted(node: ir.Node, static: StaticValues) -> ir.Value:
    """Return a layer's result behind a stored bias that is added to it."""
    uses = list(node.outputs[0].uses())
    alone = len(uses) == 1 and uses[0].node.op_type == "Add" and _with_stored(uses[0].node, static)
    return uses[0].node.outputs[0] if alone else node.outputs[0]
