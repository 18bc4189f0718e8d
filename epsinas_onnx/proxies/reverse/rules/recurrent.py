"""Derivatives of LSTM, GRU and RNN: each is written out as a Scan of its cell, which is then differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.infer import infer_locally
from epsinas_onnx.proxies.reverse.registry import Gradients, rule
from epsinas_onnx.proxies.reverse.walk import backward
from epsinas_onnx.proxies.reverse.writer import Writer

_ACTIVATIONS = frozenset({"Sigmoid", "Tanh", "Relu", "Softsign", "Softplus"})
"""Those without parameters, by the names of the operators that compute them."""
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@rule("LSTM", "GRU", "RNN")
def recurrent(call: Call) -> Gradients:
    """Write the operator out over its steps, as the specification defines it, and go back through that."""
    _check(call)
    first = len(call.write.nodes)
    written = _Written(call)
    nodes = call.write.nodes[first:]
    infer_locally(nodes, call.scope)
    pairs = zip(written.outputs, call.gradients, strict=False)
    seeds = {value: gradient for value, gradient in pairs if gradient is not None}
    return backward(call.scope, nodes, seeds, [call.input(slot) for slot in sorted(call.wanted)])


def _check(call: Call) -> None:
    """Raise UnsupportedError for the forms of a cell that are not written out."""
    for name in ("clip", "activation_alpha", "activation_beta"):
        if name in call.node.attributes:
            raise call.refuse(f"a cell with {name!r} has no rule for its derivative")
    if call.integer("input_forget", 0):
        raise call.refuse("a cell with 'input_forget' has no rule for its derivative")
    if call.optional(4) is not None:
        lengths, steps = call.known(4), call.shape()[call.integer("layout", 0)]
        if lengths is None or (lengths != steps).any():
            raise call.refuse("sequences of different lengths have no rule for their derivative")


class _Written:
    """The nodes of a recurrent operator written out; outputs: Y, Y_h, and Y_c of an LSTM."""

    def __init__(self, call: Call) -> None:
        self._call, self._write = call, call.write
        self._kind = call.node.op_type
        self._across = call.integer("layout", 0) == 1
        steps, batch, _ = self._first(call.shape())
        self._hidden = call.shape(2)[-1]
        way = call.text("direction", "forward")
        ways = [0, 1] if way == "bidirectional" else [int(way == "reverse")]
        names = self._activations(len(ways))
        x = self._swapped(call.x, 3)
        done = [
            self._direction(x, index, backwards, names[index], (steps, batch)) for index, backwards in enumerate(ways)
        ]
        shape = [steps, 1, batch, self._hidden]
        every = self._joined([self._write.reshape(one[0], shape) for one in done], 1)
        last = [
            self._joined([self._write.reshape(one[k], shape[1:]) for one in done], 0) for k in range(1, len(done[0]))
        ]
        if self._across:
            every = self._write.transpose(every, [2, 0, 1, 3])
        self.outputs = [every, *(self._swapped(value, 3) for value in last)]

    def _first(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return steps, samples and features."""
        one, two, features = shape
        return (two, one, features) if self._across else (one, two, features)

    def _swapped(self, value: ir.Value, rank: int) -> ir.Value:
        return self._write.transpose(value, [1, 0, *range(2, rank)]) if self._across else value

    def _activations(self, ways: int) -> list[list[str]]:
        given = self._call.node.attributes.get("activations")
        names = _DEFAULTS[self._kind] * ways if given is None else [str(name) for name in given.as_strings()]
        known = {name.lower(): name for name in _ACTIVATIONS}
        for name in names:
            if name.lower() not in known:
                raise self._call.refuse(f"the activation {name!r} has no rule for its derivative in a cell")
        names = [known[name.lower()] for name in names]
        each = len(_DEFAULTS[self._kind])
        return [names[index * each : (index + 1) * each] for index in range(ways)]

    def _joined(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        return parts[0] if len(parts) == 1 else self._write.op("Concat", parts, axis=axis)

    def _part(self, value: ir.Value, index: int, shape: Sequence[int]) -> ir.Value:
        """Return what one direction has of an operand, without the axis of directions."""
        return self._write.reshape(self._write.cut(value, [0], [index], [index + 1]), shape)

    def _direction(
        self, x: ir.Value, index: int, backwards: int, names: Sequence[str], sizes: tuple[int, int]
    ) -> list[ir.Value]:
        """Append one direction; return the states of all steps `[steps, batch, hidden]`, and the last ones."""
        call, write, hidden, gates = self._call, self._write, self._hidden, _GATES[self._kind]
        kernel = write.transpose(self._part(call.input(1), index, call.shape(1)[1:]), [1, 0])
        recurrent = write.transpose(self._part(call.input(2), index, call.shape(2)[1:]), [1, 0])
        fed = write.op("MatMul", [x, kernel])
        inner = write.zeros([gates * hidden], call.dtype)
        if call.optional(3) is not None:
            both = self._part(call.input(3), index, [2 * gates * hidden])
            fed = write.op("Add", [fed, write.cut(both, [0], [0], [gates * hidden])])
            inner = write.cut(both, [0], [gates * hidden], [2 * gates * hidden])
        starts = []
        for slot in (5, 6)[: 2 if self._kind == "LSTM" else 1]:
            given = call.optional(slot)
            if given is None:
                starts.append(write.zeros([sizes[1], hidden], call.dtype))
            else:
                starts.append(self._part(self._swapped(given, 3), index, [sizes[1], hidden]))
        peepholes = None
        if self._kind == "LSTM" and call.optional(7) is not None:
            peepholes = self._part(call.input(7), index, [3 * hidden])
        cell = _Cell(call, names, recurrent, inner, peepholes, hidden, f"{write.prefix}{len(write.nodes)}.")
        node = ir.Node(
            "", "Scan", [*starts, fed], num_outputs=len(starts) + 1,
            attributes=ir.convenience.convert_attributes({
                "body": cell.graph(sizes[1], gates * hidden), "num_scan_inputs": 1,
                "scan_input_directions": [backwards], "scan_output_directions": [backwards],
            }),
        )  # fmt: skip
        write.adopt(node)
        return [node.outputs[-1], *node.outputs[: len(starts)]]


class _Cell:
    """Writes one step of a cell as the body of a Scan."""

    def __init__(
        self, call: Call, names: Sequence[str], recurrent: ir.Value, inner: ir.Value, peepholes: ir.Value | None,
        hidden: int, prefix: str,
    ) -> None:  # fmt: skip
        self._call, self._names, self._hidden, self._prefix = call, names, hidden, prefix
        self._recurrent, self._inner, self._peepholes = recurrent, inner, peepholes
        self._write = Writer(call.opset, f"{prefix}cell.")

    def graph(self, batch: int, width: int) -> ir.Graph:
        """Return the body: states and what a step is fed to the new states and what the step puts out."""
        kind = ir.TensorType(self._call.dtype)
        count = 2 if self._call.node.op_type == "LSTM" else 1
        states = [
            ir.Value(name=f"{self._prefix}state{index}", type=kind, shape=ir.Shape([batch, self._hidden]))
            for index in range(count)
        ]
        fed = ir.Value(name=f"{self._prefix}fed", type=kind, shape=ir.Shape([batch, width]))
        step: dict[str, Callable[..., list[ir.Value]]] = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}
        made = step[self._call.node.op_type](fed, *states)
        outputs = [self._op("Identity", value) for value in (*made, made[0])]
        for value in outputs:
            value.type = kind
        return ir.Graph([*states, fed], outputs, nodes=self._write.take(), name=f"{self._prefix}cell")

    def _op(self, op_type: str, *operands: ir.Value) -> ir.Value:
        return self._write.op(op_type, operands)

    def _gate(self, value: ir.Value, index: int) -> ir.Value:
        return self._write.cut(value, [-1], [index * self._hidden], [(index + 1) * self._hidden])

    def _lstm(self, fed: ir.Value, h: ir.Value, c: ir.Value) -> list[ir.Value]:
        """Gates in the order input, output, forget, cell."""
        f, g, last = self._names
        total = self._op("Add", self._op("Add", fed, self._op("MatMul", h, self._recurrent)), self._inner)
        gates = [self._gate(total, index) for index in range(4)]

        def peeped(gate: ir.Value, index: int, cell: ir.Value) -> ir.Value:
            if self._peepholes is None:
                return gate
            return self._op("Add", gate, self._op("Mul", self._gate(self._peepholes, index), cell))

        entered = self._op(f, peeped(gates[0], 0, c))
        kept = self._op(f, peeped(gates[2], 2, c))
        new = self._op("Add", self._op("Mul", kept, c), self._op("Mul", entered, self._op(g, gates[3])))
        shown = self._op(f, peeped(gates[1], 1, new))
        return [self._op("Mul", shown, self._op(last, new)), new]

    def _gru(self, fed: ir.Value, h: ir.Value) -> list[ir.Value]:
        """Gates in the order update, reset, hidden."""
        f, g = self._names
        size = self._hidden
        whole = self._write.cut
        both = self._op("MatMul", h, whole(self._recurrent, [1], [0], [2 * size]))
        both = self._op(
            "Add", self._op("Add", both, whole(fed, [-1], [0], [2 * size])), whole(self._inner, [0], [0], [2 * size])
        )
        update, reset = self._op(f, self._gate(both, 0)), self._op(f, self._gate(both, 1))
        weight, shift = self._gate(self._recurrent, 2), self._gate(self._inner, 2)
        if self._call.integer("linear_before_reset", 0):
            seen = self._op("Mul", reset, self._op("Add", self._op("MatMul", h, weight), shift))
        else:
            seen = self._op("Add", self._op("MatMul", self._op("Mul", reset, h), weight), shift)
        new = self._op(g, self._op("Add", self._gate(fed, 2), seen))
        one = self._write.scalar(1.0, self._call.dtype)
        rest = self._op("Mul", self._op("Sub", one, update), new)
        return [self._op("Add", rest, self._op("Mul", update, h))]

    def _rnn(self, fed: ir.Value, h: ir.Value) -> list[ir.Value]:
        total = self._op("Add", self._op("Add", fed, self._op("MatMul", h, self._recurrent)), self._inner)
        return [self._op(self._names[0], total)]
