"""What each operator says of the sizes of its operands: which axes are equally long, and which attributes are sizes.

A rule returns the sizes of each output, None for one that nobody follows; None, or a LookupError, where it does not
know the node: then the shapes of all its operands stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

import onnx_ir as ir

from epsinas_onnx.search.around.follow import Outputs, Walk
from epsinas_onnx.search.around.forms import Form, Term, number, times
from epsinas_onnx.search.around.reshaping import expand, flatten, repeated, reshape

Rule: TypeAlias = Callable[[ir.Node, Walk], Outputs]


def rule_for(node: ir.Node) -> Rule | None:
    """Return the rule for an operator; None where there is none, and its operands keep their shapes."""
    rule = _RULES.get(node.op_type) if node.domain in ("", "com.microsoft") else None
    if rule is None:
        return None

    def guarded(node: ir.Node, walk: Walk) -> Outputs:
        try:
            return rule(node, walk)
        except LookupError:
            return None

    return guarded


def _elementwise(node: ir.Node, walk: Walk) -> Outputs:
    operands = [walk.axes(value) for value in node.inputs if value is not None]
    rank = max(map(len, operands))
    result = [number(1)] * rank
    for axes in operands:
        for axis, form in enumerate(axes, start=rank - len(axes)):
            if walk.measure(form) == 1:
                continue
            if walk.measure(result[axis]) == 1:
                result[axis] = form
            else:
                walk.equal(result[axis], form)
    return [result] * len(node.outputs)


def _first(node: ir.Node, walk: Walk) -> Outputs:
    return [walk.axes(node.inputs[0])] * len(node.outputs)


def _convolution(node: ir.Node, walk: Walk) -> Outputs:
    x, weight = walk.axes(node.inputs[0]), walk.axes(node.inputs[1])
    groups = node.attributes.get_int("group", 1)
    transposed = node.op_type == "ConvTranspose"
    entering, leaving = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    if groups == 1:
        walk.equal(x[1], entering)
        out = leaving
    elif groups == walk.measure(x[1]) and not transposed:
        walk.equal(leaving, times(x[1], walk.measure(leaving) // groups))
        walk.attribute(node, "group", x[1])
        out = leaving
    elif groups == walk.measure(x[1]):
        walk.equal(x[1], entering)
        walk.attribute(node, "group", x[1])
        walk.equations.fix(leaving)
        out = times(x[1], walk.measure(leaving))
    elif transposed:
        walk.equal(x[1], entering)
        walk.found.whole.append(times(x[1], _part(groups)))
        out = times(leaving, groups)
    else:
        walk.equal(x[1], times(entering, groups))
        walk.found.whole.append(times(leaving, _part(groups)))
        out = leaving
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        walk.equal(walk.axes(node.inputs[2])[0], out)
    for form in weight[2:]:
        walk.equations.fix(form)
    return [[x[0], out, *_plain(node, walk)[2:]]]


def _part(groups: int) -> Fraction:
    return Fraction(1, groups)


def _plain(node: ir.Node, walk: Walk, output: int = 0) -> list[Form]:
    shape = walk.shape(node.outputs[output])
    if shape is None:
        raise LookupError
    return list(map(number, shape))


def _gemm(node: ir.Node, walk: Walk) -> Outputs:
    first, second = walk.axes(node.inputs[0]), walk.axes(node.inputs[1])
    if node.attributes.get_int("transA", 0):
        first.reverse()
    if node.attributes.get_int("transB", 0):
        second.reverse()
    walk.equal(first[1], second[0])
    result = [first[0], second[1]]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        _stretch(walk, walk.axes(node.inputs[2]), result)
    return [result]


def _stretch(walk: Walk, axes: Sequence[Form], target: Sequence[Form]) -> None:
    for form, whole in zip(reversed(axes), reversed(target), strict=False):
        if walk.measure(form) != 1:
            walk.equal(form, whole)


def _matmul(node: ir.Node, walk: Walk) -> Outputs:
    first, second = walk.axes(node.inputs[0]), walk.axes(node.inputs[1])
    if len(first) < 2 or len(second) < 2:
        return None
    walk.equal(first[-1], second[-2])
    rank = max(len(first), len(second)) - 2
    result = [number(1)] * rank
    for axes in (first[:-2], second[:-2]):
        for axis, form in enumerate(axes, start=rank - len(axes)):
            if walk.measure(form) == 1:
                continue
            if walk.measure(result[axis]) == 1:
                result[axis] = form
            else:
                walk.equal(result[axis], form)
    return [[*result, first[-2], second[-1]]]


def _normalisation(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    for value in node.inputs[1:]:
        if value is not None:
            _stretch(walk, walk.axes(value), [x[1]])
    rest: list[Sequence[Form] | None] = [None] * (len(node.outputs) - 1)
    return [x, *rest]


def _layer_normalisation(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    for value in node.inputs[1:]:
        if value is not None:
            _stretch(walk, walk.axes(value), x)
    rest: list[Sequence[Form] | None] = [None] * (len(node.outputs) - 1)
    return [x, *rest]


def _group_normalisation(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    groups = node.attributes.get_int("num_groups", 1)
    walk.found.whole.append(times(x[1], _part(groups)))
    for value in node.inputs[1:3]:
        form = walk.axes(value)[0]
        if walk.measure(form) == walk.measure(x[1]) and groups != walk.measure(x[1]):
            walk.equal(form, x[1])
        else:
            walk.equations.fix(form)
    return [x]


def _pooling(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    return [[*x[:2], *_plain(node, walk, index)[2:]] for index in range(len(node.outputs))]


def _reduction(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    named = walk.integers(node, 1, "axes")
    if named is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        return None
    if node.op_type.startswith("Arg"):
        named = [node.attributes.get_int("axis", 0)]
    if not named and node.attributes.get_int("noop_with_empty_axes", False):
        return [x]
    axes = {axis % len(x) for axis in named} if named else set(range(len(x)))
    if node.op_type.startswith("Arg"):
        for axis in axes:
            walk.equations.fix(x[axis])
    if node.attributes.get_int("keepdims", 1):
        return [[number(1) if axis in axes else form for axis, form in enumerate(x)]]
    return [[form for axis, form in enumerate(x) if axis not in axes]]


def _transpose(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    order = node.attributes.get_ints("perm", list(range(len(x)))[::-1])
    return [[x[axis] for axis in order]]


def _concat(node: ir.Node, walk: Walk) -> Outputs:
    parts = [walk.axes(value) for value in node.inputs]
    axis = node.attributes.get_int("axis") % len(parts[0])
    for part in parts[1:]:
        for other, form in enumerate(part):
            if other != axis:
                walk.equal(parts[0][other], form)
    return [[*parts[0][:axis], sum((part[axis] for part in parts), ()), *parts[0][axis + 1 :]]]


def _split(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    axis = node.attributes.get_int("axis", 0) % len(x)
    cells = walk.cells(node, 1) if len(node.inputs) > 1 else None
    sizes = [walk.measure(_plain(node, walk, index)[axis]) for index in range(len(node.outputs))]
    if walk.equations.is_fixed(x[axis]):
        parts: list[Form] = list(map(number, sizes))
    else:
        if (cells is None and "split" in node.attributes) or (cells is None and len(node.inputs) > 1):
            return None
        found = _cut(walk, x[axis], sizes)
        if found is None:
            return None
        parts = found
        for cell, part in zip(cells or (), parts, strict=False):
            walk.demand(cell, part)
    return [[*x[:axis], part, *x[axis + 1 :]] for part in parts]


def _cut(walk: Walk, form: Form, sizes: Sequence[int]) -> list[Form] | None:
    """Return the parts that an axis is cut into: between its terms, or into equal ones."""
    terms = list(walk.equations.resolve(form))
    parts: list[Form] = []
    for size in sizes:
        part: list[Term] = []
        while terms and sum(walk.equations.measure((term,)) for term in part) < size:
            part.append(terms.pop(0))
        if walk.measure(tuple(part)) != size:
            break
        parts.append(tuple(part))
    else:
        return parts if not terms else None
    if len(set(sizes)) == 1:
        return [times(form, Fraction(1, len(sizes)))] * len(sizes)
    single = walk.equations.resolve(form)
    if len(single) == 1:  # in the proportions that they have
        return [times(form, Fraction(size, walk.measure(form))) for size in sizes]
    return None


def _slice(node: ir.Node, walk: Walk) -> Outputs:
    x, result = walk.axes(node.inputs[0]), _plain(node, walk)
    starts, ends = walk.cells(node, 1), walk.cells(node, 2)
    named = walk.integers(node, 3)
    axes = [axis % len(x) for axis in named] if named is not None else list(range(len(starts or ())))
    for axis, form in enumerate(x):
        if axis not in axes:
            result[axis] = form
            continue
        if walk.equations.is_fixed(form):
            continue
        size, place = walk.measure(form), axes.index(axis)
        if not starts or not ends or (walk.integers(node, 4) or [1] * len(axes))[place] != 1:
            return None
        start, end = starts[place], ends[place]
        first, last = max(0, min(size, _from_front(start.value, size))), min(size, _from_front(end.value, size))
        found = _cut(walk, form, [part for part in (first, last - first, size - last) if part])
        if found is None:
            return None
        result[axis] = found[1 if first else 0]
        if first:
            walk.demand(start, found[0] if start.value > 0 else times(sum(found[1:], ()), -1))
        if last < size:
            walk.demand(end, times(found[-1], -1) if end.value < 0 else sum(found[:-1], ()))
    return [result]


def _from_front(index: int, size: int) -> int:
    return max(0, index + size) if index < 0 else index


def _gather(node: ir.Node, walk: Walk) -> Outputs:
    x, indices = walk.axes(node.inputs[0]), walk.axes(node.inputs[1])
    axis = node.attributes.get_int("axis", 0) % len(x)
    walk.equations.fix(x[axis])
    return [[*x[:axis], *indices, *x[axis + 1 :]]]


def _squeeze(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    named = walk.integers(node, 1, "axes")
    gone = {axis % len(x) for axis in named} if named else {i for i, form in enumerate(x) if walk.measure(form) == 1}
    return [[form for axis, form in enumerate(x) if axis not in gone]]


def _unsqueeze(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    named = walk.integers(node, 1, "axes")
    if named is None:
        return None
    rank = len(x) + len(named)
    added = {axis % rank for axis in named}
    rest = iter(x)
    return [[number(1) if axis in added else next(rest) for axis in range(rank)]]


def _pad(node: ir.Node, walk: Walk) -> Outputs:
    x = walk.axes(node.inputs[0])
    pads = walk.integers(node, 1, "pads")
    if pads is None or len(pads) != 2 * len(x):
        return None
    result = []
    for form, before, after in zip(x, pads[: len(x)], pads[len(x) :], strict=True):
        if min(before, after) < 0:
            walk.equations.fix(form)
        added = [number(before)] if before else []
        result.append(sum([*added, form, *([number(after)] if after else [])], ()))
    return [result]


def _resize(node: ir.Node, walk: Walk) -> Outputs:
    x, result = walk.axes(node.inputs[0]), _plain(node, walk)
    for axis, form in enumerate(x):
        if walk.measure(form) == walk.measure(result[axis]) and not walk.equations.is_fixed(form):
            if len(node.inputs) > 3 and (cells := walk.cells(node, 3)):
                walk.demand(cells[axis], form) if len(cells) == len(x) else walk.equations.fix(form)
            result[axis] = form
        else:
            walk.equations.fix(form)
    return [result]


def _filled(node: ir.Node, walk: Walk) -> Outputs:
    cells, result = walk.cells(node, 0), []
    if cells is None:
        return None
    for cell in cells:
        if cell.form is not None:
            result.append(cell.form)
        else:
            result.append(repeated(walk, cell, str(node.outputs[0].name), len(cells)))
    return [result]


def _plain_only(node: ir.Node, walk: Walk) -> Outputs:
    return [_plain(node, walk)]


def _einsum(node: ir.Node, walk: Walk) -> Outputs:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    operands, arrow, result = equation.partition("->")
    if not arrow or "." in equation:
        return None
    letters: dict[str, Form] = {}
    for text, value in zip(operands.split(","), node.inputs, strict=True):
        for letter, form in zip(text, walk.axes(value), strict=True):
            walk.equal(letters.setdefault(letter, form), form)
    return [[letters[letter] for letter in result]]


def _recurrent(node: ir.Node, walk: Walk) -> Outputs:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op_type]
    x, weight, recurrent = (walk.axes(value) for value in node.inputs[:3])
    hidden = recurrent[2]
    walk.equal(weight[2], x[2])
    walk.equal(weight[1], times(hidden, gates))
    walk.equal(recurrent[1], times(hidden, gates))
    for slot, factor in ((3, 2 * gates), (5, 1), (6, 1), (7, 3)):
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if value is not None:
            walk.equal(walk.axes(value)[-1], times(hidden, factor))
    walk.attribute(node, "hidden_size", hidden)
    known = [walk.shape(value) is not None for value in node.outputs]
    return [[*_plain(node, walk, index)[:-1], hidden] if one else None for index, one in enumerate(known)]


def _whole_depth(node: ir.Node, walk: Walk) -> Outputs:
    x, result = walk.axes(node.inputs[0]), _plain(node, walk)
    square = node.attributes.get_int("blocksize") ** 2
    result[1] = times(x[1], square if node.op_type == "SpaceToDepth" else _part(square))
    return [result]


_SAME = (
    "Abs Acos Asin Atan BiasGelu Cast CastLike Ceil Celu Clip Cos CumSum Dropout Elu Erf Exp FastGelu Floor "
    "Gelu HardSigmoid HardSwish Hardmax Identity IsInf IsNaN LRN LeakyRelu Log LogSoftmax LpNormalization "
    "MeanVarianceNormalization Mish Neg Not QuickGelu Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin "
    "Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
_BROADCAST = (
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), _first), **dict.fromkeys(_BROADCAST.split(), _elementwise),
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv"), _convolution),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _normalisation),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), _layer_normalisation),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"), _pooling),
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
         "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin"), _reduction),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _whole_depth),
    "Concat": _concat, "ConstantOfShape": _filled, "Einsum": _einsum, "Expand": expand, "Flatten": flatten,
    "Gather": _gather, "Gemm": _gemm, "GroupNormalization": _group_normalisation, "MatMul": _matmul, "Pad": _pad,
    "Reshape": reshape, "Resize": _resize, "Shape": _plain_only, "Slice": _slice, "Split": _split, "Squeeze": _squeeze,
    "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip
