"""Rules of rotary embeddings: pairs of features are turned by an angle that grows with the token's place."""

from __future__ import annotations

import numpy as np

from epsinas_onnx.lump.context import INT64, Context
from epsinas_onnx.lump.partition import Partition, every
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.reshape import reshaped
from epsinas_onnx.lump.rules.layout import chosen, gather, joined, permuted, relabelled
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Lumped


@rule("RotaryEmbedding", domain="com.microsoft")
def contributed_rotation(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """The same with tables of all places; one number of places is the first token's (com.microsoft RotaryEmbedding)."""
    x, places, cos, sin = operands
    if x is None or places is None or cos is None or sin is None:
        return None
    if step.integer("is_packed_batching", 0) or step.number("scale", 1.0) != 1.0:
        return None
    first = places.shape in ((), (1,))
    counted = step.integer("num_heads", 0) or not step.integer("rotary_embedding_dim", 0)
    if not counted or cos.rank != 2 or not _fit(step, x, cos, sin, None if first else places):
        return None
    if first:
        tokens = context.known(every(x.shape[-2]))
        places = context.elementwise("Add", [_integers(context, places), tokens])
        places = relabelled(context, places, (Partition.one(1), *places.axes))
    return _embedded(context, step, x, places, cos, sin)


@rule("RotaryEmbedding")
def rotation(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Angles are read at the tokens' places, or given for each token (ONNX RotaryEmbedding)."""
    x, cos, sin, places = [*operands, None][:4]
    if x is None or cos is None or sin is None:
        return None
    tables = (x.shape[0], x.shape[-2]) if places is None else cos.shape[:1]
    counted = step.integer("num_heads", 0) or x.rank == 4
    if not counted or cos.shape[:-1] != tables or not _fit(step, x, cos, sin, places):
        return None
    return _embedded(context, step, x, places, cos, sin)


def _embedded(context: Context, step: Step, x: Lumped, places: Lumped | None, cos: Lumped, sin: Lumped) -> Lumped:
    tables = [angles(context, step, table, places) for table in (cos, sin)]
    turned = 2 * cos.shape[-1]
    interleaved = bool(step.integer("interleaved", 0))
    if x.rank == 4:
        return rotated(context, x, tables[0], tables[1], interleaved)
    y = in_heads(context, x, step.integer("num_heads", 0) or x.shape[2] // turned)
    return merged(context, rotated(context, y, tables[0], tables[1], interleaved))


def _fit(step: Step, x: Lumped, cos: Lumped, sin: Lumped, places: Lumped | None) -> bool:
    """Whether operands have the sizes that ONNX Runtime insists on, whatever is read of them."""
    heads, turned, pairs = step.integer("num_heads", 0), step.integer("rotary_embedding_dim", 0), cos.shape[-1]
    if x.rank not in (3, 4) or cos.shape != sin.shape or (cos.rank == 2 and cos.shape[0] < x.shape[-2]):
        return False
    if places is not None and places.shape != (x.shape[0], x.shape[-2]):
        return False
    width = x.shape[3] if x.rank == 4 else x.shape[2] // heads if heads else 2 * pairs
    return x.shape[-1] % width == 0 and (turned == 2 * pairs <= width if turned else width == 2 * pairs)


def in_heads(context: Context, x: Lumped, heads: int) -> Lumped:
    """Return `[batch, sequence, features]` as `[batch, heads, sequence, width]`."""
    batch, length, features = x.shape
    return permuted(context, reshaped(context, x, (batch, length, heads, features // heads)), (0, 2, 1, 3))


def merged(context: Context, x: Lumped) -> Lumped:
    """Return `[batch, heads, sequence, width]` as `[batch, sequence, features]`."""
    batch, heads, length, width = x.shape
    return reshaped(context, permuted(context, x, (0, 2, 1, 3)), (batch, length, heads * width))


def angles(context: Context, step: Step, table: Lumped, places: Lumped | None) -> Lumped:
    """Return the rows of a table at the tokens' places, `[batch, 1, sequence, pairs]`."""
    rows = table if places is None else gather(context, step, [table, places])
    if not isinstance(rows, Lumped):
        raise LookupError("places that vary with the constant have no rule")
    return relabelled(context, rows, (rows.axes[0], Partition.one(1), *rows.axes[1:]))


def rotated(context: Context, x: Lumped, cos: Lumped, sin: Lumped, interleaved: bool) -> Lumped:
    """Return `[batch, heads, sequence, width]` with its first features turned, pair by pair.

    A pair (a, b) becomes (a cos - b sin, a sin + b cos): the value times cos, plus the swapped pair times sin with
    a sign. The first halves of the turned features are paired with the second, or neighbours where they interleave.
    """
    batch, heads, length, width = x.shape
    pairs = cos.shape[3]
    rest = None
    if 2 * pairs != width:
        rest = chosen(context, x, 3, every(2 * pairs, width))
        x = chosen(context, x, 3, every(2 * pairs))
    shape = (batch, heads, length, pairs, 2) if interleaved else (batch, heads, length, 2, pairs)
    pair = 4 if interleaved else 3
    x = reshaped(context, x, shape)
    one = Partition.one(1)
    cos, sin = (
        relabelled(context, table, (*table.axes[:3], table.axes[3], one) if interleaved else
                   (*table.axes[:3], one, table.axes[3]))
        for table in (cos, sin)
    )  # fmt: skip
    signs = np.asarray([-1, 1], x.dtype.numpy()).reshape((2,) if interleaved else (2, 1))
    swapped = chosen(context, x, pair, np.asarray([1, 0]))
    sin = context.elementwise("Mul", [sin, context.known(signs, x.dtype)])
    y = context.add(context.elementwise("Mul", [x, cos]), context.elementwise("Mul", [swapped, sin]))
    y = reshaped(context, y, (batch, heads, length, 2 * pairs))
    return y if rest is None else joined(context, [y, rest], 3)


def _integers(context: Context, x: Lumped) -> Lumped:
    if x.dtype == INT64:
        return x
    tensor = context.tensor(x)
    return context.result(context.op("Cast", [tensor], tensor.shape, INT64, to=int(INT64)), x.axes, [x])
