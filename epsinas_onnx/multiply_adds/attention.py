"""Counts the products of attention, linear attention and mixtures of experts.

Masks and windows leave out nothing: every query is multiplied by every key, as a runtime does that masks scores.
Scales, rotations, normalisations and the softmax are no sums of products.
"""

from __future__ import annotations

from epsinas_onnx.multiply_adds.call import UNKNOWN_SHAPE, Call, Formula, Uncountable, elements


def attention(call: Call) -> int:
    """Count Attention of three or four axes: queries times keys, and the shares times values.

    Heads of keys and values that several heads of queries share are multiplied once for each of these.
    """
    query, key, value = (call.dims(slot) for slot in range(3))
    if len(query) == 4:
        batch, heads, length, width = query
        return batch * heads * length * (key[2] + _past(call, 4)) * (width + value[3])
    heads, pairs = call.required("q_num_heads"), call.required("kv_num_heads")
    return query[0] * query[1] * (key[1] + _past(call, 4)) * (query[2] + value[2] // pairs * heads)


def self_attention(past: int | None) -> Formula:
    """Return the count of attention with the projection of queries, keys and values, past: slot of the cache."""

    def count(call: Call) -> int:
        batch, length, _ = call.dims(0, 3)
        columns = call.dims(1, 2)[1]
        keys, values = _widths(call, columns)
        total = length + (0 if past is None else _past(call, past, 3))
        return elements(call.dims(0)) * columns + batch * length * total * (keys + values)

    return count


def ordered_attention(call: Call) -> int:
    """Count attention whose projections are three matrices."""
    batch, length, _ = call.dims(0, 3)
    query, key, value = (call.dims(slot, 2)[1] for slot in (5, 6, 7))
    return elements(call.dims(0)) * (query + key + value) + batch * length * length * (query + value)


def packed_attention(call: Call) -> int:
    """Count attention of tokens without padding; the sequences are as long as the padded ones, see the masks."""
    batch, length = call.dims(3, 2)
    columns = call.dims(1, 2)[1]
    return elements(call.dims(0)) * columns + batch * length * length * sum(_widths(call, columns))


def packed_heads(call: Call) -> int:
    """Count the same without the projection; queries, keys and values are one tensor or three."""
    query = call.dims(0)
    batch, length = call.dims(4, 2)
    width = elements(query[1:]) // 3 if len(query) == 4 else query[1]
    value = call.dims(2)[1] if call.has(2) else width
    return batch * length * length * (width + value)


def multi_head(call: Call) -> int:
    """Count attention between features that are projected already, packed or not, with a cache or without."""
    query = call.dims(0)
    batch, length = query[:2]
    if len(query) == 5:
        return batch * length * length * 2 * query[2] * query[4]
    key = call.dims(1)
    if len(key) == 5:
        return batch * length * (key[1] + _past(call, 6)) * 2 * query[2]
    value = call.dims(2)
    total = key[2] if len(key) == 4 else key[1] + _past(call, 6)
    return batch * length * total * (query[2] + (value[1] * value[3] if len(value) == 4 else value[2]))


def decoder_heads(call: Call) -> int:
    """Count attention of one new token, in whose cache the others are."""
    batch, length, width = call.dims(0, 3)
    if not call.has(1):
        width //= 3
        return batch * length * (_past(call, 5) + length) * 2 * width
    key, value = call.dims(1), call.dims(2)
    total = key[2] if len(key) == 4 else _past(call, 5) + key[1]
    return batch * length * total * (width + (value[1] * value[3] if len(value) == 4 else value[2]))


def grouped_queries(call: Call) -> int:
    """Count attention whose query heads share those of keys and values in groups.

    The keys are as many as the operator is told, where that is known, and else those of the cache and the new ones.
    """
    query = call.dims(0, 3)
    heads, pairs = call.required("num_heads"), call.required("kv_num_heads")
    packed = not call.has(1)
    width = query[2] // (heads + 2 * pairs if packed else heads)
    total = call.number(6)
    if total is None:
        total = _past(call, 3) + (query[1] if packed else call.dims(1)[-2])
    return query[0] * query[1] * total * 2 * heads * width


def linear_attention(call: Call) -> int:
    """Count a state that each key updates and each query reads; a delta rule reads it with the key before."""
    query, value = call.dims(0, 3), call.dims(2, 3)
    heads, pairs = call.required("q_num_heads"), call.required("kv_num_heads")
    state = query[2] // heads * (value[2] // pairs)
    return elements(query[:2]) * state * (_updates(call) * pairs + max(heads, pairs))


def gated_delta(call: Call) -> int:
    """Count the same where heads are an axis of their own."""
    query = call.dims(0)
    if call.has(1):
        value = call.dims(2)
        heads, width = query[-2:]
        pairs, depth = value[-2:]
        tokens = elements(query[:-2])
    else:
        _, pairs, depth, width = call.dims(6, 4)
        heads = (query[-1] - pairs * depth) // (2 * width)
        tokens = elements(query[:-1])
    return tokens * width * depth * (_updates(call) * pairs + max(heads, pairs))


def experts(bits: bool = False) -> Formula:
    """Return the count of a mixture of experts: each token goes through as many of them as are chosen.

    bits: whether the matrices are packed, so that the attributes tell how long their rows are.
    """

    def count(call: Call) -> int:
        data, first = call.dims(0), call.dims(2, 3)
        second, third = (call.dims(5, 3), 8) if bits else (call.dims(4, 3), 6)
        inner = second[2]
        if bits:
            width = call.integer("fc2_expert_weight_bits", 0) or call.integer("expert_weight_bits", 4)
            inner = inner * 8 // width
        rows = first[1] + inner + (call.dims(third)[1] if call.has(third) else 0)
        return elements(data) * call.integer("k", 1) * rows

    return count


def packed_experts(call: Call) -> int:
    """Count the same for matrices of packed rows, each in a tensor of its own."""
    gate = call.dims(2, 3)[1]
    return elements(call.dims(0)) * call.integer("k", 1) * (2 * gate + (call.dims(3)[1] if call.has(3) else 0))


def _widths(call: Call, columns: int) -> tuple[int, int]:
    """Return how many features queries (and keys) and values have."""
    sizes = call.attributes.get("qkv_hidden_sizes")
    return (int(sizes[0]), int(sizes[2])) if sizes else (columns // 3, columns // 3)


def _updates(call: Call) -> int:
    """Return how often a step goes through the state of a head of keys, beside reading it for the queries."""
    return 2 if call.text("update_rule", "gated_delta").endswith("delta") else 1


def _past(call: Call, slot: int, axis: int = 2) -> int:
    """Return how many keys a cache holds."""
    if not call.has(slot):
        return 0
    if call.integer("past_present_share_buffer", 0):
        raise Uncountable("how much of its cache is filled is known at run time only")
    dims = call.dims(slot)
    if len(dims) <= axis:
        raise Uncountable(UNKNOWN_SHAPE)
    return dims[axis]
