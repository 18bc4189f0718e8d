"""The rules of operators that are linear, multiply, or add."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.proxies.growth.flow import Flow, Step, Writer, rule, standing

_LARGER = frozenset({"ReduceSum", "CumSum", "Resize", "Upsample"})
"""Operators that are linear in one input, and may make entries larger than the largest of it."""
_SIGNED = frozenset({"Neg", "Resize", "Upsample"})
"""Those that may make entries below 0 of others."""

# Linear in one input: the value and its derivative go the same way.


@rule(
    "Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather",
    "GatherElements", "GatherND", "Expand", "Tile", "AveragePool", "GlobalAveragePool", "ReduceSum", "ReduceMean",
    "Upsample", "Resize", "DepthToSpace", "SpaceToDepth", "Neg", "CumSum", "Trilu", "ReverseSequence",
)  # fmt: skip
def linear(step: Step) -> Flow:
    """Move, average or sum entries of input 0, which the other inputs say how to."""
    step.only(0)
    flow = step.of(0)
    value, op_type = step.again({0: flow.value}), step.node.op_type
    size = flow.size if op_type not in _LARGER else None
    return Flow(
        value, _same_way(step, flow, value), flow.scale, size, flow.steps, flow.positive and op_type not in _SIGNED
    )  # fmt: skip


@rule("Cast")
def cast(step: Step) -> Flow:
    """Change the element type, from floats to floats."""
    to = ir.DataType(step.node.attributes.get_int("to"))
    if to not in FLOATS:
        raise step.refuse(f"makes {to} of what grows with the weights")
    return linear(step)


@rule("CastLike")
def cast_like(step: Step) -> Flow:
    """Give what is of the same element type already; the rest of input 1 does not count."""
    like = step.node.inputs[1]
    if like is not None and like.dtype not in (None, step.static(0).dtype):
        raise step.refuse("changes the element type")
    return step.of(0)


@rule("Pad")
def pad(step: Step) -> Flow:
    """Surround with zeros, or with what lies at the border; any other number would not grow with the weights."""
    step.only(0)
    mode = step.node.attributes.get_string("mode", "constant")
    filling = step.node.attributes.get_float("value", 0.0)
    if mode == "constant" and step.has(2):
        given = step.number(2)
        filling = math.nan if given is None else given
    if mode == "constant" and filling != 0:
        raise step.refuse("pads with a number other than 0")
    return linear(step)


@rule("Split")
def split(step: Step) -> Sequence[Flow]:
    """Part an input."""
    step.only(0)
    flow, count = step.of(0), len(step.node.outputs)
    values = _split(step, flow.value, count)
    tangents: list[ir.Value | None] = [None] * count
    if flow.tangent is not None:
        tangents = list(values) if flow.tangent is flow.value else list(_split(step, flow.tangent, count))
    return [
        dataclasses.replace(flow, value=value, tangent=tangent) for value, tangent in zip(values, tangents, strict=True)
    ]


def _split(step: Step, value: ir.Value, count: int) -> Sequence[ir.Value]:
    first = step.again({0: value}).producer()
    assert first is not None
    first.resize_outputs(count)
    for number, output in enumerate(first.outputs):
        output.name = output.name or f"{first.name}.{number}"
    return first.outputs


# Products: both rules of Leibniz, and scales add up.


@rule("MatMul", "Mul", "Einsum")
def product(step: Step) -> Flow:
    """Multiply two inputs."""
    if len(step.node.inputs) != 2:
        raise step.refuse("multiplies other than two inputs")
    return _product(step)


@rule("Conv", "ConvTranspose")
def convolution(step: Step) -> Flow:
    """Multiply by a kernel, and add a bias."""
    step.only(0, 1)
    found = _product(step, drop=(2,))
    if not step.has(2) or _is_zero(step.static(2)):
        return found
    shape = step.node.inputs[1].shape if step.node.inputs[1] is not None else None
    rank = 4 if shape is None else len(shape)
    return sum_of(step.write, [found, Flow(step.write.reshape(step.static(2), [1, -1, *[1] * (rank - 2)]))])


@rule("Gemm")
def gemm(step: Step) -> Flow:
    """Multiply two matrices by each other and by alpha, and add beta times a third."""
    step.only(0, 1)
    if step.write.opset < 11 and not _is_zero(step.static(2)):
        raise step.refuse("adds a bias other than 0 before operator set 11")
    found = _product(step, drop=(2,) if step.write.opset >= 11 else ())
    if not step.has(2) or _is_zero(step.static(2)):
        return found
    beta = step.write.number(step.node.attributes.get_float("beta", 1.0))
    return sum_of(step.write, [found, Flow(step.write.op("Mul", [step.static(2), beta]))])


@rule("Div")
def quotient(step: Step) -> Flow:
    """Divide: with y = a / b, y' = (a' - y b') / b."""
    write = step.write
    over, under = write.factors(step.of(0), step.of(1))
    value = step.again({0: over.value, 1: under.value})
    tangent = over.tangent
    if under.tangent is not None:
        lost = write.op("Neg", [write.op("Mul", [value, under.tangent])])
        tangent = write.add(tangent, lost)
    scale = write.add(over.scale, None if under.scale is None else write.op("Neg", [under.scale]))
    return Flow(value, None if tangent is None else write.op("Div", [tangent, under.value]), scale)


