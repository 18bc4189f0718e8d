"""Rules of attention operators: taken apart into projections, scores, a softmax and a weighted mean of values."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from epsinas_onnx.lump.context import BOOL, FLOAT, Context
from epsinas_onnx.lump.operators import check_stored
from epsinas_onnx.lump.partition import Partition, every
from epsinas_onnx.lump.registry import Operands, Outcome, rule
from epsinas_onnx.lump.reshape import reshaped
from epsinas_onnx.lump.rules import matmul
from epsinas_onnx.lump.rules.layout import chosen, gather, permuted, relabelled
from epsinas_onnx.lump.rules.rotary import angles, in_heads, merged, rotated
from epsinas_onnx.lump.rules.softmax import shares
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Array, Lumped

_MICROSOFT = "com.microsoft"


def attend(
    context: Context, step: Step, query: Lumped, key: Lumped, value: Lumped, scale: float, bias: Lumped | None,
    softcap: float = 0.0,
) -> Lumped:  # fmt: skip
    """Return softmax(scale * query * key' + bias) * value, of `[batch, heads, sequence, width]`.

    Query heads share the key and value heads in equal runs. Features of one class are split into one class of heads
    times one class of widths, so that there is one matrix of scores a sample.
    """
    groups = query.shape[1] // key.shape[1]
    if groups != 1:
        runs = np.repeat(np.arange(key.shape[1]), groups)
        key, value = (chosen(context, operand, 1, runs) for operand in (key, value))
    scores = matmul.product(context, query, matmul.transposed(context, key))
    scores = context.settle(scores.replace(factor=scores.factor * scale))
    if softcap:
        number = context.scalar(softcap, scores.dtype)
        capped = context.elementwise("Tanh", [context.elementwise("Div", [scores, number])])
        scores = context.elementwise("Mul", [capped, number])
    if bias is not None:
        scores = context.add(scores, bias)
    return matmul.product(context, shares(context, step, scores, 3), value)


def is_wanted(step: Step, index: int) -> bool:
    """Whether something reads an output."""
    if index >= len(step.node.outputs):
        return False
    value = step.node.outputs[index]
    return bool(value.name) and (bool(value.uses()) or value.is_graph_output())


@rule("Attention", domain=_MICROSOFT)
def packed_attention(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Self-attention with one projection for queries, keys and values (com.microsoft Attention)."""
    x, weights, bias, mask, past, attention_bias = [*operands, *[None] * 6][:6]
    if x is None or weights is None or past is not None or any(operand is not None for operand in operands[6:]):
        return None
    if step.integer("do_rotary", 0) or is_wanted(step, 1):
        return None
    heads = step.integer("num_heads", 1)
    features = matmul.product(context, x, weights)
    if bias is not None:
        features = context.add(features, bias)
    sizes = step.integers("qkv_hidden_sizes") or (weights.shape[1] // 3,) * 3
    query, key, value = (in_heads(context, piece, heads) for piece in _pieces(context, features, 2, sizes))
    length = x.shape[1]
    hidden = _padding(context, step, mask, x.shape[0], length, x.dtype)
    if mask is not None and hidden is None:
        return None
    seen = causal(context, length, length) if step.integer("unidirectional", 0) and length > 1 else None
    hidden = _added(context, _veiled(context, hidden, seen, x.dtype), attention_bias)
    scale = step.number("scale", 0.0) or 1 / math.sqrt(query.shape[3])
    return merged(context, attend(context, step, query, key, value, scale, hidden))


@rule("MultiHeadAttention", domain=_MICROSOFT)
def multi_head_attention(context: Context, step: Step, operands: Operands) -> Outcome:
    """Attention between features that are projected already (com.microsoft MultiHeadAttention)."""
    query, key, value, bias, mask, attention_bias, past_key, past_value = [*operands, *[None] * 8][:8]
    if query is None or any(operand is not None for operand in operands[8:]) or is_wanted(step, 3):
        return None
    heads = step.integer("num_heads", 1)
    if query.rank == 5:  # [batch, sequence, heads, 3, width]
        query, key, value = (_of_stack(context, query, index) for index in range(3))
    elif key is not None and key.rank == 5:
        key, value = (_of_stack(context, key, index) for index in range(2))
    if key is None or value is None:
        return None
    given = [query, key, value]
    if bias is not None:
        if any(operand.rank != 3 for operand in given):
            return None
        sizes = [operand.shape[2] for operand in given]
        pieces = _pieces(context, bias, 0, sizes)
        given = [context.add(operand, piece) for operand, piece in zip(given, pieces, strict=True)]
    query, key, value = (each if each.rank == 4 else in_heads(context, each, heads) for each in given)
    if not _unused(past_key, key) or not _unused(past_value, value):
        return None
    length, total = query.shape[2], key.shape[2]
    hidden = _padding(context, step, mask, query.shape[0], total, query.dtype)
    if mask is not None and hidden is None:
        return None
    seen = None
    if step.integer("unidirectional", 0) and length > 1:
        if length != total:  # the operator's kernels do not agree on what the last query sees
            return None
        seen = causal(context, length, total)
    hidden = _added(context, _veiled(context, hidden, seen, query.dtype), attention_bias)
    scale = step.number("scale", 0.0) or 1 / math.sqrt(query.shape[3])
    return [merged(context, attend(context, step, query, key, value, scale, hidden)), key, value]


@rule("GroupQueryAttention", domain=_MICROSOFT)
def group_query_attention(context: Context, step: Step, operands: Operands) -> Outcome:
    """Causal attention of a prompt, with rotations where asked for (com.microsoft GroupQueryAttention).

    A sample's last tokens may be padding: its keys end at its length, and the tokens behind see what the last one does.
    """
    query, key, value, past_key, past_value, last, total, cos, sin, places, bias = [*operands, *[None] * 11][:11]
    if query is None or last is None or total is None or places is not None:
        return None
    if any(operand is not None for operand in operands[11:]):
        return None
    length = query.shape[1]
    if total.known is None or int(total.known.reshape(-1)[0]) != length or is_wanted(step, 3):
        return None
    window = step.integer("local_window_size", -1)
    if step.integer("smooth_softmax", 0) or not step.integer("causal", 1) or window == 0:
        return None
    if window > 0 and (last.known is None or last.known.min() + 1 < length):
        return None  # what padding sees through a window differs between versions of the operator
    if bias is not None and bias.shape[-1] != length:
        return None
    heads, pairs = step.integer("num_heads", 1), step.integer("kv_num_heads", 1)
    if key is None or value is None:
        width = query.shape[2] // (heads + 2 * pairs)
        query, key, value = _pieces(context, query, 2, (heads * width, pairs * width, pairs * width))
    query = in_heads(context, query, heads)
    key, value = (in_heads(context, operand, pairs) for operand in (key, value))
    if not _unused(past_key, key) or not _unused(past_value, value):
        return None
    counts = context.known(every(1, length + 1).astype(np.float32))
    ends = gather(context, step, [counts, last])  # refused out of range, as by the operator
    if not isinstance(ends, Lumped):
        return None
    lengths = reshaped(context, ends, (last.shape[0], 1, 1, 1))
    if step.integer("do_rotary", 0):
        if cos is None or sin is None or not _fit_tables(cos, sin, length, query.shape[3]):
            return None
        tokens = context.known(every(length)[None])
        cos, sin = (angles(context, step, table, tokens) for table in (cos, sin))
        interleaved = bool(step.integer("rotary_interleaved", 0))
        query, key = (rotated(context, context.settle(each), cos, sin, interleaved) for each in (query, key))
    hidden = _veiled(context, bias, _prompt(context, lengths, length, window), query.dtype)
    scale = step.number("scale", 0.0) or 1 / math.sqrt(query.shape[3])
    y = attend(context, step, query, key, value, scale, hidden, step.number("softcap", 0.0))
    return [merged(context, y), key, value]


@rule("Attention")
def attention(context: Context, step: Step, operands: Operands) -> Outcome:
    """Attention of three or four axes, heads shared in runs (ONNX Attention); the mask is added behind the softcap."""
    query, key, value, mask, past_key, past_value, lengths = [*operands, *[None] * 7][:7]
    if query is None or key is None or value is None or lengths is not None or is_wanted(step, 3):
        return None
    flat = query.rank == 3
    if flat:
        query = in_heads(context, query, step.integer("q_num_heads", 1))
        key, value = (in_heads(context, operand, step.integer("kv_num_heads", 1)) for operand in (key, value))
    if not _unused(past_key, key) or not _unused(past_value, value):
        return None
    length, total = query.shape[2], key.shape[2]
    seen = causal(context, length, total) if step.integer("is_causal", 0) else None
    if mask is not None:
        if mask.shape[-2:] != (length, total):
            return None
        if mask.dtype == BOOL:
            mask = _veiled(context, None, mask, query.dtype)
    hidden = _veiled(context, mask, seen, query.dtype)
    scale = step.number("scale", 1 / math.sqrt(query.shape[3]))
    y = attend(context, step, query, key, value, scale, hidden, step.number("softcap", 0.0))
    return [merged(context, y) if flat else y, key, value]


def _unused(past: Lumped | None, heads: Lumped) -> bool:
    """Whether a cache is left out, or holds no tokens of the form that `[batch, heads, sequence, width]` has."""
    batch, count, _, width = heads.shape
    return past is None or past.shape == (batch, count, 0, width)


def _fit_tables(cos: Lumped, sin: Lumped, length: int, width: int) -> bool:
    """Whether GroupQueryAttention takes tables of angles for heads of a width."""
    fits = cos.rank == 2 and cos.shape == sin.shape and cos.shape[0] >= length
    return fits and width % 16 == 0 and cos.shape[1] <= width // 2


def _pieces(context: Context, x: Lumped, axis: int, sizes: tuple[int, ...] | list[int]) -> list[Lumped]:
    ends = np.cumsum(sizes)
    return [chosen(context, x, axis, every(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def _of_stack(context: Context, x: Lumped, index: int) -> Lumped:
    """Return one of the tensors that are stacked along the last axis but one, as `[batch, heads, sequence, width]`."""
    y = chosen(context, x, 3, np.asarray([index]))
    return permuted(context, relabelled(context, y, (*y.axes[:3], y.axes[4])), (0, 2, 1, 3))


def causal(context: Context, length: int, total: int) -> Lumped:
    """Return which keys each query sees: those up to its own place."""
    check_stored(length * total)
    return context.known(np.tri(length, total, dtype=np.bool_))


def _veiled(context: Context, bias: Lumped | None, seen: Lumped | None, dtype: ir.DataType) -> Lumped | None:
    """Return what is added to scores: the bias where a key is seen, and the lowest number elsewhere."""
    if seen is None:
        return bias
    lowest = context.scalar(float(np.finfo(dtype.numpy()).min), dtype)
    return context.elementwise("Where", [seen, context.scalar(0.0, dtype) if bias is None else bias, lowest], dtype)


def _added(context: Context, bias: Lumped | None, more: Lumped | None) -> Lumped | None:
    if bias is None or more is None:
        return more if bias is None else bias
    return context.add(context.settle(bias), context.settle(more))


def _padding(
    context: Context, step: Step, mask: Lumped | None, batch: int, total: int, dtype: ir.DataType
) -> Lumped | None:
    """Return what a mask of ones adds to scores, `[batch, 1, 1 or sequence, total]`; None for a form without a rule.

    One integer a sample is its number of tokens; a mask of two or three axes has one for each of them.
    """
    if mask is None:
        return None
    one = Partition.one(1)
    if mask.shape == (batch,):
        seen = context.elementwise("Less", [_floats(context, every(total)), _lengths(context, mask)], BOOL)
    elif mask.rank in (2, 3) and mask.shape[-1] == total:
        middle = (one, one) if mask.rank == 2 else (one, mask.axes[1])
        mask = relabelled(context, mask, (mask.axes[0], *middle, mask.axes[-1]))
        seen = context.elementwise("Less", [context.scalar(0.0), _cast(context, mask, FLOAT)], BOOL)
    else:
        return None
    filling = context.scalar(step.number("mask_filter_value", -10000.0), dtype)
    return context.elementwise("Where", [seen, context.scalar(0.0, dtype), filling], dtype)


def _prompt(context: Context, lengths: Lumped, length: int, window: int) -> Lumped:
    """Return which keys are seen by each query of a prompt: the last `window` ones (-1: all) up to its own place.

    lengths: of the samples, `[batch, 1, 1, 1]`; a query behind its sample's end stands for the last in it.
    """
    ends = context.elementwise("Min", [_floats(context, every(1, length + 1)[:, None]), lengths])
    columns = _floats(context, every(length))
    seen = context.elementwise("Less", [columns, ends], BOOL)
    if window < 0:
        return seen
    before = context.elementwise("Sub", [ends, context.scalar(window + 1.0)])
    return context.elementwise("And", [seen, context.elementwise("Less", [before, columns], BOOL)])


def _lengths(context: Context, ends: Lumped) -> Lumped:
    """Return one integer a sample as a float `[batch, 1, 1, 1]`."""
    flat = reshaped(context, ends, (ends.shape[0], 1, 1, 1))
    return _cast(context, flat, FLOAT)


def _floats(context: Context, array: Array) -> Lumped:
    return context.known(np.asarray(array, np.float32))


def _cast(context: Context, x: Lumped, dtype: ir.DataType) -> Lumped:
    tensor = context.tensor(x)
    return context.result(context.op("Cast", [tensor], tensor.shape, dtype, to=int(dtype)), x.axes, [x])
