"""Attention and the operators that come with it equal the operators on expanded operands, whatever the partitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from tests.lump.harness import Array, Operand, check, examples, known, lower, operands, partitions, weight

_DOMAINS = {"com.microsoft": 1}
_CONSTANTS = (0.3, -0.7)
_CONTRIBUTED = {"domain": "com.microsoft"}
Case = tuple[onnx.NodeProto, dict[str, Operand], int]


def _node(op_type: str, slots: dict[str, Any], outputs: list[str], **attributes: Any) -> Any:
    """Return a node and its operands; a slot without one is left out."""
    while slots and next(reversed(slots.values())) is None:
        slots.popitem()
    names = [name if operand is not None else "" for name, operand in slots.items()]
    node = onnx.helper.make_node(op_type, names, outputs, **attributes)
    return node, {name: operand for name, operand in slots.items() if operand is not None}


@st.composite
def _truths(draw: st.DrawFn, shape: list[int]) -> Operand:
    """Draw a mask, all of whose rows see the first key."""
    parts = tuple(draw(partitions(size)) for size in shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    array = rng.random([part.count for part in parts]) < 0.6
    array[..., 0] = True
    return Operand(array, parts)


def _maybe(draw: st.DrawFn, strategy: st.SearchStrategy[Operand]) -> Operand | None:
    return draw(strategy) if draw(st.booleans()) else None


def _whole(draw: st.DrawFn, shape: list[int], low: int, high: int, dtype: Any) -> Operand:
    """Draw integers in [low, high]."""
    return draw(operands(shape, low=low, high=high + 0.99, dtype=dtype))


@st.composite
def _padding(draw: st.DrawFn, shape: list[int], total: int) -> Operand:
    """Draw a mask of integers: lengths from 1 on, or ones where a key is seen."""
    if len(shape) == 1:
        return _whole(draw, shape, 1, total, np.int32)
    mask = draw(_truths(shape))
    return Operand(mask.array.astype(np.int32), mask.parts)


@st.composite
def standard(draw: st.DrawFn) -> Case:
    """Draw an ONNX Attention."""
    constants = draw(st.integers(1, 2))
    batch, length, total, pairs = (draw(st.integers(1, 3)) for _ in range(4))
    heads = pairs * draw(st.integers(1, 2))
    width, wide = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    attributes: dict[str, Any] = {"is_causal": draw(st.integers(0, 1))}
    if draw(st.booleans()):
        attributes["scale"] = 0.4
    if draw(st.booleans()):
        attributes["softcap"] = 1.5
    shapes = [[batch, heads, length, width], [batch, pairs, total, width], [batch, pairs, total, wide]]
    if draw(st.booleans()):
        attributes |= {"q_num_heads": heads, "kv_num_heads": pairs}
        shapes = [[b, s, n * d] for b, n, s, d in shapes]
    slots: dict[str, Operand | None] = {
        name: draw(operands(shape, constants=constants, factors=True))
        for name, shape in zip("qkv", shapes, strict=True)
    }
    mask = [draw(st.sampled_from([batch, 1])), draw(st.sampled_from([heads, 1])), length, total]
    mask = mask[draw(st.integers(0, 2)) :]
    slots["mask"] = _maybe(draw, draw(st.sampled_from([_truths(mask), operands(mask, constants=constants)])))
    if slots["mask"] is None:
        del slots["mask"]
    return *_node(
        "Attention",
        slots,
        [
            "y",
            "",
            "",
        ][:1],
        **attributes,
    ), constants


@examples(40)
@given(case=standard())
def test_standard(case: Case) -> None:
    node, given, constants = case
    check(node, given, opset=23, constants=constants)


@st.composite
def packed(draw: st.DrawFn) -> Case:
    """Draw an Attention of ONNX Runtime, which projects its input."""
    constants = draw(st.integers(1, 2))
    batch, length, heads, width, features = (draw(st.integers(1, 3)) for _ in range(5))
    hidden = heads * width
    sizes = [hidden, hidden, heads * draw(st.integers(1, 3))]
    attributes: dict[str, Any] = {"num_heads": heads, "unidirectional": draw(st.integers(0, 1))}
    if sizes[2] != hidden or draw(st.booleans()):
        attributes["qkv_hidden_sizes"] = sizes
    if draw(st.booleans()):
        attributes["scale"] = 0.7
    mask = draw(st.sampled_from([[batch], [batch, length], [batch, length, length]]))
    slots = {
        "x": draw(operands([batch, length, features], constants=constants, factors=True)),
        "w": weight([features, sum(sizes)], _CONSTANTS[:constants])
        if draw(st.booleans())
        else draw(operands([features, sum(sizes)])),
        "b": draw(operands([sum(sizes)], constants=constants)),
        "mask": _maybe(draw, _padding(mask, length)),
        "past": None,
        "bias": _maybe(draw, operands([draw(st.sampled_from([1, batch])), draw(st.sampled_from([1, heads])),
                                       length, length])),
    }  # fmt: skip
    return *_node("Attention", slots, ["y"], **attributes, **_CONTRIBUTED), constants


@examples(35)
@given(case=packed())
def test_packed(case: Case) -> None:
    node, given, constants = case
    check(node, given, constants=constants, domains=_DOMAINS)


@st.composite
def multi_head(draw: st.DrawFn) -> Case:
    """Draw a MultiHeadAttention, with keys and values in either layout."""
    constants = draw(st.integers(1, 2))
    batch, length, total, heads, width = (draw(st.integers(1, 3)) for _ in range(5))
    wide = draw(st.integers(1, 3))
    split = draw(st.booleans())
    wide = width if split else wide  # ONNX Runtime wants as much
    pair = (
        [[batch, heads, total, width], [batch, heads, total, wide]]
        if split
        else [[batch, total, heads * width], [batch, total, heads * wide]]
    )
    attributes: dict[str, Any] = {"num_heads": heads, "unidirectional": int(length == total and draw(st.booleans()))}
    if draw(st.booleans()):
        attributes["scale"] = 0.7
    mask = draw(st.sampled_from([[batch], [batch, total], [batch, length, total]]))
    biased = not split and draw(st.booleans())
    slots = {
        "q": draw(operands([batch, length, heads * width], constants=constants, factors=True)),
        "k": draw(operands(pair[0], constants=constants, factors=True)),
        "v": draw(operands(pair[1], constants=constants, factors=True)),
        "b": draw(operands([heads * (2 * width + wide)], constants=constants)) if biased else None,
        "mask": _maybe(draw, _padding(mask, total)),
        "bias": _maybe(draw, operands([draw(st.sampled_from([1, batch])), draw(st.sampled_from([1, heads])),
                                       length, total])),
    }  # fmt: skip
    outputs = ["y"] if split or draw(st.booleans()) else ["y", "present_key", "present_value"]
    return *_node("MultiHeadAttention", slots, outputs, **attributes, **_CONTRIBUTED), constants


@examples(35)
@given(case=multi_head())
def test_multi_head(case: Case) -> None:
    node, given, constants = case
    check(node, given, constants=constants, domains=_DOMAINS)


@st.composite
def grouped(draw: st.DrawFn) -> Case:
    """Draw a GroupQueryAttention of a prompt."""
    constants = draw(st.integers(1, 2))
    batch, length, pairs = (draw(st.integers(1, 3)) for _ in range(3))
    heads = pairs * draw(st.integers(1, 2))
    rotary = draw(st.booleans())
    width = draw(st.sampled_from([16, 32])) if rotary else 8
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": pairs, "do_rotary": int(rotary)}
    attributes["rotary_interleaved"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        attributes["scale"] = 0.3
    if draw(st.booleans()):
        attributes["softcap"] = 1.5
    if draw(st.booleans()):
        attributes["local_window_size"] = draw(st.integers(1, 3))
    separate = draw(st.booleans())
    query = heads if separate else heads + 2 * pairs
    ends = known([length - 1] * batch, np.int32)
    if "local_window_size" not in attributes and draw(st.booleans()):
        ends = _whole(draw, [batch], 0, length - 1, np.int32)
    slots = {
        "q": draw(operands([batch, length, query * width], constants=constants, factors=True)),
        "k": draw(operands([batch, length, pairs * width], constants=constants, factors=True)) if separate else None,
        "v": draw(operands([batch, length, pairs * width], constants=constants, factors=True)) if separate else None,
        "past_key": None,
        "past_value": None,
        "ends": ends,
        "total": known(length, np.int32),
        "cos": draw(operands([6, 8])) if rotary else None,
        "sin": draw(operands([6, 8])) if rotary else None,
        "places": None,
        "bias": _maybe(draw, operands([draw(st.sampled_from([1, batch])), draw(st.sampled_from([1, heads])),
                                       length, length])),
    }  # fmt: skip
    return *_node("GroupQueryAttention", slots, ["y", "key", "value"], **attributes, **_CONTRIBUTED), constants


@examples(35)
@given(case=grouped())
def test_grouped(case: Case) -> None:
    node, given, constants = case
    check(node, given, constants=constants, domains=_DOMAINS)


@st.composite
def rotations(draw: st.DrawFn, domain: str) -> Case:
    """Draw a RotaryEmbedding of either domain, with tables of all places or, in ONNX's, of each token."""
    constants = draw(st.integers(1, 2))
    batch, length, heads = (draw(st.integers(1, 3)) for _ in range(3))
    pairs = draw(st.integers(1, 3))
    partial = draw(st.booleans())
    width = 2 * pairs + (2 if partial else 0)
    attributes: dict[str, Any] = {"interleaved": draw(st.integers(0, 1))}
    if partial:
        attributes["rotary_embedding_dim"] = 2 * pairs
    flat = draw(st.booleans())
    if flat or partial:
        attributes["num_heads"] = heads
    shape = [batch, length, heads * width] if flat else [batch, heads, length, width]
    x = draw(operands(shape, constants=constants, factors=True))
    rows = [batch, length] if not domain and draw(st.booleans()) else [7]
    table = {name: draw(operands([*rows, pairs])) for name in ("cos", "sin")}
    places = [1] if domain and draw(st.booleans()) else [batch, length]
    ids = {"places": _whole(draw, places, 0, 3, np.int64)} if len(rows) == 1 else {}
    slots = {"x": x, **ids, **table} if domain else {"x": x, **table, **ids}
    return *_node("RotaryEmbedding", slots, ["y"], domain=domain, **attributes), constants


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@examples(25)
@given(data=st.data())
def test_rotation(domain: str, data: st.DataObject) -> None:
    node, given, constants = data.draw(rotations(domain))
    check(node, given, opset=23, constants=constants, domains=_DOMAINS)


