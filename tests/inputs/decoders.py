"""Decoders of one layer in the forms that exporters write for generation, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from onnx.helper import make_node as node

Array = npt.NDArray[Any]
_MICROSOFT = "com.microsoft"
_VOCABULARY, _HEADS, _WIDTH = 60, 4, 16
_FEATURES = _HEADS * _WIDTH
_FLOAT, _INT32, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64
_PAST = "past_sequence_length"
_SUM = f"{_PAST} + sequence_length"
Dims = Sequence[int | str | None]
Inputs = dict[str, tuple[int, Dims]]


def _weights(**shapes: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    return {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def _angles(rows: int) -> dict[str, Array]:
    turns = np.outer(np.arange(rows), 100.0 ** -(np.arange(_WIDTH // 2) / _WIDTH))
    return {"cos": np.cos(turns).astype(np.float32), "sin": np.sin(turns).astype(np.float32)}


def _model(
    nodes: Sequence[onnx.NodeProto], inputs: Inputs, outputs: Sequence[str], tensors: dict[str, Array], opset: int = 18
) -> onnx.ModelProto:
    """Return a decoder whose `nodes` make `attended` of `q`, `k` and `v`, between an embedding and a head."""
    stored = _weights(
        embedding=(_VOCABULARY, _FEATURES), wq=(_FEATURES, _FEATURES), wk=(_FEATURES, _FEATURES),
        wv=(_FEATURES, _FEATURES), wo=(_FEATURES, _FEATURES), head=(_FEATURES, _VOCABULARY),
    )  # fmt: skip
    before = [node("Gather", ["embedding", "input_ids"], ["x"])]
    before += [node("MatMul", ["x", f"w{name}"], [name]) for name in "qkv"]
    after = [
        node("MatMul", ["attended", "wo"], ["o"]),
        node("Add", ["x", "o"], ["h"]),
        node("MatMul", ["h", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        [*before, *nodes, *after],
        "decoder",
        [helper.make_tensor_value_info(name, dtype, dims) for name, (dtype, dims) in inputs.items()],
        [helper.make_tensor_value_info(name, _FLOAT, None) for name in ("logits", *outputs)],
        [onnx.numpy_helper.from_array(array, name) for name, array in {**stored, **tensors}.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8 if opset < 21 else 10)


def _ids(batch: str = "batch_size", length: int | str = "sequence_length") -> Inputs:
    return {"input_ids": (_INT64, [batch, length])}


def _caches(heads: int, width: int | str = _WIDTH, length: int | str | None = _PAST) -> Inputs:
    dims = ["batch_size", heads, length, width]
    return {f"past_key_values.0.{kind}": (_FLOAT, dims) for kind in ("key", "value")}


_PRESENT = ["present.0.key", "present.0.value"]
_OLD = ["past_key_values.0.key", "past_key_values.0.value"]


def _in_heads(name: str) -> list[onnx.NodeProto]:
    return [
        node("Reshape", [name, "in_heads"], [f"{name}1"]),
        node("Transpose", [f"{name}1"], [f"{name}h"], perm=[0, 2, 1, 3]),
    ]


def _attention(mask: Sequence[onnx.NodeProto], key: str = "present.0.key", value: str = "present.0.value") -> Any:
    return [
        node("Transpose", [key], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["qh", "kt"], ["raw"]),
        *mask,
        node("Softmax", ["seen"], ["p"], axis=-1),
        node("MatMul", ["p", value], ["mixed"]),
        node("Transpose", ["mixed"], ["mixed1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["mixed1", "flat"], ["attended"]),
    ]


_LAYOUTS = {"in_heads": np.array([0, 0, _HEADS, _WIDTH]), "flat": np.array([0, 0, _FEATURES])}
_MASK = [
    node("Cast", ["attention_mask"], ["mask"], to=_FLOAT),
    node("Sub", ["one", "mask"], ["hidden"]),
    node("Mul", ["hidden", "lowest"], ["bias0"]),
    node("Unsqueeze", ["bias0", "middle"], ["bias"]),
    node("Add", ["raw", "bias"], ["seen"]),
]
_NUMBERS = {"one": np.float32(1), "lowest": np.float32(-1e4), "middle": np.array([1, 2])}


def optimum(length: int | str = "sequence_length", total: str | None = _SUM, guard: bool = False) -> onnx.ModelProto:
    """Return plain operators with past keys and values in front of the new ones (Optimum, transformers.onnx).

    guard: whether something in the graph fails on caches without tokens.
    """
    positions = _weights(places=(512, _FEATURES))
    nodes = [node("Gather", ["places", "position_ids"], ["p0"])]
    nodes += [node("Add", [name, "p0"], [f"{name}p"]) for name in "qk"]
    nodes += [*_in_heads("qp"), *_in_heads("kp"), *_in_heads("v"), node("Identity", ["qph"], ["qh"])]
    old = _OLD[0]
    if guard:
        nodes += [node("ReduceMax", [old], ["m"]), node("Mul", ["m", "zero"], ["m0"]), node("Add", [old, "m0"], ["o1"])]
        old = "o1"
    nodes += [node("Concat", [old, "kph"], ["present.0.key"], axis=2)]
    nodes += [node("Concat", [_OLD[1], "vh"], ["present.0.value"], axis=-2), *_attention(_MASK)]
    inputs = {**_ids(length=length), "attention_mask": (_INT64, ["batch_size", total])}
    inputs |= {"position_ids": (_INT64, ["batch_size", length]), **_caches(_HEADS)}
    tensors = {**positions, **_LAYOUTS, **_NUMBERS, "zero": np.float32(0)}
    return _model(nodes, inputs, _PRESENT, tensors)


def merged() -> onnx.ModelProto:
    """Return a decoder that uses its caches in one branch of an If (Optimum's merged decoders)."""

    def branch(name: str, nodes: list[onnx.NodeProto], outputs: list[str]) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(o, _FLOAT, None) for o in outputs])

    grown = [node("Concat", [old, new], [f"g{new}"], axis=2) for old, new in zip(_OLD, ("kh", "vh"), strict=True)]
    fresh = [node("Identity", [new], [f"f{new}"]) for new in ("kh", "vh")]
    nodes = [*_in_heads("q"), *_in_heads("k"), *_in_heads("v"), node("Squeeze", ["use_cache_branch"], ["use"])]
    nodes += [
        node("If", ["use"], _PRESENT, then_branch=branch("then", grown, ["gkh", "gvh"]),
             else_branch=branch("else", fresh, ["fkh", "fvh"])),
        *_attention(_MASK),
    ]  # fmt: skip
    inputs: Inputs = {**_ids(), "attention_mask": (_INT64, ["batch_size", _SUM]), **_caches(_HEADS)}
    inputs["use_cache_branch"] = (onnx.TensorProto.BOOL, [1])
    return _model(nodes, inputs, _PRESENT, {**_LAYOUTS, **_NUMBERS})


