"""Rules of normalisations: means and variances over classes, each weighted by how many indices it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from epsinas_onnx.lump.context import FLOAT, Context
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.registry import Operands, Outcome, rule
from epsinas_onnx.lump.reshape import reshaped
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Array, Cause, Lumped, Parts, Tensor

_IDENTICAL = "normalises identical values, which leaves 0"


@rule("BatchNormalization", scaled=True, repeats=True)
def batch_normalise(context: Context, step: Step, operands: Operands) -> Outcome:
    """(x - mean) * scale / sqrt(variance + epsilon) + shift, a channel at a time.

    Statistics are the minibatch's, 0 and 1, or the stored ones (`norm_stats`). A pending factor f goes into epsilon:
    normalising f x with epsilon is normalising x with epsilon / f^2. One class of channels with one scale and no
    shift is an InstanceNormalization of `[1, constants, everything]`, the fastest form on the CPU provider, which has
    it for float32.
    """
    x, scale, shift, mean, variance = operands[:5]
    if x is None or scale is None or shift is None or x.rank < 2 or scale.rank != 1 or _statistics_wanted(step):
        return None
    training = step.integer("training_mode", 0) == 1
    epsilon = step.number("epsilon", 1e-5)
    stored = mean is not None and variance is not None and not training
    fits = context.target.blocked and x.dtype == FLOAT and x.factor > 0 and not x.is_single
    fits = fits and x.axes[0].uniform and x.axes[1].is_one and scale.is_single and shift.zero
    if not stored and context.target.norm_stats != "reset" and fits:
        if all(part.uniform for part in x.axes[2:]):
            return _as_one_instance(context, x, scale, epsilon)
        if scale.varied == x.varied:
            return _weighed(context, x, scale, epsilon)
    scale, shift = context.per_channel(scale, x.rank), context.per_channel(shift, x.rank)
    if mean is not None and variance is not None and not training:
        centred = context.elementwise("Sub", [context.settle(x), context.per_channel(mean, x.rank)])
        return _affine(
            context, centred, _deviation(context, context.per_channel(variance, x.rank), epsilon), scale, shift
        )
    if context.target.norm_stats == "reset":
        return _affine(context, x, _deviation(context, context.scalar(1.0, x.dtype), epsilon), scale, shift)
    axes = [0, *range(2, x.rank)]
    return standardised(context, step, x, axes, epsilon, scale, shift, record=True)


def _as_one_instance(context: Context, x: Lumped, scale: Lumped, epsilon: float) -> Lumped:
    tensor = context.tensor(x)
    copies = context.constants if x.varied else 1
    flat = context.reshape(tensor, (1, copies, tensor.elements // copies))
    inside = scale.varied == x.varied
    kind = x.dtype.numpy()
    slope = (
        context.reshape(context.tensor(context.settle(scale)), (copies,))
        if inside
        else context.constant(np.ones(copies, kind))
    )
    none = context.constant(np.zeros(copies, kind))
    made = context.op("InstanceNormalization", [flat, slope, none], flat.shape, epsilon=epsilon / x.factor**2)
    if context.doubtful:
        mean = context.mean(x, [0, *range(2, x.rank)])
        centred = context.elementwise("Sub", [x.replace(factor=1.0), mean.replace(factor=1.0)])
        context.observe(mean.replace(factor=1.0), context.mean(context.mul(centred, centred), [0, *range(2, x.rank)]))
    y = context.result(made, x.axes, [x, scale if inside else None])
    return y if inside else context.mul(y, context.per_channel(scale, x.rank))


def _weighed(context: Context, x: Lumped, scale: Lumped, epsilon: float) -> Lumped:
    """The same with positions that weigh as much as their class has indices.

    The sums are not divided by the number N of entries: with S of the squares, the deviation is sqrt(S + N epsilon)
    over sqrt(N), and that root goes into the scale.
    """
    tensor, kind = context.tensor(x), x.dtype.numpy()
    copies, samples = context.constants if x.varied else 1, x.axes[0].count
    flat = context.reshape(tensor, (copies, samples, tensor.elements // (copies * samples)))
    weights = np.ones(1)
    for part in x.axes[2:]:
        weights = np.multiply.outer(weights, part.sizes).reshape(-1)
    count = samples * float(weights.sum())
    column = context.constant(weights.astype(kind)[:, None])

    def summed(values: Tensor) -> Tensor:
        each = context.op("MatMul", [values, column], (copies, samples, 1))
        return context.reduce("ReduceSum", each, [1])

    one = (copies, 1, 1)
    mean = context.op("Mul", [summed(flat), context.number(1 / count, x.dtype)], one)
    centred = context.op("Sub", [flat, mean], flat.shape)
    squares = summed(context.op("Mul", [centred, centred], flat.shape))
    if context.doubtful:
        parts = tuple(part if axis == 1 else Partition.one(1) for axis, part in enumerate(x.axes))
        found = (context.result(sums, parts, [x]) for sums in (
            mean, context.op("Mul", [squares, context.number(1 / count, x.dtype)], one)
        ))  # fmt: skip
        context.observe(*found)
    shifted = context.op("Add", [squares, context.number(count * epsilon / x.factor**2, x.dtype)], one)
    slope = context.settle(scale.replace(factor=scale.factor * math.sqrt(count)))
    steepness = context.op(
        "Div", [context.reshape(context.tensor(slope), one), context.op("Sqrt", [shifted], one)], one
    )  # fmt: skip
    return context.result(context.op("Mul", [centred, steepness], flat.shape), x.axes, [x, scale])


@rule("InstanceNormalization", scaled=True)
def instance_normalise(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The same over the positions of each sample and channel."""
    x, scale, shift = operands
    if x is None or scale is None or shift is None:
        return None
    axes = list(range(2, x.rank))
    scale, shift = context.per_channel(scale, x.rank), context.per_channel(shift, x.rank)
    return standardised(context, step, x, axes, step.number("epsilon", 1e-5), scale, shift)