@pytest.mark.parametrize("simple", [False, True])
@examples(20)
@given(data=st.data())
def test_skip_normalisations(simple: bool, data: st.DataObject) -> None:
    draw = data.draw
    constants = draw(st.integers(1, 2))
    batch, length, width = (draw(st.integers(1, 4)) for _ in range(3))
    skip = draw(st.sampled_from([[batch, length, width], [1, length, width], [length, width]]))
    slots = {
        "x": draw(operands([batch, length, width], constants=constants, factors=True)),
        "skip": draw(operands(skip, constants=constants, factors=True)),
        "scale": weight([width], _CONSTANTS[:constants]),
    }
    if not simple:
        slots["shift"] = _maybe(draw, operands([width]))
    slots["bias"] = _maybe(draw, operands([width]))
    outputs = draw(st.sampled_from([["y"], ["y", "", "", "sum"]]))
    op_type = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    node, given = _node(op_type, slots, outputs, epsilon=0.01, **_CONTRIBUTED)
    check(node, given, constants=constants, domains=_DOMAINS)


@examples(25)
@given(data=st.data())
def test_embeddings(data: st.DataObject) -> None:
    draw = data.draw
    batch, length, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    segments = draw(st.booleans())
    ids = [batch, length]
    slots = {
        "ids": _whole(draw, ids, 0, 4, np.int32),
        "segments": _whole(draw, ids, 0, 1, np.int32) if segments else None,
        "words": draw(operands([5, width])),
        "places": draw(operands([6, width])),
        "kinds": draw(operands([2, width])) if segments else None,
        "scale": draw(operands([width])),
        "shift": draw(operands([width])),
        "mask": _whole(draw, ids, 0, 1, np.int32) if draw(st.booleans()) else None,
        "given": _whole(draw, [draw(st.sampled_from([1, batch])), length], 0, 5, np.int32)
        if draw(st.booleans())
        else None,
    }
    node, given = _node("EmbedLayerNormalization", slots, ["y", "index", "sum"], epsilon=0.01, **_CONTRIBUTED)
    check(node, given, domains=_DOMAINS)