def cross() -> onnx.ModelProto:
    """Return a decoder that appends to one pair of caches, and only reads another (a sequence-to-sequence model)."""
    nodes = [*_in_heads("q"), *_in_heads("k"), *_in_heads("v")]
    nodes += [node("Concat", [_OLD[0], "kh"], ["present.0.key"], axis=2)]
    nodes += [node("Concat", [_OLD[1], "vh"], ["present.0.value"], axis=2)]
    nodes += [node("Transpose", ["present.0.key"], ["own"], perm=[0, 1, 3, 2]), node("MatMul", ["qh", "own"], ["s0"])]
    nodes += [node("Softmax", ["s0"], ["s1"], axis=-1), node("MatMul", ["s1", "present.0.value"], ["own_mix"])]
    nodes += [node("Add", ["qh", "own_mix"], ["qh2"])]
    reads = _attention(_MASK, "past_key_values.0.encoder.key", "past_key_values.0.encoder.value")
    reads[1] = node("MatMul", ["qh2", "kt"], ["raw"])
    read: Dims = ["batch_size", _HEADS, "encoder_sequence_length_out", _WIDTH]
    inputs: Inputs = {**_ids(), "attention_mask": (_INT64, ["batch_size", "encoder_sequence_length"])}
    inputs |= {**_caches(_HEADS), **{f"past_key_values.0.encoder.{kind}": (_FLOAT, read) for kind in ("key", "value")}}
    return _model([*nodes, *reads], inputs, _PRESENT, {**_LAYOUTS, **_NUMBERS})


