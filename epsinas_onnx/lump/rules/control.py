"""Rules of operators that hold graphs: branches are lowered both, loops with the partitions that an iteration keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from epsinas_onnx.lump.context import BOOL, INT64, Context
from epsinas_onnx.lump.graph import Body
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.registry import Operands, Outcome, rule
from epsinas_onnx.lump.step import SeparateRuns, Step
from epsinas_onnx.lump.value import Dims, Lumped, Parts, Tensor


@dataclass(frozen=True)
class Form:
    """How a value lies in the lowered graph, which everything that may take its place must agree on.

    parts: None where the shape is not always the same; then the whole value is there.
    """

    parts: Parts | None
    dtype: ir.DataType
    weighted: bool
    varied: bool
    depends: bool

    @classmethod
    def of(cls, value: Lumped) -> Form:
        """Return the form of a value."""
        return cls(value.parts, value.dtype, value.weighted, value.varied, value.depends)

    def joined(self, other: Form) -> Form:
        """Return the form that can hold either value: the common refinement of their partitions."""
        parts: Parts | None = None
        if self.parts is not None and other.parts is not None:
            sizes = [part.size for part in self.parts]
            if sizes == [part.size for part in other.parts]:
                parts = tuple(mine.join(its) for mine, its in zip(self.parts, other.parts, strict=True))
        varied = self.varied or other.varied
        if varied and parts is None:
            raise SeparateRuns
        return Form(
            parts, self.dtype, self.weighted or other.weighted, varied, self.depends or other.depends
        )  # fmt: skip

    def shape(self, context: Context) -> Dims | None:
        """Return the shape of a tensor in this form."""
        if self.parts is None:
            return None
        counts = tuple(part.count for part in self.parts)
        return (context.constants, *counts) if self.varied else counts

    def tensor(self, context: Context, value: Lumped) -> Tensor:
        """Return a value as a tensor in this form, which must be at least as fine as its own."""
        if self.parts is None:
            return context.expand(value)
        value = context.refine(context.settle(value), self.parts)
        return context.in_all(value) if self.varied else context.canonical(value)

    def value(self, tensor: Tensor) -> Lumped:
        """Return a tensor in this form as a value."""
        return Lumped(
            self.parts, self.dtype, tensor, weighted=self.weighted, varied=self.varied, depends=self.depends
        )  # fmt: skip

    def placeholder(self, context: Context, label: str) -> Lumped:
        """Return what a body is given by its node, in this form."""
        return self.value(context.graph.placeholder(label, self.shape(context), self.dtype))


@rule("If")
def branch(context: Context, step: Step, operands: Operands) -> Outcome:
    """A known condition leaves one branch. Otherwise both are lowered, and outputs get the partitions of both.

    A condition that differs between constants would need two branches in one run.
    """
    (condition,) = operands
    graphs = [step.node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    if condition is None:
        return None
    if condition.known is not None:
        taken = graphs[0] if bool(condition.known.reshape(-1)[0]) else graphs[1]
        return context.bodies.inlined(taken)
    if condition.varied:
        raise SeparateRuns
    forms: list[Form] = []
    for graph in graphs:
        context.graph.open()
        found = [Form.of(value) for value in context.bodies.lowered(graph, {})]
        context.graph.discard()
        forms = [mine.joined(its) for mine, its in zip(forms, found, strict=True)] if forms else found
    whole = [
        Form(form.parts, form.dtype, form.weighted, form.varied, form.depends or condition.depends) for form in forms
    ]
    written: list[Body] = []
    for graph in graphs:
        context.graph.open()
        values = context.bodies.lowered(graph, {})
        tensors = [form.tensor(context, value) for form, value in zip(whole, values, strict=True)]
        written.append(context.graph.close([], tensors))
    context.bodies.at(step)
    made = context.graph.ops(
        "If", [context.canonical(condition)], [(form.shape(context), form.dtype) for form in whole],
        attributes={"then_branch": written[0], "else_branch": written[1]},
    )  # fmt: skip
    return [form.value(tensor) for form, tensor in zip(whole, made, strict=True)]


@rule("Loop")
def loop(context: Context, step: Step, operands: Operands) -> Outcome:
    """Carried values get the coarsest partitions that an iteration keeps.

    Where the values that go into an iteration have certain partitions, those that come out have others; both are
    joined until nothing changes any more, which ends because partitions only get finer. Then the classes of a carried
    value are equal before the first iteration and after each.
    """
    trips, condition, initial = operands[0], operands[1], list(operands[2:])
    if any(value is None for value in initial):
        return None
    if any(value is not None and value.varied for value in (trips, condition)):
        raise SeparateRuns
    body = step.node.attributes["body"].as_graph()
    carried = [Form.of(value) for value in initial if value is not None]
    count = len(carried)
    first = [Form((), INT64, False, False, False), Form((), BOOL, False, False, False)]
    once = context.bodies.shape(body.inputs[1])
    if once == (1,):
        first[1] = Form((Partition.one(1),), BOOL, False, False, False)

    def bind() -> dict[ir.Value, Lumped]:
        labels = ["iteration", "condition", *(f"carried{index}" for index in range(count))]
        given = [form.placeholder(context, label) for form, label in zip([*first, *carried], labels, strict=True)]
        return dict(zip(body.inputs, given, strict=True))

    while True:
        context.graph.open()
        values = context.bodies.lowered(body, bind())
        context.graph.discard()
        if values[0].varied:
            raise SeparateRuns
        kept = [mine.joined(Form.of(value)) for mine, value in zip(carried, values[1 : count + 1], strict=True)]
        if kept == carried:
            break
        carried = kept
    context.graph.open()
    bound = bind()
    values = context.bodies.lowered(body, bound)
    endless = _stays_true(condition, bound[body.inputs[1]], values[0])
    lengths = [_length(step, trips, endless, index) for index in range(count, len(step.node.outputs))]
    scanned = [_element(value, length) for value, length in zip(values[count + 1 :], lengths, strict=True)]
    forms = [Form.of(values[0]), *carried, *(form for form, _ in scanned)]
    tensors = [form.tensor(context, value) for form, value in zip(forms, values, strict=True)]
    written = context.graph.close([context.tensor(value) for value in bound.values()], tensors)
    context.bodies.at(step)
    start = [None if value is None else context.canonical(value) for value in (trips, condition)]
    start += [form.tensor(context, value) for form, value in zip(carried, initial, strict=True) if value is not None]
    outputs = [(form.shape(context), form.dtype) for form in carried]
    outputs += [(_stacked(form.shape(context), length, 0), form.dtype) for form, length in scanned]
    made = context.graph.ops("Loop", start, outputs, attributes={"body": written})
    results = [form.value(tensor) for form, tensor in zip(carried, made, strict=False)]
    return results + [
        _gathered(context, form, tensor, length, 0)
        for (form, length), tensor in zip(scanned, made[count:], strict=True)
    ]


@rule("Scan")
def scan(context: Context, step: Step, operands: Operands) -> Outcome:
    """States as the carried values of a Loop; scanned axes are taken index by index, all others keep their classes."""
    if context.opset < 9 or any(value is None for value in operands):
        return None
    values = [value for value in operands if value is not None]
    count = len(values) - step.integer("num_scan_inputs", 1)
    body = step.node.attributes["body"].as_graph()
    axes = step.integers("scan_input_axes") or (0,) * (len(values) - count)
    inputs, elements = [], []
    for value, axis in zip(values[count:], axes, strict=True):
        place = axis % value.rank
        free = (*value.axes[:place], Partition.discrete(value.shape[place]), *value.axes[place + 1 :])
        whole = context.refine(value, free)
        inputs.append((whole, place))
        elements.append(Form((*free[:place], *free[place + 1 :]), *_flags(whole)))
    carried = [Form.of(value) for value in values[:count]]

    def bind() -> dict[ir.Value, Lumped]:
        given = [form.placeholder(context, f"given{index}") for index, form in enumerate([*carried, *elements])]
        return dict(zip(body.inputs, given, strict=True))

    while True:
        context.graph.open()
        found = context.bodies.lowered(body, bind())
        context.graph.discard()
        kept = [mine.joined(Form.of(value)) for mine, value in zip(carried, found[:count], strict=True)]
        if kept == carried:
            break
        carried = kept
    length = inputs[0][0].shape[inputs[0][1]]
    context.graph.open()
    bound = bind()
    found = context.bodies.lowered(body, bound)
    scanned = [_element(value, length)[0] for value in found[count:]]
    tensors = [form.tensor(context, value) for form, value in zip([*carried, *scanned], found, strict=True)]
    written = context.graph.close([context.tensor(value) for value in bound.values()], tensors)
    context.bodies.at(step)
    places = _output_axes(step, scanned)
    attributes = {
        "body": written,
        "num_scan_inputs": len(inputs),
        "scan_input_axes": [place + whole.varied for whole, place in inputs],
        "scan_output_axes": [place + form.varied for form, place in zip(scanned, places, strict=True)],
        **step.attributes("scan_input_directions", "scan_output_directions"),
    }
    start = [form.tensor(context, value) for form, value in zip(carried, values, strict=False)]
    start += [context.canonical(whole) for whole, _ in inputs]
    outputs = [(form.shape(context), form.dtype) for form in carried]
    outputs += [
        (_stacked(form.shape(context), length, place + form.varied), form.dtype)
        for form, place in zip(scanned, places, strict=True)
    ]
    made = context.graph.ops("Scan", start, outputs, attributes=attributes)
    results = [form.value(tensor) for form, tensor in zip(carried, made, strict=False)]
    for form, place, tensor in zip(scanned, places, made[count:], strict=True):
        assert form.parts is not None
        parts = (*form.parts[:place], Partition.discrete(length), *form.parts[place:])
        results.append(Form(parts, *_flags(form)).value(tensor))
    return results


def _flags(value: Lumped | Form) -> tuple[ir.DataType, bool, bool, bool]:
    return value.dtype, value.weighted, value.varied, value.depends


def _stays_true(start: Lumped | None, before: Lumped, after: Lumped) -> bool:
    """Whether a loop's condition is true throughout: computed so, or handed on from one iteration to the next."""
    if after.known is not None:
        return bool(after.known.all())
    starts = start is None or (start.known is not None and bool(start.known.all()))
    return starts and after.tensor is before.tensor