@examples(30)
@given(data=st.data(), blocked=st.booleans())
def test_fused_convolution(data: st.DataObject, blocked: bool) -> None:
    draw = data.draw
    constants = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 2))
    batch, outputs, inputs = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    activation: dict[str, Any] = draw(
        st.sampled_from([
            {}, {"activation": "Relu"}, {"activation": "Sigmoid"}, {"activation": "Tanh"},
            {"activation": "LeakyRelu", "activation_params": [0.25]},
            {"activation": "Clip", "activation_params": [-0.5, 0.75]},
            {"activation": "HardSigmoid", "activation_params": [0.25, 0.5]},
        ])
    )  # fmt: skip
    slots = {
        "x": draw(operands([batch, inputs, 4, 4], constants=constants, factors=True)),
        "w": weight([outputs, inputs // groups, 3, 3], _CONSTANTS[:constants]),
        "b": _maybe(draw, operands([outputs], constants=constants)),
        "z": _maybe(draw, operands([batch, outputs, 4, 4], constants=constants, factors=True)),
    }
    node, given = _node("FusedConv", slots, ["y"], group=groups, pads=[1] * 4, **activation, **_CONTRIBUTED)
    check(node, given, constants=constants, blocked=blocked, domains=_DOMAINS)


# ONNX Runtime has no CPU kernels for what follows.


def _compare(node: onnx.NodeProto, given: dict[str, Operand], constants: int, reference: Any) -> None:
    """Compare with NumPy in float64; the tolerance is that of sums of some ten float32 terms of size 1."""
    lowered = lower(node, given, constants=constants, domains=_DOMAINS)
    assert not lowered.without_rule
    for constant in range(constants):
        whole = {name: operand.whole(constant).astype(np.float64) for name, operand in given.items()}
        for array, wanted in zip(lowered.arrays, reference(**whole), strict=True):
            assert array[constant].shape == wanted.shape
            np.testing.assert_allclose(array[constant], wanted, rtol=1e-4, atol=1e-4)


@examples(20)
@given(data=st.data())
def test_group_norm(data: st.DataObject) -> None:
    draw = data.draw
    constants = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 3))
    batch, height, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    activation, skips = draw(st.integers(0, 1)), draw(st.booleans())
    last = 1 if skips else draw(st.integers(0, 1))
    shape = [batch, height, 2, channels] if last else [batch, channels, height, 2]
    slots = {
        "x": draw(operands(shape, constants=constants, factors=True)),
        "scale": weight([channels], _CONSTANTS[:constants]),
        "shift": draw(operands([channels])),
    }
    if skips:
        slots["skip"] = draw(operands(draw(st.sampled_from([shape, [batch, 1, 1, channels], [batch, channels]]))))
        slots["bias"] = _maybe(draw, operands([channels]))
    outputs = ["y", "sum"] if skips else ["y"]
    op_type = "SkipGroupNorm" if skips else "GroupNorm"
    node, given = _node(op_type, slots, outputs, groups=groups, activation=activation, epsilon=0.01, channels_last=last,
                        **_CONTRIBUTED)  # fmt: skip

    def reference(x: Array, scale: Array, shift: Array, skip: Array | None = None, bias: Any = 0.0) -> list[Array]:
        if skip is not None:
            x = x + (skip[:, None, None] if skip.ndim == 2 else skip) + bias
        maps = np.moveaxis(x, -1, 1) if last else x
        cut = maps.reshape(batch, groups, -1)
        cut = (cut - cut.mean(2, keepdims=True)) / np.sqrt(cut.var(2, keepdims=True) + 0.01)
        y = cut.reshape(maps.shape) * scale[:, None, None] + shift[:, None, None]
        y = y / (1 + np.exp(-y)) if activation else y
        y = np.moveaxis(y, 1, -1) if last else y
        return [y, x][: len(outputs)]

    _compare(node, given, constants, reference)