@rule("GroupNormalization", scaled=True)
def group_normalise(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The same over the positions and channels of each group; scale and shift are per group until operator set 21."""
    x, scale, shift = operands
    if x is None or scale is None or shift is None:
        return None
    groups = step.integer("num_groups", 1)
    if scale.shape == (groups,) and groups != x.shape[1]:
        scale, shift = (_repeated(context, value, x.shape[1] // groups) for value in (scale, shift))
    return in_groups(context, step, x, groups, step.number("epsilon", 1e-5), scale, shift)


def in_groups(
    context: Context, step: Step, x: Lumped, groups: int, epsilon: float, scale: Lumped, shift: Lumped
) -> Lumped:
    """Return x standardised over the channels and positions of each group, scaled and shifted channel by channel."""
    whole = x.shape
    cut = reshaped(context, x, (whole[0], groups, whole[1] // groups, *whole[2:]))
    number = context.scalar(1.0, x.dtype)
    y = reshaped(context, standardised(context, step, cut, list(range(2, cut.rank)), epsilon, number, None), whole)
    if not y.zero:
        y = context.mul(y, context.per_channel(scale, x.rank))
    return context.add(y, context.per_channel(shift, x.rank))


def _repeated(context: Context, value: Lumped, times: int) -> Lumped:
    labels = np.repeat(np.arange(value.shape[0]), times)
    part, classes = value.axes[0].restrict(labels)
    tensor = context.gather(context.canonical(value), classes, int(value.varied))
    return value.replace(parts=(part,), tensor=tensor, known=None, factor=1.0)


@rule("LayerNormalization", scaled=True)
def layer_normalise(context: Context, step: Step, operands: Operands) -> Outcome:
    """The same over all axes from `axis` on. One class along all of them is 0 after its mean is taken away."""
    x, scale, shift = [*operands, None][:3]
    if x is None or _statistics_wanted(step):
        return None
    axis = step.integer("axis", -1) % x.rank
    return standardised(context, step, x, list(range(axis, x.rank)), step.number("epsilon", 1e-5), scale, shift)


@rule("SimplifiedLayerNormalization", "RMSNormalization", scaled=True)
def root_mean_square_normalise(context: Context, step: Step, operands: Operands) -> Outcome:
    """X / sqrt(mean of x^2 + epsilon) * scale over all axes from `axis` on."""
    x, scale = [*operands, None][:2]
    if x is None or _statistics_wanted(step):
        return None
    axis = step.integer("axis", -1) % x.rank
    return rms(context, x, list(range(axis, x.rank)), step.number("epsilon", 1e-5), scale)


@rule("MeanVarianceNormalization", scaled=True)
def mean_variance_normalise(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """(x - mean) / (deviation + 1e-9) over `axes`; by its own definition without an epsilon inside the root."""
    (x,) = operands
    if x is None:
        return None
    axes = [axis % x.rank for axis in step.integers("axes") or (0, 2, 3)]
    x = context.settle(x)
    if all(x.axes[axis].is_one for axis in axes):
        return _vanished(context, step, x)
    centred = context.elementwise("Sub", [x, context.mean(x, axes)])
    variance = context.mean(context.mul(centred, centred), axes)
    spread = context.elementwise("Sqrt", [variance])
    return context.elementwise("Div", [centred, context.add(spread, context.scalar(1e-9, x.dtype))])


@rule("LpNormalization")
def lp_normalise(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """X / |x|, the norm being the sum of magnitudes or the root of the sum of squares along an axis.

    What has the norm 0 stays 0: so it does over the smallest normal number, as norms below it are rounding alone.
    """
    (x,) = operands
    if x is None or context.opset < 8:  # Max broadcasts since operator set 8
        return None
    axis = step.integer("axis", -1) % x.rank
    if step.integer("p", 2) == 1:
        norm = context.total(context.elementwise("Abs", [x]), [axis])
    else:
        norm = context.elementwise("Sqrt", [context.total(context.mul(x, x), [axis])])
    smallest = context.scalar(float(np.finfo(x.dtype.numpy()).tiny), x.dtype)
    return context.elementwise("Div", [x, context.elementwise("Max", [norm, smallest])])


def rms(context: Context, x: Lumped, axes: Sequence[int], epsilon: float, scale: Lumped | None) -> Lumped:
    """Return x over its root mean square, times scale; a pending factor goes into epsilon."""
    if x.factor <= 0:
        x = context.settle(x)
    epsilon = epsilon / x.factor**2
    x = x.replace(factor=1.0, tensor=context.tensor(x), known=None)
    square = context.settle(context.mean(context.mul(x, x), axes))
    return _affine(context, x, _deviation(context, square, epsilon), scale, None)


def standardised(
    context: Context,
    step: Step,
    x: Lumped,
    axes: Sequence[int],
    epsilon: float,
    scale: Lumped | None,
    shift: Lumped | None,
    record: bool = False,
) -> Lumped:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + shift over axes.

    The variance is that of the centred value: E[x^2] - E[x]^2 loses a small variation beside a large mean.
    """
    if all(x.axes[axis].is_one for axis in axes):
        zero = _vanished(context, step, x)
        return zero if shift is None else context.add(zero, shift)
    if x.factor <= 0:
        x = context.settle(x)
    epsilon = epsilon / x.factor**2
    x = x.replace(factor=1.0, tensor=context.tensor(x), known=None)
    if context.target.whole_norms:
        return _as_one_node(context, x, axes, epsilon, scale, shift, record)
    mean = context.settle(context.mean(x, axes))
    centred = context.elementwise("Sub", [x, mean])
    variance = context.settle(context.mean(context.mul(centred, centred), axes))
    if record:
        context.observe(mean, variance)
    return _affine(context, centred, _deviation(context, variance, epsilon), scale, shift)


def _as_one_node(
    context: Context,
    x: Lumped,
    axes: Sequence[int],
    epsilon: float,
    scale: Lumped | None,
    shift: Lumped | None,
    record: bool,
) -> Lumped:
    """Return the same as one node of our own: x, what each position weighs in a mean, and a scale of one class."""
    weights = _shares(x.axes, tuple(axes))
    tensor = context.canonical(x)
    lead = x.varied  # constants in front are no axis of the user's
    inside = scale if scale is not None and scale.is_single and scale.varied == x.varied else None
    shape = tuple(1 if axis in axes else count for axis, count in enumerate(x.counts))
    whole = (context.constants, *shape) if lead else shape
    made, mean, variance = context.graph.ops(
        "Standardise",
        [
            tensor,
            None if weights is None else context.constant(weights),
            None if inside is None else context.tensor(context.settle(inside)),
        ],
        [(tensor.shape, x.dtype), (whole, x.dtype), (whole, x.dtype)],
        "epsinas",
        {"axes": [axis + lead for axis in axes], "epsilon": float(epsilon)},
    )
    if record:
        parts = tuple(Partition.one(1) if axis in axes else part for axis, part in enumerate(x.axes))
        context.observe(context.result(mean, parts, [x]), context.result(variance, parts, [x]))
    y = context.result(made, x.axes, [x, inside])
    if scale is not None and inside is None:
        y = context.mul(y, scale)
    return y if shift is None else context.add(y, shift)


@lru_cache(maxsize=256)
def _shares(parts: Parts, axes: tuple[int, ...]) -> Array | None:
    """Return what each combination of classes weighs in a mean over some axes; None where all weigh the same."""
    shares = np.ones((1,) * len(parts))
    for axis in axes:
        part = parts[axis]
        if not part.uniform:
            shares = shares * (part.sizes / part.size).reshape((-1,) + (1,) * (len(parts) - axis - 1))
    return None if shares.size == 1 else shares


def _statistics_wanted(step: Step) -> bool:
    return any(output.uses() or output.is_graph_output() for output in step.node.outputs[1:])


def _vanished(context: Context, step: Step, x: Lumped) -> Lumped:
    cause = Cause(step.node, _IDENTICAL, step.order) if x.depends else x.cause
    context.guard(x)
    return context.zeros(x.shape, x.dtype, cause)


def _deviation(context: Context, variance: Lumped, epsilon: float) -> Lumped:
    return context.elementwise("Sqrt", [context.add(variance, context.scalar(epsilon, variance.dtype))])


def _affine(context: Context, x: Lumped, deviation: Lumped, scale: Lumped | None, shift: Lumped | None) -> Lumped:
    """Return x / deviation * scale + shift; a scale of one class goes through a single multiplication with x."""
    if scale is not None and scale.is_single:
        x = context.mul(x, context.elementwise("Div", [scale, deviation]))
    else:
        x = context.elementwise("Div", [x, deviation])
        x = x if scale is None else context.mul(x, scale)
    return x if shift is None else context.add(x, shift)
