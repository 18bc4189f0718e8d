"""Derivatives of products of matrices."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import LARGEST, Gradients, rule


@rule("Gemm")
def gemm(call: Call) -> Gradients:
    """Alpha times the product of the gradient with the other matrix; of the bias beta times the sum."""
    found: dict[int | ir.Value, ir.Value | None] = {}
    g, a, b = call.grad, call.x, call.input(1)
    across_a, across_b = call.integer("transA", 0), call.integer("transB", 0)
    alpha = call.number("alpha", 1.0)
    if 0 in call.wanted:
        operands, flags = ([b, g], (across_b, 1)) if across_a else ([g, b], (0, 1 - across_b))
        found[0] = _gemm(call, operands, flags, alpha)
    if 1 in call.wanted:
        operands, flags = ([g, a], (1, across_a)) if across_b else ([a, g], (1 - across_a, 0))
        found[1] = _gemm(call, operands, flags, alpha)
    if 2 in call.wanted:
        found[2] = call.mul(call.sum_to(g, 2), call.number("beta", 1.0))
    return found


def _gemm(call: Call, operands: Sequence[ir.Value], flags: tuple[int, int], alpha: float) -> ir.Value:
    nothing = [] if call.opset >= 11 else [call.value(0.0)]  # the bias became optional
    return call.op("Gemm", *operands, *nothing, transA=flags[0], transB=flags[1], alpha=alpha)


@rule("MatMul")
def matmul(call: Call) -> Gradients:
    """G B^T and A^T g, summed over the axes that were broadcast."""
    found: dict[int | ir.Value, ir.Value | None] = {}
    write, g = call.write, call.grad
    a_shape, b_shape, out = call.shape(0), call.shape(1), call.out
    if len(a_shape) == 1 and len(b_shape) == 1:
        return {slot: call.mul(g, call.input(1 - slot)) for slot in call.wanted}
    rows = a_shape if len(a_shape) > 1 else (1, *a_shape)
    columns = b_shape if len(b_shape) > 1 else (*b_shape, 1)
    a = call.x if len(a_shape) > 1 else write.reshape(call.x, rows)
    b = call.input(1) if len(b_shape) > 1 else write.reshape(call.input(1), columns)
    batch = out[: len(out) - (len(a_shape) > 1) - (len(b_shape) > 1)]
    whole = (*batch, rows[-2], columns[-1])
    if whole != out:
        g = write.reshape(g, whole)
    if 0 in call.wanted:
        made = call.op("MatMul", g, _turned(call, b, len(columns), 1))
        made = write.sum_to(made, (*batch, *rows[-2:]), rows)
        found[0] = made if rows == a_shape else write.reshape(made, a_shape)
    if 1 in call.wanted:
        if len(columns) == 2 and len(rows) > 2:  # one product instead of one a sample, and their sum
            flat_a, flat_g = write.reshape(a, (-1, rows[-1])), write.reshape(g, (-1, whole[-1]))
            made = call.op("MatMul", write.transpose(flat_a, [1, 0]), flat_g)
        else:
            made = call.op("MatMul", _turned(call, a, len(rows), 0), g)
            made = write.sum_to(made, (*batch, *columns[-2:]), columns)
        found[1] = made if columns == b_shape else write.reshape(made, b_shape)
    return found


def _turned(call: Call, value: ir.Value, rank: int, slot: int) -> ir.Value:
    perm = [*range(rank - 2), rank - 1, rank - 2]
    known = call.known(slot) if math.prod(call.shape(slot)) <= LARGEST else None
    if known is not None and known.ndim == rank:
        return call.write.constant(np.ascontiguousarray(known.transpose(perm)))
    return call.write.transpose(value, perm)


@rule("Einsum")
def einsum(call: Call) -> Gradients:
    """An einsum of the gradient and the other operands, whose result is the operand's own subscripts."""
    terms, result = _terms(call)
    sizes: dict[str, int] = {}
    for slot, term in enumerate(terms):
        for label, size in zip(term, call.shape(slot), strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    found: dict[int | ir.Value, ir.Value | None] = {}
    for slot in call.wanted:
        term, shape = terms[slot], call.shape(slot)
        if len(set(term)) < len(term):
            raise call.refuse("it takes a diagonal")
        others = [other for other in range(len(terms)) if other != slot]
        held = set(result).union(*(terms[other] for other in others))
        kept = "".join(label for label in term if label in held)
        equation = ",".join([result, *(terms[other] for other in others)]) + f"->{kept}"
        made = call.op("Einsum", call.grad, *(call.input(other) for other in others), equation=equation)
        full = [sizes[label] if label in held else 1 for label in term]
        if kept != term:
            made = call.write.reshape(made, full)
        made = call.write.sum_to(made, full, [min(a, b) for a, b in zip(full, shape, strict=True)])
        if tuple(full) != shape:
            made = call.write.expand(made, shape, call.dtype)
        found[slot] = made
    return found


def _terms(call: Call) -> tuple[list[str], str]:
    """Return the subscripts of operands and result, with labels in place of an ellipsis."""
    equation = call.text("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    named = set(equation) & set(string.ascii_letters)
    if not arrow:
        letters = [c for c in left if c in string.ascii_letters]
        result = ("..." if "..." in left else "") + "".join(sorted(c for c in named if letters.count(c) == 1))
    free = [c for c in string.ascii_letters if c not in named]
    longest = max(len(call.shape(slot)) - len(term.replace("...", "")) for slot, term in enumerate(terms))
    ellipsis = "".join(free[:longest])
    expanded = []
    for slot, term in enumerate(terms):
        count = len(call.shape(slot)) - len(term.replace("...", ""))
        expanded.append(term.replace("...", ellipsis[longest - count :]))
    return expanded, result.replace("...", ellipsis)
