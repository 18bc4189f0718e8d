"""Rules of matrix products: sums over the classes of the axis that both operands share."""

from __future__ import annotations

import numpy as np

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Lumped


@rule("MatMul", repeats=True)
def matrix_product(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """y[..., i, j] = sum over k: a[..., i, k] * b[..., k, j]; rows and columns stay as equal as they were."""
    a, b = operands
    return None if a is None or b is None else product(context, a, b)


@rule("FusedMatMul", "TransposeMatMul", domain="com.microsoft")
def fused_product(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Alpha * A * B, either of them transposed (com.microsoft FusedMatMul)."""
    a, b = operands
    if a is None or b is None or step.integer("transBatchA", 0) or step.integer("transBatchB", 0):
        return None
    a = transposed(context, a) if step.integer("transA", 0) and a.rank > 1 else a
    b = transposed(context, b) if step.integer("transB", 0) and b.rank > 1 else b
    y = product(context, a, b)
    return y.replace(factor=y.factor * step.number("alpha", 1.0))


@rule("Gemm", repeats=True)
def general_product(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Alpha * A * B + beta * C, A and B transposed where the attributes say so (ONNX Gemm)."""
    return _gemm(context, step, operands)


@rule("FusedGemm", domain="com.microsoft")
def fused_gemm(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """A Gemm with an activation behind it; those without parameters are taken apart."""
    activation = step.text("activation", "")
    y = _gemm(context, step, operands) if activation in ("Relu", "Sigmoid", "Tanh", "") else None
    if y is None or not activation:
        return y
    y = context.settle(y)
    tensor = context.tensor(y)
    return context.result(context.op(activation, [tensor], tensor.shape), y.axes, [y])


def _gemm(context: Context, step: Step, operands: Operands) -> Lumped | None:
    a, b, c = [*operands, None][:3]
    if a is None or b is None:
        return None
    a = transposed(context, a) if step.integer("transA", 0) else a
    b = transposed(context, b) if step.integer("transB", 0) else b
    y = product(context, a, b)
    y = y.replace(factor=y.factor * step.number("alpha", 1.0))
    beta = step.number("beta", 1.0)
    if c is None or c.zero or beta == 0:
        return y
    c = c.replace(factor=c.factor * beta, tensor=context.tensor(c), known=None)
    return context.add(y, c)


def transposed(context: Context, value: Lumped) -> Lumped:
    """Return a value with its last two axes swapped."""
    parts = (*value.axes[:-2], value.axes[-1], value.axes[-2])
    if value.table is not None and value.tensor is None:
        value = value.replace(tensor=context.tensor(value))
    if value.axes[-1].count == 1 or value.axes[-2].count == 1:
        # In memory the data of a row and of a column are the same.
        tensor = context.canonical(value.replace(factor=1.0))
        tensor = context.reshape(tensor, (*tensor.dims[:-2], tensor.dims[-1], tensor.dims[-2]))
    else:
        tensor = context.canonical(value.replace(factor=1.0))
        order = [*range(len(tensor.dims) - 2), len(tensor.dims) - 1, len(tensor.dims) - 2]
        tensor = context.transpose(tensor, order)
    return value.replace(parts=parts, tensor=tensor, known=None, table=None)


def product(context: Context, a: Lumped, b: Lumped) -> Lumped:
    """Return the matrix product with NumPy's rules for axes: vectors gain an axis that is dropped again.

    The shared axis is refined to classes in which both operands are constant: a class of n indices contributes n
    times the product of its representatives. With a single class the product is an outer one, which a Mul does; a
    weight is such an operand, so it meets every entry of the other before anything is summed up (as in Conv).
    """
    a, b = context.settle(a), context.settle(b)
    drop_row, drop_column = a.rank == 1, b.rank == 1
    if drop_row:
        a = a.replace(parts=(Partition.one(1), *a.axes), tensor=context.tensor(a), known=None, table=None)
    if drop_column:
        b = b.replace(parts=(*b.axes, Partition.one(1)), tensor=context.tensor(b), known=None, table=None)
    y = _stacked(context, a, b)
    kept = [*y.axes[:-2], *(() if drop_row else y.axes[-2:-1]), *(() if drop_column else y.axes[-1:])]
    return y.replace(parts=tuple(kept))


def _stacked(context: Context, a: Lumped, b: Lumped) -> Lumped:
    shared = a.axes[-1].join(b.axes[-2])
    batch = context.broadcast([a.axes[:-2], b.axes[:-2]])
    parts = (*batch, a.axes[-2], b.axes[-1])
    factor = a.factor * b.factor
    a, b = a.replace(factor=1.0), b.replace(factor=1.0)
    one = Partition.one(1)
    for value, weight, axis in ((a, b, -1), (b, a, -2)):
        if not weight.axes[-1].is_one or not weight.axes[-2].is_one:
            continue
        if value.weighted and value.axes[axis].uniform and value.axes[axis].count > 1:
            break  # a product with a column of weights: the same multiplications in one operator
        number = weight.replace(
            parts=(*weight.axes[:-2], one, one), tensor=context.tensor(weight), known=None, table=None
        )
        if value.weighted:
            scaled = context.mul(value, number)
            y = context.total(scaled, [scaled.rank + axis])
        else:  # no weight has touched it yet: sum first, and once for all constants
            y = context.mul(context.total(value, [value.rank + axis]), number)
        return y.replace(parts=parts, factor=y.factor * factor)
    if not shared.is_one:
        return _general(context, a, b, shared, parts, factor)
    left = a.replace(parts=(*a.axes[:-1], one), tensor=context.tensor(a), known=None, table=None)
    right = b.replace(parts=(*b.axes[:-2], one, b.axes[-1]), tensor=context.tensor(b), known=None, table=None)
    return context.mul(left, right).replace(parts=parts, factor=factor * shared.size)


def _general(
    context: Context, a: Lumped, b: Lumped, shared: Partition, parts: tuple[Partition, ...], factor: float
) -> Lumped:
    a = context.refine(a, (*a.axes[:-1], shared))
    b = context.refine(b, (*b.axes[:-2], shared, b.axes[-1]))
    if shared.uniform:
        factor *= int(shared.sizes[0])
    else:  # the smaller operand takes the sizes
        sizes = np.asarray(shared.sizes, a.dtype.numpy())
        if np.prod(a.counts) <= np.prod(b.counts):
            scale = Lumped((shared,), a.dtype, context.constant(sizes))
            a = context.mul(a, scale)
        else:
            scale = Lumped((shared, Partition.one(1)), a.dtype, context.constant(sizes[:, None]))
            b = context.mul(b, scale)
    rank = len(parts)
    batch = parts[:-2]
    fitted = []
    for value in (a, b):
        own = value.rank - 2
        wanted = tuple(
            have if have.size == 1 else want
            for have, want in zip(value.axes[:-2], batch[len(batch) - own :], strict=True)
        )
        fitted.append(context.refine(value, (*wanted, *value.axes[-2:]), broadcast=True))
    left, right = (context.aligned(value, rank) for value in fitted)
    stacked = np.broadcast_shapes(left.dims[:-2], right.dims[:-2])
    shape = (*stacked, left.dims[-2], right.dims[-1])
    made = context.op("MatMul", [left, right], shape)
    return context.result(made, parts, [a, b], factor)
