"""Recurrent layers, step by step: one function for plain arrays and for values, by what it computes with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra, far, smooth
from epsinas_onnx.evaluate_lumped.call import Call, Unsupported
from epsinas_onnx.evaluate_lumped.families import Operands, Run, bilinear, formed, joined
from epsinas_onnx.evaluate_lumped.kernels import layout, pointwise
from epsinas_onnx.evaluate_lumped.kernels import linear as sums
from epsinas_onnx.evaluate_lumped.moderate import Moderate, closed, is_plain, opened
from epsinas_onnx.evaluate_lumped.rules import functions
from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.evaluate_lumped.steps import Done, Steps
from epsinas_onnx.evaluate_lumped.value import Operand, Value, depends, spread
from epsinas_onnx.lump.graph import Node

_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_ALPHA = {"Affine": 1.0, "LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "Elu": 1.0, "HardSigmoid": 0.2, "ScaledTanh": 1.0}


class Arithmetic(Protocol):
    """What a recurrent layer is computed with."""

    def add(self, first: Any, second: Any) -> Any:
        """Return the sum."""

    def subtract(self, first: Any, second: Any) -> Any:
        """Return the difference."""

    def multiply(self, first: Any, second: Any) -> Any:
        """Return the product."""

    def matmul(self, first: Any, second: Any) -> Any:
        """Return the matrix product."""

    def take(self, value: Any, index: tuple[Any, ...]) -> Any:
        """Return an index or a slice."""

    def transposed(self, value: Any) -> Any:
        """Return a matrix with its axes exchanged."""

    def stack(self, rows: Sequence[Any]) -> Any:
        """Return one behind the other along a new first axis."""

    def put_in(self, value: Any, axis: int) -> Any:
        """Return a value with an axis of size 1 put in."""

    def number(self, value: float) -> Any:
        """Return a number."""

    def choose(self, condition: Array, first: Any, second: Any) -> Any:
        """Return the first where a condition holds, else the second."""

    def zeros(self, shape: tuple[int, ...], like: Any) -> Any:
        """Return zeros of the kind of another."""

    def function(self, name: str) -> Callable[[Any], Any]:
        """Return a function by name; raises KeyError for one that is not known."""

    def all_steps(self, steps: Steps) -> Done[Any] | None:
        """Return what all steps give, where it takes less than one after the other; None where it does not."""


class Plain:
    """Arrays as they are."""

    add = staticmethod(np.add)
    subtract = staticmethod(np.subtract)
    multiply = staticmethod(np.multiply)
    matmul = staticmethod(np.matmul)
    choose = staticmethod(np.where)

    def take(self, value: Array, index: tuple[Any, ...]) -> Array:
        """Return an index or a slice."""
        made: Array = value[index]
        return made

    def transposed(self, value: Array) -> Array:
        """Return a matrix with its axes exchanged."""
        return value.T

    def stack(self, rows: Sequence[Array]) -> Array:
        """Return one behind the other along a new first axis."""
        return np.stack(rows)

    def put_in(self, value: Array, axis: int) -> Array:
        """Return a value with an axis of size 1 put in."""
        return np.expand_dims(value, axis)

    def number(self, value: float) -> float:
        """Return a number."""
        return value

    def zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        """Return zeros of the kind of another."""
        return np.zeros(shape, like.dtype)

    def function(self, name: str) -> Callable[[Array], Array]:
        """Return a function by name; raises KeyError for one that is not known."""
        made: Callable[[Array], Array] = {
            "Sigmoid": pointwise.sigmoid, "Tanh": pointwise.plain(np.tanh), "Relu": pointwise.relu,
            "HardSigmoid": pointwise.hard_sigmoid, "LeakyRelu": pointwise.leaky_relu, "Elu": pointwise.elu,
            "Softplus": pointwise.softplus, "Softsign": pointwise.softsign,
        }[name](_bare(name))  # fmt: skip
        return made

    def all_steps(self, steps: Steps) -> None:
        """Go one by one."""


class Exact:
    """Values with base and deviation."""

    add = staticmethod(algebra.add)
    subtract = staticmethod(algebra.subtract)
    multiply = staticmethod(algebra.multiply)
    number = staticmethod(algebra.number)

    def __init__(self) -> None:
        self._product = bilinear(sums.matmul, free=lambda axis, rank: axis < rank - 1)(_bare("MatMul"))
        self._joined = joined(_bare("Concat"))

    def matmul(self, first: Value, second: Value) -> Any:
        """Return the matrix product."""
        return self._product([first, second])[0]

    def take(self, value: Value, index: tuple[Any, ...]) -> Any:
        """Return an index or a slice."""
        parts = [
            None if part is None else part.become(spread(part, value.shape)[index], 0)
            for part in (value.base, value.deviation, value.total)
        ]
        shape = next((part.array.shape for part in parts if part is not None), None)
        return Value(np.broadcast_to(np.zeros(()), value.shape)[index].shape if shape is None else shape, *parts)

    def transposed(self, value: Value) -> Value:
        """Return a matrix with its axes exchanged."""
        return algebra.mapped(value, lambda part: part.become(part.array.T, 0), value.shape[::-1])

    def stack(self, rows: Sequence[Value]) -> Any:
        """Return one behind the other along a new first axis."""
        lifted = [algebra.lifted(row, len(row.shape) + 1) for row in rows]
        return self._joined(lifted)[0]

    def put_in(self, value: Value, axis: int) -> Value:
        """Return a value with an axis of size 1 put in."""
        shape = (*value.shape[:axis], 1, *value.shape[axis:])
        return algebra.mapped(value, lambda part: part.become(np.expand_dims(part.array, axis), 0), shape)

    def choose(self, condition: Array, first: Value, second: Value) -> Value:
        """Return the first where a condition holds, else the second."""
        return algebra.select(condition, condition, first, second)

    def zeros(self, shape: tuple[int, ...], like: Value) -> Value:
        """Return zeros of the kind of another."""
        return Value(shape, None, None)

    def function(self, name: str) -> Callable[[Value], Value]:
        """Return a function by name; raises KeyError for one that is not known."""
        bare = _bare(name)
        made: dict[str, Callable[[], Callable[[Value], Value]]] = {
            "Sigmoid": lambda: smooth.SIGMOID, "Tanh": lambda: smooth.TANH, "Relu": lambda: algebra.relu,
            "HardSigmoid": lambda: functions.hard_sigmoid(bare), "LeakyRelu": lambda: functions.leaky_relu(bare),
            "Elu": lambda: functions.elu(bare), "Softplus": lambda: smooth.SOFTPLUS,
            "Softsign": lambda: functions.softsign,
        }  # fmt: skip
        return made[name]()

    def all_steps(self, steps: Steps) -> Done[Value] | None:
        """Return what all steps give where none matters to the next one's functions."""
        return far.all_steps(self, steps)


