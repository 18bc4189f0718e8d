"""The derivative of a Scan: a Scan the other way, whose body computes a step anew and differentiates it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.infer import infer_locally
from epsinas_onnx.proxies.reverse.registry import Gradients, rule
from epsinas_onnx.proxies.reverse.scope import Scope
from epsinas_onnx.proxies.reverse.walk import backward
from epsinas_onnx.proxies.reverse.writer import Writer


@dataclass(frozen=True)
class _Layout:
    """How a Scan is laid out. states, inputs, outputs: how many there are; the rest as its attributes."""

    body: ir.Graph
    states: int
    inputs: int
    outputs: int
    input_axes: list[int]
    input_directions: list[int]
    output_axes: list[int]
    output_directions: list[int]

    @classmethod
    def of(cls, call: Call) -> _Layout:
        """Read the attributes; raises UnsupportedError before operator set 9, which batched otherwise."""
        if call.opset < 9:
            raise call.refuse("a Scan before operator set 9 has no rule for its derivative")
        body = call.node.attributes["body"].as_graph()
        inputs = call.integer("num_scan_inputs", 0)
        states = len(call.node.inputs) - inputs
        outputs = len(body.outputs) - states
        return cls(
            body, states, inputs, outputs,
            call.integers("scan_input_axes") or [0] * inputs, call.integers("scan_input_directions") or [0] * inputs,
            call.integers("scan_output_axes") or [0] * outputs,
            call.integers("scan_output_directions") or [0] * outputs,
        )  # fmt: skip


@rule("Scan")
def scan(call: Call) -> Gradients:
    """Go back through the steps, with the gradients of the states carried along.

    The forward Scan hands out its states before each step. What its body reads from outside gets the sum over steps.
    """
    at = _Layout.of(call)
    saved = _saved_states(call, at)
    step = _Step(call, at)
    gradients = [
        call.write.zeros(call.shape_of(output), output.dtype or ir.DataType.FLOAT) if gradient is None else gradient
        for output, gradient in zip(call.node.outputs[: at.states], call.gradients, strict=False)
    ]
    through = [index for index in range(at.outputs) if call.gradients[at.states + index] is not None]
    captured = call.captured
    body = step.backward(through, captured)
    starts = [*gradients, *(call.write.zeros(call.shape_of(v), v.dtype or ir.DataType.FLOAT) for v in captured)]
    fed = [*saved, *call.node.inputs[at.states :], *(call.gradients[at.states + index] for index in through)]
    made = ir.Node(
        "", "Scan", [*starts, *fed], num_outputs=len(starts) + at.inputs,
        attributes=ir.convenience.convert_attributes({
            "body": body, "num_scan_inputs": len(fed),
            "scan_input_axes": [0] * at.states + at.input_axes + [at.output_axes[index] for index in through],
            "scan_input_directions": [1] * at.states + [1 - way for way in at.input_directions]
            + [1 - at.output_directions[index] for index in through],
            "scan_output_axes": at.input_axes, "scan_output_directions": [1 - way for way in at.input_directions],
        }),
    )  # fmt: skip
    call.write.adopt(made)
    found: dict[int | ir.Value, ir.Value | None] = {}
    outputs = list(made.outputs)
    for slot in call.wanted:
        found[slot] = outputs[slot if slot < at.states else slot + len(captured)]
    for index, value in enumerate(captured):
        found[value] = outputs[at.states + index]
    return found


def _saved_states(call: Call, at: _Layout) -> list[ir.Value]:
    """Have the forward Scan hand out its states before each step, in the order of steps."""
    node, body = call.node, at.body
    count = len(node.outputs)
    while len(body.outputs) > count:
        count += 1  # outputs that nobody reads are left out at the end
    node.resize_outputs(count + at.states)
    for index, output in enumerate(node.outputs):
        output.name = output.name or f"{call.write.prefix}{node.name}.output{index}"
    prefix = f"{call.write.prefix}{node.outputs[0].name}"
    for index in range(at.states):
        state = body.inputs[index]
        copied = ir.Node("", "Identity", [state], name=f"{prefix}.before{index}")
        copied.outputs[0].name, copied.outputs[0].type = f"{prefix}.before{index}", state.type
        copied.outputs[0].shape = state.shape
        body.append(copied)
        body.outputs.append(copied.outputs[0])
        node.outputs[count + index].name = f"{prefix}.states{index}"
        node.outputs[count + index].type = state.type or call.input(index).type
    for name, values in (("scan_output_axes", at.output_axes), ("scan_output_directions", at.output_directions)):
        node.attributes[name] = ir.AttrInt64s(name, [*values, *([0] * at.states)])
    return list(node.outputs[count:])


class _Step:
    """The body of a Scan, copied to be differentiated."""

    def __init__(self, call: Call, at: _Layout) -> None:
        self.at = at
        self._call = call
        self._prefix = f"{call.write.prefix}{len(call.write.nodes)}."
        self._graph = at.body.clone(allow_outer_scope_values=True)
        self._types()

    def backward(self, through: Sequence[int], captured: Sequence[ir.Value]) -> ir.Graph:
        """Return the body of the Scan that goes back.

        Its states are the gradients of the states and the sums for what is captured; it is fed the states, what the
        step was fed, and the gradients of what the step put out. through: which outputs have one.
        """
        at, graph = self.at, self._graph
        names = self._prefix
        for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)):
            if value.name:
                value.name = names + str(value.name)
        nodes = list(graph)
        write = Writer(self._call.opset, f"{names}step.")
        scope = Scope(write, self._call.scope.constants, self._call.scope.name)
        infer_locally(nodes, scope)
        states, given = list(graph.inputs[: at.states]), list(graph.inputs[at.states :])
        made = list(graph.outputs)
        carried = [_like(state, f"{names}gradient{index}") for index, state in enumerate(states)]
        sums = [_like(value, f"{names}sum{index}") for index, value in enumerate(captured)]
        arriving = [_like(made[at.states + index], f"{names}arriving{index}") for index in through]
        seeds: dict[ir.Value, ir.Value] = {}
        for value, gradient in [
            *zip(made, carried, strict=False),
            *zip([made[at.states + i] for i in through], arriving, strict=True),
        ]:
            if value.dtype is None or value.dtype in FLOATS:
                seeds[value] = write.op("Add", [seeds[value], gradient]) if value in seeds else gradient
        wrt = [value for value in (*states, *given, *captured) if value.dtype is None or value.dtype in FLOATS]
        found = backward(scope, nodes, seeds, wrt)
        outputs = []
        for value in (*states, *captured, *given):
            gradient = found.get(value) or self._nothing(write, value)
            if value in captured:
                gradient = write.op("Add", [sums[captured.index(value)], gradient])
            gradient = write.op("Identity", [gradient])
            gradient.type = value.type
            outputs.append(gradient)
        graph.extend(write.take())
        return _regraphed(graph, [*carried, *sums, *states, *given, *arriving], outputs, f"{names}body")

    def _nothing(self, write: Writer, value: ir.Value) -> ir.Value:
        return write.zeros(self._call.shape_of(value), value.dtype or ir.DataType.FLOAT)

    def _types(self) -> None:
        """Give what the body is fed the shapes that one step has."""
        call, at = self._call, self.at
        for index, value in enumerate(self._graph.inputs):
            outer = call.input(index)
            shape = list(call.shape(index))
            if index >= at.states:
                del shape[at.input_axes[index - at.states]]
            value.type, value.shape = outer.type, ir.Shape(shape)


def _like(value: ir.Value, name: str) -> ir.Value:
    return ir.Value(name=name, type=value.type, shape=value.shape)


def _regraphed(graph: ir.Graph, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], name: str) -> ir.Graph:
    """Return the nodes and stored tensors of a graph with other inputs and outputs."""
    nodes, stored = list(graph), list(graph.initializers.values())
    graph.remove(nodes)
    graph.inputs.clear()
    graph.outputs.clear()
    graph.initializers.clear()
    return ir.Graph(inputs, outputs, nodes=nodes, initializers=stored, name=name)