@examples(20)
@given(data=st.data(), splits=st.booleans())
def test_biases(data: st.DataObject, splits: bool) -> None:
    draw = data.draw
    constants = draw(st.integers(1, 2))
    shape = [draw(st.integers(1, 2)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 3))]
    slots = {
        "x": draw(operands(shape, constants=constants, factors=True)),
        "bias": draw(operands(shape[2:], constants=constants)),
    }
    if not splits:
        slots["skip"] = draw(operands(shape, constants=constants))
    node, given = _node("BiasSplitGelu" if splits else "BiasAdd", slots, ["y"], **_CONTRIBUTED)

    def reference(x: Array, bias: Array, skip: Any = 0.0) -> list[Array]:
        y = x + bias + skip
        if not splits:
            return [y]
        left, right = np.split(y, 2, axis=2)
        return [left * right * 0.5 * (1 + np.vectorize(math.erf)(right / math.sqrt(2)))]

    _compare(node, given, constants, reference)


@examples(20)
@given(data=st.data(), apart=st.booleans())
def test_stacked_heads(data: st.DataObject, apart: bool) -> None:
    draw = data.draw
    batch, length, heads, width = (draw(st.integers(1, 3)) for _ in range(4))
    stack = operands([batch, length, heads, 2 if apart else 3, width], factors=True)
    slots = {"q": draw(operands([batch, length, heads * width]))} if apart else {}
    slots["packed"] = draw(stack)
    node, given = _node("MultiHeadAttention", slots, ["y"], num_heads=heads, **_CONTRIBUTED)

    def reference(packed: Array, q: Array | None = None) -> list[Array]:
        pieces = [packed[:, :, :, index] for index in range(packed.shape[3])]
        if q is not None:
            pieces = [q.reshape(batch, length, heads, width), *pieces]
        scores = np.einsum("bqhd,bkhd->bhqk", pieces[0], pieces[1]) / math.sqrt(width)
        powers = np.exp(scores - scores.max(3, keepdims=True))
        mixed = np.einsum("bhqk,bkhd->bqhd", powers / powers.sum(3, keepdims=True), pieces[2])
        return [mixed.reshape(batch, length, heads * width)]

    _compare(node, given, 1, reference)


def test_equal_features_need_one_matrix_of_scores() -> None:
    parts = (Partition.discrete(2), Partition.discrete(5), Partition.one(256))
    rng = np.random.default_rng(0)
    given = {name: Operand(rng.random((2, 5, 1), np.float32), parts, weighted=True) for name in "qkv"}
    node = onnx.helper.make_node("MultiHeadAttention", list("qkv"), ["y"], num_heads=8, **_CONTRIBUTED)
    lowered = check(node, given, domains=_DOMAINS)
    assert lowered.values[0].counts == (2, 5, 1)
    assert max(output.elements for node in lowered.graph.nodes for output in node.outputs) == 2 * 5 * 5
