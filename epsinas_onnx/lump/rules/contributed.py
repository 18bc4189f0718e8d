"""Rules of ONNX Runtime's fused operators: a sum, a convolution or an embedding with what stands behind it."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from epsinas_onnx.lump.context import BOOL, Context
from epsinas_onnx.lump.partition import Partition, every
from epsinas_onnx.lump.registry import Operands, Outcome, rule
from epsinas_onnx.lump.rules.attention import is_wanted
from epsinas_onnx.lump.rules.convolution import convolve
from epsinas_onnx.lump.rules.layout import chosen, gather, permuted, relabelled
from epsinas_onnx.lump.rules.normalisation import in_groups, rms, standardised
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Lumped

_MICROSOFT = "com.microsoft"
_INT32 = ir.DataType.INT32


@rule("SkipLayerNormalization", domain=_MICROSOFT, scaled=True)
def skip_layer_normalise(context: Context, step: Step, operands: Operands) -> Outcome:
    """A layer normalisation of input + skip + bias; the sum is the last output."""
    x, skip, scale, shift, bias = [*operands, None, None][:5]
    if x is None or skip is None or is_wanted(step, 1) or is_wanted(step, 2):
        return None
    total = _sum(context, x, skip, bias)
    y = standardised(context, step, total, [total.rank - 1], step.number("epsilon", 1e-12), scale, shift)
    return [y, None, None, total]


@rule("SkipSimplifiedLayerNormalization", domain=_MICROSOFT, scaled=True)
def skip_root_mean_square_normalise(context: Context, step: Step, operands: Operands) -> Outcome:
    """The same with the root mean square in place of the deviation."""
    x, skip, scale, bias = [*operands, None][:4]
    if x is None or skip is None or is_wanted(step, 1) or is_wanted(step, 2):
        return None
    total = _sum(context, x, skip, bias)
    return [rms(context, total, [total.rank - 1], step.number("epsilon", 1e-12), scale), None, None, total]


def _sum(context: Context, x: Lumped, skip: Lumped, bias: Lumped | None) -> Lumped:
    total = context.add(x, skip)
    return total if bias is None else context.add(total, bias)


@rule("EmbedLayerNormalization", domain=_MICROSOFT)
def embed(context: Context, step: Step, operands: Operands) -> Outcome:
    """A layer normalisation of the rows of two or three tables: of the tokens, their places and their segments."""
    ids, segments, words, places, kinds, scale, shift, mask, given = [*operands, None, None][:9]
    if ids is None or words is None or places is None:
        return None
    rows = [gather(context, step, [words, ids])]
    if given is None:
        rows.append(chosen(context, places, 0, every(ids.shape[1])))
    else:
        rows.append(gather(context, step, [places, given]))
    if kinds is not None and segments is not None:
        rows.append(gather(context, step, [kinds, segments]))
    total = context.scalar(0.0, words.dtype).replace(zero=True)
    for row in rows:
        if not isinstance(row, Lumped):
            return None
        total = context.add(total, row)
    y = standardised(context, step, total, [2], step.number("epsilon", 1e-12), scale, shift)
    return [y, _mask_index(context, ids, mask), total]


def _mask_index(context: Context, ids: Lumped, mask: Lumped | None) -> Lumped:
    """Return how many ones each sample's mask has; 0 without a mask."""
    if mask is None:
        return context.zeros(ids.shape[:1], _INT32)
    equal = context.elementwise("Equal", [mask, context.scalar(1, mask.dtype)], BOOL)
    tensor = context.tensor(equal)
    ones = context.result(context.op("Cast", [tensor], tensor.shape, _INT32, to=int(_INT32)), equal.axes, [equal])
    count = context.settle(context.total(ones, [1]))
    return relabelled(context, count, count.axes[:1])


@rule("GroupNorm", "SkipGroupNorm", domain=_MICROSOFT, scaled=True)
def group_normalise(context: Context, step: Step, operands: Operands) -> Outcome:
    """A group normalisation of channels that come last, of a sum where it skips, with a SiLU where asked for."""
    x, scale, shift, skip, bias = [*operands, None, None][:5]
    if x is None or scale is None or shift is None:
        return None
    last = bool(step.integer("channels_last", 1))
    if skip is not None:
        if not last:
            return None
        if skip.rank == 2:
            one = Partition.one(1)
            skip = relabelled(context, skip, (skip.axes[0], one, one, skip.axes[1]))
        x = _sum(context, x, skip, bias)
    total = x
    if last:
        x = permuted(context, x, (0, x.rank - 1, *range(1, x.rank - 1)))
    y = in_groups(context, step, x, step.integer("groups", 1), step.number("epsilon", 1e-5), scale, shift)
    if last:
        y = permuted(context, y, (0, *range(2, y.rank), 1))
    if step.integer("activation", 0):
        y = context.settle(y)
        y = context.elementwise("Mul", [y, _applied(context, "Sigmoid", y)])
    return [y, total]


@rule("BiasAdd", domain=_MICROSOFT)
def add_bias(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """X + bias + skip."""
    x, bias, skip = operands
    return None if x is None or bias is None or skip is None else _sum(context, x, skip, bias)


@rule("BiasSplitGelu", domain=_MICROSOFT)
def split_gelu(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The first half of the features of x + bias, times the Gelu of the second."""
    x, bias = operands
    if x is None or bias is None:
        return None
    x = context.add(x, bias)
    width = x.shape[2] // 2
    left, right = chosen(context, x, 2, every(width)), chosen(context, x, 2, every(width, 2 * width))
    tensor = context.tensor(right)
    gelu = context.op("Gelu", [tensor], tensor.shape, domain=_MICROSOFT)
    return context.elementwise("Mul", [left, context.result(gelu, right.axes, [right])])


@rule("FusedConv", domain=_MICROSOFT)
def fused_convolve(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """activation(convolution + Z)."""
    y = convolve(context, step, operands[:3])
    if not isinstance(y, Lumped):
        return None
    if len(operands) > 3 and operands[3] is not None:
        y = context.add(y, operands[3])
    y = context.settle(y)
    attribute = step.node.attributes.get("activation_params")
    parameters = [] if attribute is None else [float(number) for number in attribute.value]
    match step.text("activation", ""), parameters:
        case "", _:
            return y
        case "Relu" | "Sigmoid" | "Tanh" as name, _:
            return _applied(context, name, y)
        case "LeakyRelu", [alpha]:
            return _applied(context, "LeakyRelu", y, alpha=alpha)
        case "HardSigmoid", [alpha, beta]:
            return _applied(context, "HardSigmoid", y, alpha=alpha, beta=beta)
        case "Clip", [low, high]:
            y = context.elementwise("Max", [y, context.scalar(low, y.dtype)])
            return context.elementwise("Min", [y, context.scalar(high, y.dtype)])
    return None


def _applied(context: Context, op_type: str, x: Lumped, **attributes: Any) -> Lumped:
    tensor = context.tensor(x)
    return context.result(context.op(op_type, [tensor], tensor.shape, **attributes), x.axes, [x])
