"""Owns which kernel and which rule each operator of a lowered graph has: one line an operator, by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra, normalise, smooth
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import (
    Maker,
    Rule,
    all_free,
    as_formed,
    bilinear,
    first_free,
    joined,
    linear,
    maps_free,
    numbers,
    reshaped,
    several,
    stacked_free,
)  # fmt: skip
from epsinas_onnx.evaluate_lumped.kernels import layout, normalisation, order, reduction, scatter, spectral
from epsinas_onnx.evaluate_lumped.kernels import linear as sums
from epsinas_onnx.evaluate_lumped.kernels import pointwise as one
from epsinas_onnx.evaluate_lumped.kernels.resampling import resize
from epsinas_onnx.evaluate_lumped.recurrent import recurrent_kernel, recurrent_rule
from epsinas_onnx.evaluate_lumped.rules import choices, functions, normalisations, placing, reductions
from epsinas_onnx.evaluate_lumped.rules import order as ordered
from epsinas_onnx.evaluate_lumped.rules.functions import of_one
from epsinas_onnx.evaluate_lumped.value import Value


class Entry(NamedTuple):
    """How an operator runs. kernel: on plain arrays; rule: on base and deviation."""

    kernel: Maker
    rule: Rule


def _formed(*makers: tuple[str, Maker]) -> dict[str, Entry]:
    return {name: Entry(make, as_formed(make)) for name, make in makers}


def _smooth(name: str, function: Callable[[Value], Value], kernel: Callable[..., object]) -> tuple[str, Entry]:
    return name, Entry(one.plain(kernel), of_one(lambda call: function))


def _pointwise(make: Maker, rule: Callable[[Call], Callable[[Value], Value]]) -> Entry:
    return Entry(make, of_one(rule))


def _moved(make: Maker) -> Entry:
    return Entry(make, linear(make))


def _biased(make: Maker, slot: int) -> Maker:
    """Return a kernel that adds a bias, which the rule of what is linear in two operands adds by itself."""

    def biased(call: Call) -> Callable[..., object]:
        inner = make(call)
        alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))

        def kernel(*operands):  # type: ignore[no-untyped-def]
            made = inner(*operands[:slot])
            made = made if alpha == 1.0 else made * alpha
            bias = operands[slot] if len(operands) > slot else None
            if bias is None:
                return made
            bias = bias if beta == 1.0 else bias * beta
            column = (1, -1, *(1,) * (made.ndim - 2)) if call.op_type.startswith("Conv") else bias.shape
            return made + bias.reshape(column)

        return kernel

    return biased


_sum, _square, _after = reductions.reduce_sum, functions.square, reductions.reduced_after
_ROOT_MEAN_SQUARE = Entry(
    normalisation.root_mean_square_normalise, normalisations.root_mean_square_normalise
)  # fmt: skip
OPERATORS: Mapping[str, Entry] = {
    # moving entries about: base and deviation alike
    **{name: Entry(make, reshaped(make)) for name, make in (
        ("Reshape", layout.reshape), ("Flatten", layout.flatten), ("Squeeze", layout.squeeze),
        ("Unsqueeze", layout.unsqueeze))},
    **{name: _moved(make) for name, make in (
        ("Slice", layout.slice_), ("Gather", layout.gather), ("GatherElements", layout.gather_elements),
        ("GatherND", layout.gather_nd), ("Expand", layout.expand), ("Tile", layout.tile), ("Split", layout.split),
        ("DepthToSpace", layout.depth_to_space), ("SpaceToDepth", layout.space_to_depth), ("Trilu", layout.trilu))},
    "Identity": Entry(layout.identity, linear(layout.identity, all_free)),
    "Dropout": Entry(layout.identity, linear(layout.identity, all_free)),
    "Transpose": Entry(layout.transpose, linear(layout.transpose, all_free)),
    "Concat": Entry(layout.concat, joined),
    "ReverseSequence": _moved(scatter.reverse_sequence),
    **{name: Entry(make, placing.put(make)) for name, make in (
        ("ScatterElements", scatter.scatter_elements), ("Scatter", scatter.scatter_elements),
        ("ScatterND", scatter.scatter_nd))},
    "Pad": Entry(layout.pad, placing.padded),
    "Cast": Entry(layout.cast, choices.cast),
    "Where": Entry(one.where, choices.where),
    # sums and products
    "Add": Entry(one.plain(np.add), numbers(algebra.add, one.plain(np.add))),
    "Sub": Entry(one.plain(np.subtract), numbers(algebra.subtract, one.plain(np.subtract))),
    "Mul": Entry(one.plain(np.multiply), numbers(algebra.multiply, one.plain(np.multiply))),
    "Div": Entry(one.divide, numbers(algebra.divide, one.divide)),
    "Sum": Entry(one.several(np.add), several(algebra.add, one.several(np.add))),
    "Mean": Entry(one.mean, functions.mean_of_all),
    "Neg": Entry(one.plain(np.negative), numbers(algebra.negative, one.plain(np.negative))),
    "Max": Entry(one.several(np.maximum), several(algebra.larger, one.several(np.maximum))),
    "Min": Entry(one.several(np.minimum), several(algebra.smaller, one.several(np.minimum))),
    "Abs": Entry(one.plain(np.abs), numbers(algebra.magnitude, one.plain(np.abs))),
    "Pow": Entry(one.plain(np.power), functions.power),
    "MatMul": Entry(sums.matmul, bilinear(sums.matmul, free=stacked_free, beside=stacked_free)),
    "Gemm": Entry(_biased(sums.gemm, 2), bilinear(sums.gemm, 2)),
    "Conv": Entry(_biased(sums.conv, 2), bilinear(sums.conv, 2, first_free)),
    "ConvTranspose": Entry(_biased(sums.conv_transpose, 2), bilinear(sums.conv_transpose, 2, first_free)),
    "Einsum": Entry(sums.einsum, reductions.einsum),
    "AveragePool": Entry(sums.average_pool, linear(sums.average_pool, maps_free)),
    "GlobalAveragePool": Entry(sums.mean_of_rest, linear(sums.mean_of_rest, maps_free)),
    "MaxPool": Entry(sums.max_pool, reductions.max_pool),
    "STFT": Entry(spectral.stft, normalisations.stft),
    "DFT": _moved(spectral.dft),
    "CumSum": Entry(reduction.cumulative, linear(reduction.cumulative)),
    "Resize": Entry(resize, linear(resize, maps_free)),
    # reductions
    "ReduceSum": Entry(reduction.reduce(np.sum), reductions.reduce_sum),
    "ReduceMean": Entry(reduction.reduce(np.mean), reductions.reduce_mean),
    "ReduceMax": Entry(reduction.reduce(np.max), reductions.reduce_extreme(False)),
    "ReduceMin": Entry(reduction.reduce(np.min), reductions.reduce_extreme(True)),
    "ReduceL1": Entry(reduction.reduce(reduction.l1), _after(algebra.magnitude, _sum, None)),
    "ReduceL2": Entry(reduction.reduce(reduction.l2), _after(_square, _sum, smooth.square_root)),
    "ReduceSumSquare": Entry(reduction.reduce(reduction.sum_square), _after(_square, _sum, None)),
    "ReduceLogSum": Entry(reduction.reduce(reduction.log_sum), _after(None, _sum, smooth.logarithm)),
    "ReduceLogSumExp": Entry(reduction.reduce(reduction.log_sum_exp), reductions.reduce_log_sum_exp),
    # gates: piecewise linear
    "Relu": _pointwise(one.relu, lambda call: algebra.relu),
    "LeakyRelu": _pointwise(one.leaky_relu, functions.leaky_relu),
    "PRelu": Entry(one.prelu, numbers(functions.leaky, one.prelu)),
    "Clip": Entry(one.clip, functions.clip),
    "ThresholdedRelu": _pointwise(one.thresholded, functions.thresholded),
    "Shrink": _pointwise(one.shrink, functions.shrink),
    "HardSigmoid": _pointwise(one.hard_sigmoid, functions.hard_sigmoid),
    "HardSwish": _pointwise(one.hard_swish, functions.hard_swish),
    # smooth functions
    **dict([
        _smooth("Sigmoid", smooth.SIGMOID, smooth.sigmoid), _smooth("Tanh", smooth.TANH, np.tanh),
        _smooth("Erf", smooth.ERF, smooth.ERF.function), _smooth("Exp", smooth.exponential, np.exp),
        _smooth("Log", smooth.logarithm, np.log), _smooth("Sqrt", smooth.square_root, np.sqrt),
        _smooth("Reciprocal", smooth.reciprocal, np.reciprocal), _smooth("Sin", smooth.SIN, np.sin),
        _smooth("Cos", smooth.COS, np.cos), _smooth("Tan", smooth.TAN, np.tan), _smooth("Atan", smooth.ATAN, np.arctan),
        _smooth("Asin", smooth.ASIN, np.arcsin), _smooth("Acos", smooth.ACOS, np.arccos),
        _smooth("Sinh", smooth.SINH, np.sinh), _smooth("Cosh", smooth.COSH, np.cosh),
        _smooth("Asinh", smooth.ASINH, np.arcsinh), _smooth("Acosh", smooth.ACOSH, np.arccosh),
        _smooth("Atanh", smooth.ATANH, np.arctanh),
    ]),
    "Softplus": _pointwise(one.softplus, lambda call: smooth.SOFTPLUS),
    "Softsign": _pointwise(one.softsign, lambda call: functions.softsign),
    "Elu": _pointwise(one.elu, functions.elu),
    "Celu": _pointwise(one.celu, functions.elu),
    "Selu": _pointwise(one.selu, functions.elu),
    "Swish": _pointwise(one.swish, functions.gated(functions.swish_gate)),
    "Mish": _pointwise(one.mish, functions.gated(functions.mish_gate)),
    "Gelu": _pointwise(one.gelu, functions.gated(functions.gelu_gate)),
    # normalisations
    "InstanceNormalization": Entry(reduction.instance_normalise, normalise.instance_normalise),
    "BatchNormalization": Entry(normalisation.batch_normalise, normalisations.batch_normalise),
    "LayerNormalization": Entry(normalisation.layer_normalise, normalisations.layer_normalise),
    "GroupNormalization": Entry(normalisation.group_normalise, normalisations.group_normalise),
    "RMSNormalization": _ROOT_MEAN_SQUARE,
    "SimplifiedLayerNormalization": _ROOT_MEAN_SQUARE,
    "MeanVarianceNormalization": Entry(
        normalisation.mean_variance_normalise, normalisations.mean_variance_normalise),
    "LRN": Entry(normalisation.local_response, normalisations.local_response),
    "Softmax": Entry(reduction.softmax, normalise.softmax),
    "LogSoftmax": Entry(reduction.log_softmax, normalise.log_softmax),
    "LpNormalization": Entry(reductions.lp_kernel, reductions.spread_root),
    **{name: Entry(recurrent_kernel, recurrent_rule) for name in ("RNN", "GRU", "LSTM")},
    # comparisons, by the sign of a difference
    **{name: Entry(one.plain(function), choices.compared(function)) for name, function in (
        ("Less", np.less), ("LessOrEqual", np.less_equal), ("Greater", np.greater),
        ("GreaterOrEqual", np.greater_equal), ("Equal", np.equal))},
    "Sign": Entry(one.plain(np.sign), choices.sign),
    # orders and whole numbers, by signs of differences too
    "ArgMax": Entry(reduction.arg(np.argmax, np.argmax), ordered.arg_extreme(True)),
    "ArgMin": Entry(reduction.arg(np.argmin, np.argmin), ordered.arg_extreme(False)),
    "TopK": Entry(order.top, ordered.top),
    "Hardmax": Entry(order.hard_max, ordered.hard_max),
    **{name: Entry(one.plain(function), choices.rounded(function)) for name, function in (
        ("Floor", np.floor), ("Ceil", np.ceil), ("Round", np.rint))},
    # what is read off the formed value
    **_formed(
        ("Shape", layout.shape), ("Size", layout.size), ("ConstantOfShape", layout.constant_of_shape),
        ("Range", layout.range_), ("OneHot", layout.one_hot),
        ("ReduceProd", reduction.reduce(np.prod)), ("Mod", one.mod), ("Not", one.plain(np.logical_not)),
        ("And", one.plain(np.logical_and)), ("Or", one.plain(np.logical_or)), ("Xor", one.plain(np.logical_xor)),
        ("IsNaN", one.plain(np.isnan)),
    ),
}  # fmt: skip
"""Operators of ONNX's own domain."""

CONTRIBUTED: Mapping[str, Entry] = {
    "QuickGelu": _pointwise(one.quick_gelu, functions.gated(functions.swish_gate)),
    "Gelu": OPERATORS["Gelu"],
}
"""Operators of com.microsoft."""

OURS: Mapping[str, Entry] = {
    "Standardise": Entry(reduction.standardise, normalise.standardise),
    "Along": Entry(sums.along, linear(sums.along, first_free)),
}
"""What lowering emits for this evaluator alone."""

TABLES: Mapping[str, Mapping[str, Entry]] = {"": OPERATORS, "com.microsoft": CONTRIBUTED, "epsinas": OURS}


def find_entry(domain: str, op_type: str) -> Entry | None:
    """Return how an operator runs, None where only ONNX Runtime can tell."""
    return TABLES.get(domain, {}).get(op_type)