def _bare(name: str) -> Call:
    return Call(Node(name, "", (), (), {"alpha": _ALPHA[name]} if name in _ALPHA else {}, ""), (), {})


class Layer:
    """One recurrent layer. Raises Unsupported for functions and options that only ONNX Runtime has."""

    def __init__(self, call: Call, arithmetic: Arithmetic) -> None:
        self.kind, self.a, self.call = call.op_type, arithmetic, call
        self.hidden = int(call.attribute("hidden_size", 0))
        self.direction = str(call.attribute("direction", "forward"))
        names = call.attribute("activations") or _DEFAULTS[self.kind] * (2 if self.direction == "bidirectional" else 1)
        self.names = names = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
        if call.attribute("layout", 0) or call.attribute("clip") or call.attribute("input_forget", 0):
            raise Unsupported(f"{self.kind} with a layout, a clip or coupled gates")
        if call.attribute("activation_alpha") or call.attribute("activation_beta"):
            raise Unsupported(f"{self.kind} with functions of its own")
        try:
            self.functions = [arithmetic.function(name) for name in names]
        except KeyError as error:
            raise Unsupported(f"{self.kind} with the function {error}") from error

    def run(self, operands: Sequence[Any], lengths: Array | None) -> list[Any]:
        """Return the outputs for X, W, R, B, initial h, initial c (None where left out)."""
        x, weight, recurrence, bias, hidden, cell = operands
        a = self.a
        steps, batch = x.shape[:2]
        count = weight.shape[0]
        every: list[Sequence[Any]] = []
        last_hidden, last_cell = [], []
        own = len(self.functions) // max(1, count)
        for index in range(count):
            w, r = (a.transposed(a.take(value, (index,))) for value in (weight, recurrence))
            biased = self._biased(None if bias is None else a.take(bias, (index,)))
            products = a.matmul(x, w)
            if bias is not None and self.kind != "GRU":  # its gates add one bias before they multiply, one after
                gates = 4 if self.kind == "LSTM" else 1
                products = a.add(products, self._both(a.take(bias, (index,)), gates * self.hidden))
            h = a.zeros((batch, self.hidden), x) if hidden is None else a.take(hidden, (index,))
            c = a.zeros((batch, self.hidden), x) if cell is None else a.take(cell, (index,))
            order = range(steps)[:: -1 if self.direction == "reverse" or index == 1 else 1]
            own_places = slice(index * own, (index + 1) * own)
            ahead = Steps(self.kind, self.hidden, self.names[own_places], products, r, h, c, order)
            done = a.all_steps(ahead) if lengths is None else None
            done = done or self._one_by_one(ahead, biased, self.functions[own_places], lengths)
            every.append(done.outputs)
            last_hidden.append(done.hidden)
            last_cell.append(done.cell)
        if count == 1:
            whole = a.put_in(a.stack(every[0]), 1)
        else:
            whole = a.stack([a.stack([every[index][place] for index in range(count)]) for place in range(steps)])
        made = [whole, a.stack(last_hidden)]
        return [*made, a.stack(last_cell)] if self.kind == "LSTM" else made

    def _one_by_one(
        self, steps: Steps, biased: Callable[..., Any], functions: Sequence[Any], lengths: Array | None
    ) -> Done[Any]:
        a, h, c = self.a, steps.hidden, steps.cell
        rows: list[Any] = [None] * len(steps.order)
        for place in steps.order:
            new, kept = self._step(a.take(steps.products, (place,)), h, c, steps.recurrence, biased, functions)
            rows[place] = new
            if lengths is not None:
                inside = (place < lengths)[:, None]
                rows[place] = a.choose(inside, new, a.zeros((len(lengths), self.hidden), new))
                new, kept = a.choose(inside, new, h), a.choose(inside, kept, c)
            h, c = new, kept
        return Done(rows, h, c)

    def _gate(self, value: Any, index: int) -> Any:
        return self.a.take(value, (Ellipsis, slice(index * self.hidden, (index + 1) * self.hidden)))

    def _both(self, bias: Any, size: int) -> Any:
        """Return the sum of the two biases of all gates."""
        return self.a.add(*(self.a.take(bias, (Ellipsis, slice(start, start + size))) for start in (0, size)))

    def _biased(self, bias: Any) -> Callable[..., Any]:
        """Return what adds to a value the biases of some gates, whose sums are made once."""
        a = self.a
        sums: dict[tuple[int, ...], Any] = {}

        def biased(value: Any, *indices: int) -> Any:
            if bias is None:
                return value
            if indices not in sums:
                sums[indices] = self._gate(bias, indices[0])
                for index in indices[1:]:
                    sums[indices] = a.add(sums[indices], self._gate(bias, index))
            return a.add(value, sums[indices])

        return biased

    def _step(self, product: Any, h: Any, c: Any, r: Any, biased: Any, functions: Sequence[Any]) -> tuple[Any, Any]:
        a, gate = self.a, self._gate
        if self.kind == "GRU":
            return self._gated(product, h, r, functions, biased), c
        total = a.add(product, a.matmul(h, r))
        if self.kind == "RNN":
            return functions[0](total), c
        f, g, out = functions
        gates = f(a.take(total, (Ellipsis, slice(0, 3 * self.hidden))))
        i, o, forget = (gate(gates, k) for k in range(3))
        c = a.add(a.multiply(forget, c), a.multiply(i, g(gate(total, 3))))
        return a.multiply(o, out(c)), c

    def _gated(self, product: Any, h: Any, r: Any, functions: Any, biased: Any) -> Any:
        a, n, gate = self.a, self.hidden, self._gate
        f, g = functions
        late = bool(self.call.attribute("linear_before_reset", 0))
        passed = a.matmul(h, a.take(r, (slice(None), slice(0, 2 * n))))
        z = f(biased(a.add(gate(product, 0), gate(passed, 0)), 0, 3))
        reset = f(biased(a.add(gate(product, 1), gate(passed, 1)), 1, 4))
        last = a.take(r, (slice(None), slice(2 * n, 3 * n)))
        if late:
            inner = a.multiply(reset, biased(a.matmul(h, last), 5))
            new = g(a.add(biased(gate(product, 2), 2), inner))
        else:
            new = g(biased(a.add(gate(product, 2), a.matmul(a.multiply(reset, h), last)), 2, 5))
        return a.add(a.multiply(a.subtract(a.number(1.0), z), new), a.multiply(z, h))