def _length(step: Step, trips: Lumped | None, endless: bool, index: int) -> int | None:
    """Return how many iterations a loop has, where that is known while the graph is built."""
    shape = step.out_shape(index)
    if shape:
        return shape[0]
    return int(trips.known.reshape(-1)[0]) if trips is not None and trips.known is not None and endless else None


def _element(value: Lumped, length: int | None) -> tuple[Form, int | None]:
    """Return the form of what an iteration adds to a stacked output; without a known length it must be whole."""
    form = Form.of(value)
    if length is not None and form.parts is not None:
        return form, length
    if form.varied:
        raise SeparateRuns
    return Form(None, *_flags(form)), None


def _stacked(shape: Dims | None, length: int | None, place: int) -> Dims | None:
    return None if shape is None or length is None else (*shape[:place], length, *shape[place:])


def _gathered(context: Context, form: Form, tensor: Tensor, length: int | None, place: int) -> Lumped:
    """Return a loop's stacked output, whose iterations lie in front of the constants."""
    if form.parts is None or length is None:
        return Form(None, *_flags(form)).value(tensor)
    if form.varied:
        tensor = context.transpose(tensor, [1, 0, *range(2, len(tensor.dims))])
    return Form((Partition.discrete(length), *form.parts), *_flags(form)).value(tensor)


def _output_axes(step: Step, scanned: Iterable[Form]) -> list[int]:
    forms = list(scanned)
    given: Sequence[int] = step.integers("scan_output_axes") or (0,) * len(forms)
    return [int(np.mod(axis, len(form.parts or ()) + 1)) for axis, form in zip(given, forms, strict=True)]