def stacked(packed: bool) -> onnx.ModelProto:
    """Return a decoder whose keys and values are one cache (GPT-2 of older exporters; Attention of com.microsoft)."""
    inputs: Inputs = {**_ids(), "attention_mask": (_INT32, ["batch_size", "total_sequence_length"])}
    inputs["past_0"] = (_FLOAT, [2, "batch_size", _HEADS, _PAST, _WIDTH])
    if packed:
        stored = _weights(wqkv=(_FEATURES, 3 * _FEATURES), bqkv=(3 * _FEATURES,))
        slots = ["x", "wqkv", "bqkv", "attention_mask", "past_0"]
        attention = node("Attention", slots, ["attended", "present_0"], domain=_MICROSOFT, num_heads=_HEADS)
        return _model([attention], inputs, ["present_0"], stored)
    nodes = [*_in_heads("q"), *_in_heads("k"), *_in_heads("v"), node("Split", ["past_0"], ["pk", "pv"], num_outputs=2)]
    nodes += [node("Squeeze", [f"p{name}", "first"], [f"o{name}"]) for name in "kv"]
    nodes += [node("Concat", [f"o{name}", f"{name}h"], [f"g{name}"], axis=2) for name in "kv"]
    nodes += [node("Unsqueeze", [f"g{name}", "first"], [f"u{name}"]) for name in "kv"]
    nodes += [node("Concat", ["uk", "uv"], ["present_0"], axis=0), *_attention(_MASK, "gk", "gv")]
    return _model(nodes, inputs, ["present_0"], {**_LAYOUTS, **_NUMBERS, "first": np.array([0])})


def grouped(
    fed: bool = False, rows: int = 512, length: int | str = "sequence_length", past: int | str = _PAST,
    width: int | str = "kv_cache_dim",
) -> onnx.ModelProto:  # fmt: skip
    """Return a GroupQueryAttention with lengths of the mask, or that are fed (ONNX Runtime GenAI)."""
    pack = _weights(wkv=(_FEATURES, 2 * _WIDTH))
    nodes = [node("MatMul", ["x", "wkv"], ["keys"]), node("MatMul", ["x", "wkv"], ["values"])]
    inputs = _ids(length=length)
    if fed:
        inputs |= {"seqlens_k": (_INT32, ["batch_size"]), "total": (_INT32, [])}
    else:
        inputs["attention_mask"] = (_INT64, ["batch_size", "total_sequence_length"])
        nodes += [
            node("ReduceSum", ["attention_mask", "last_axis"], ["sums"]),
            node("Sub", ["sums", "last_axis"], ["ends"]),
            node("Cast", ["ends"], ["seqlens_k"], to=_INT32),
            node("Shape", ["attention_mask"], ["sizes"]),
            node("Gather", ["sizes", "second"], ["size"]),
            node("Cast", ["size"], ["total"], to=_INT32),
        ]
    slots = ["q", "keys", "values", *_OLD, "seqlens_k", "total", "cos", "sin"]
    nodes += [
        node("GroupQueryAttention", slots, ["attended", *_PRESENT], domain=_MICROSOFT, num_heads=_HEADS,
             kv_num_heads=2, do_rotary=1),
    ]  # fmt: skip
    tensors = {**pack, **_angles(rows), "last_axis": np.array([1]), "second": np.array(1)}
    return _model(nodes, {**inputs, **_caches(2, width, past)}, _PRESENT, tensors)