def _slots(operands: Sequence[Any]) -> tuple[list[Any], Any]:
    x, w, r, b, lengths, h, c, _ = [*operands, *(None,) * 8][:8]
    return [x, w, r, b, h, c], lengths


def recurrent_kernel(call: Call) -> layout.Kernel:
    """The layer on plain arrays."""
    layer = Layer(call, Plain())
    if call.has(7):
        raise Unsupported("LSTM with peepholes")

    def kernel(*operands: Any) -> tuple[Any, ...]:
        values, lengths = _slots(operands)
        return tuple(layer.run(values, lengths)[: len(call.node.outputs)])

    return kernel


def recurrent_rule(call: Call) -> Run:
    """The layer on values."""
    layer = Layer(call, Exact())
    if call.has(7):
        raise Unsupported("LSTM with peepholes")
    try:
        plain: Layer | None = Layer(call, Moderate())
    except Unsupported:
        plain = None

    def run(operands: Operands) -> Sequence[Operand | None]:
        values, lengths = _slots(operands)
        if depends(lengths):
            raise Unsupported("sequence lengths that differ between samples")
        found = None if lengths is not None or plain is None else _moderate(plain, values)
        return (found or layer.run(values, formed(lengths)))[: len(call.node.outputs)]

    return run


def _moderate(layer: Layer, values: Sequence[Any]) -> list[Value] | None:
    """Return the outputs as plain arrays give them, which have no scales to look after; None beyond their range."""
    x, w, r, b, *states = values
    if any(value is not None and value.deviation is not None for value in (w, r, b)):
        return None
    found = [None if value is None else opened(value, 1) for value in (x, w, r, b, *states)]
    if any(own is None and value is not None for own, value in zip(found, values, strict=True)):
        return None
    lost: list[str] = []
    try:
        with np.errstate(over="raise", under="call", invalid="raise", call=lambda kind, _: lost.append(kind)):
            made = layer.run(found, None)
    except FloatingPointError:
        return None
    if lost and not is_plain(made[0]):
        return None
    return [closed(one, x.shape[1], len(one.base.shape) - 2) for one in made]