def _product(step: Step, drop: Sequence[int] = ()) -> Flow:
    write, one, other = step.write, step.of(0), step.of(1)
    if ir.convenience.get_const_tensor(other.value) is None:
        one, other = write.factors(one, other)
    value = step.again({0: one.value, 1: other.value}, drop)
    terms: list[ir.Value] = []
    for slot, flow in enumerate((one, other)):
        if flow.tangent is flow.value:  # a weight, and what is linear in the weights
            terms.append(value)
        elif flow.tangent is not None:
            both = {0: one.value, 1: other.value, slot: flow.tangent}
            terms.append(step.again(both, drop))
    size, steps = _product_size(step, one, other), one.steps + other.steps + 1
    positive = one.positive and other.positive
    return write.bounded(Flow(value, write.add(*terms), write.add(one.scale, other.scale), size, steps, positive))


def _product_size(step: Step, one: Flow, other: Flow) -> float | None:
    """Return what bounds a signal times a stored weight: the largest sum of the weight's magnitudes, for one output."""
    weight = ir.convenience.get_const_tensor(other.value)
    if weight is None or one.size is None or step.node.op_type not in ("Conv", "MatMul", "Gemm"):
        return None
    array, node = np.abs(weight.numpy()), step.node
    if node.op_type == "Conv":
        sums = array.reshape(len(array), -1).sum(axis=1)
    else:
        across = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
        sums = array.sum(axis=1 if across or array.ndim < 2 else -2) if array.ndim > 1 else array.sum(keepdims=True)
    alpha = abs(node.attributes.get_float("alpha", 1.0)) if node.op_type == "Gemm" else 1.0
    largest = float(sums.max(initial=0.0)) * alpha
    return one.size + math.log(largest) if 0 < largest < math.inf else None


# Sums: scales are brought together first.


@rule("Add", "Sum")
def plus(step: Step) -> Flow:
    """Add inputs; zeros, such as the biases of a drawn graph, are left out where they don't widen the sum."""
    flows = [step.of(slot) for slot in range(len(step.node.inputs))]
    moving = [flow for flow in flows if flow.tangent is not None or not _is_zero(flow.value)]
    kept = moving if _covers(step, moving) else flows
    return sum_of(step.write, kept)


@rule("Sub")
def minus(step: Step) -> Flow:
    """Subtract."""
    write, other = step.write, step.of(1)
    negative = Flow(
        write.op("Neg", [other.value]),
        None if other.tangent is None else write.op("Neg", [other.tangent]),
        other.scale,
    )
    return sum_of(write, [step.of(0), negative])


@rule("Concat")
def concat(step: Step) -> Flow:
    """Append inputs to each other."""
    flows, scale = step.write.aligned([step.of(slot) for slot in range(len(step.node.inputs))])
    value = step.again({slot: flow.value for slot, flow in enumerate(flows)})
    tangent = step.again({slot: standing(step.write, flow) for slot, flow in enumerate(flows)})
    return Flow(value, tangent, scale)


@rule("Where")
def choice(step: Step) -> Flow:
    """Choose between inputs 1 and 2, by what the weights don't decide."""
    step.only(1, 2)
    (then, other), scale = step.write.aligned([step.of(1), step.of(2)])
    value = step.again({1: then.value, 2: other.value})
    tangent = step.again({1: standing(step.write, then), 2: standing(step.write, other)})
    return Flow(value, tangent, scale)


def sum_of(write: Writer, flows: Sequence[Flow]) -> Flow:
    """Return the sum of flows."""
    if len(flows) == 1:
        return flows[0]
    aligned, scale = write.aligned(flows)
    value = write.add(*(flow.value for flow in aligned))
    assert value is not None
    sizes = [flow.size for flow in flows if flow.size is not None]
    size = max(sizes) + math.log(len(flows)) if len(sizes) == len(flows) else None
    steps, positive = max(flow.steps for flow in flows) + 1, all(flow.positive for flow in flows)
    found = Flow(value, write.add(*(flow.tangent for flow in aligned)), scale, size, steps, positive)
    moving = [flow for flow in aligned if flow.tangent is not None]
    if found.tangent is not None and len(moving) < len(aligned):
        # Where a flow that moves is widened by one that stands still, its derivative is too.
        widened = write.op("Add", [found.tangent, write.op("Mul", [value, write.number(0.0)])])
        found = dataclasses.replace(found, tangent=widened)
    return write.bounded(found)


def _same_way(step: Step, flow: Flow, value: ir.Value) -> ir.Value | None:
    if flow.tangent is None:
        return None
    return value if flow.tangent is flow.value else step.again({0: flow.tangent})


def _is_zero(value: ir.Value) -> bool:
    """Whether a stored tensor holds nothing but zeros."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and not np.asarray(tensor.numpy()).any()


def _covers(step: Step, flows: Sequence[Flow]) -> bool:
    """Whether one of the flows has as many axes, and entries, as the sum, so that leaving out the rest drops none."""
    if not flows:
        return False
    shape = step.node.outputs[0].shape
    by_value = {step.of(slot).value: step.node.inputs[slot] for slot in range(len(step.node.inputs))}
    shapes = [found.shape for flow in flows if (found := by_value[flow.value]) is not None]
    return shape is not None and any(one == shape for one in shapes)