def multi_head(length: int | str = "sequence_length", total: str = "total_sequence_length") -> onnx.ModelProto:
    """Return a MultiHeadAttention with caches behind rotations at places that are fed (ONNX Runtime's optimiser)."""
    nodes = [
        node("RotaryEmbedding", [name, "position_ids", "cos", "sin"], [f"{name}r"], domain=_MICROSOFT) for name in "qk"
    ]
    slots = ["qr", "kr", "v", "", "attention_mask", "", *_OLD]
    nodes += [node("MultiHeadAttention", slots, ["attended", *_PRESENT], domain=_MICROSOFT, num_heads=_HEADS)]
    inputs = {**_ids(length=length), "attention_mask": (_INT32, ["batch_size", total])}
    inputs |= {"position_ids": (_INT64, ["batch_size", length]), **_caches(_HEADS)}
    return _model(nodes, inputs, _PRESENT, _angles(512))


def standard(length: int | str = "sequence_length") -> onnx.ModelProto:
    """Return a RotaryEmbedding and an Attention of the standard's own, with caches (operator set 23)."""
    nodes = [*_in_heads("q"), *_in_heads("k"), *_in_heads("v")]
    nodes += [node("RotaryEmbedding", [f"{name}h", "cos", "sin", "places"], [f"{name}r"]) for name in "qk"]
    nodes += [
        node("Attention", ["qr", "kr", "vh", "", *_OLD], ["mixed", *_PRESENT]),
        node("Transpose", ["mixed"], ["mixed1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["mixed1", "flat"], ["attended"]),
    ]
    inputs = {**_ids(length=length), "places": (_INT64, ["batch_size", length]), **_caches(_HEADS)}
    return _model(nodes, inputs, _PRESENT, {**_LAYOUTS, **_angles(512)}, opset=23)


def scattered(size: int | str = "max_length", length: int | str = "sequence_length") -> onnx.ModelProto:
    """Return a TensorScatter into buffers of keys and values, and an Attention of those that are valid (set 24)."""
    nodes = [*_in_heads("q"), *_in_heads("k"), *_in_heads("v")]
    nodes += [node("TensorScatter", [_OLD[0], "kh", "write"], ["present.0.key"], axis=2)]
    nodes += [
        node("TensorScatter", [_OLD[1], "vh", "write"], ["present.0.value"]),
        node("Attention", ["qh", *_PRESENT, "", "", "", "valid"], ["mixed"], is_causal=1),
        node("Transpose", ["mixed"], ["mixed1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["mixed1", "flat"], ["attended"]),
    ]
    inputs = {**_ids(length=length), "write": (_INT64, ["batch_size"]), "valid": (_INT64, ["batch_size"])}
    return _model(nodes, {**inputs, **_caches(_HEADS, length=size)}, _PRESENT, _LAYOUTS, opset=24)


DECODERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "Optimum": optimum,
    "Optimum, sizes without names": lambda: optimum(total=None),
    "older exporter": lambda: optimum(total=f"{_PAST} + 1"),
    "merged": merged,
    "cross-attention": cross,
    "stacked": lambda: stacked(False),
    "Attention": lambda: stacked(True),
    "GenAI": grouped,
    "GenAI, lengths fed": lambda: grouped(fed=True),
    "GenAI, few angles": lambda: grouped(rows=40),
    "GenAI, buffer": lambda: grouped(past=200),
    "MultiHeadAttention": multi_head,
    "Attention-23": standard,
    "TensorScatter": scattered,
    "TensorScatter, large buffer": lambda: scattered(200),
}
"""Decoders whose prompts are of any length."""

STEPS: dict[str, tuple[Callable[[], onnx.ModelProto], int]] = {
    "Optimum": (lambda: optimum(1), 6),
    "GenAI": (lambda: grouped(True, length=1, past=7, width=_WIDTH), 6),
    "MultiHeadAttention": (lambda: multi_head(1), 6),
    "Attention-23": (lambda: standard(1), 6),
    "TensorScatter": (lambda: scattered(7, 1), 6),
}
"""Decoders that are fed one token, and how many they have seen before where their caches have seven places or six."""
