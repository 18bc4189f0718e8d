"""Operands that ONNX Runtime refuses: no rule makes a number of them, so that lumped and plain end alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from epsinas_onnx import score
from epsinas_onnx.errors import RunError

from ..builders import build
from .harness import Operand, Partition, known, lower, plain

_DOMAINS = {"com.microsoft": 1}
_REFUSED = (
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)
Shape = tuple[int, ...]

# Shapes of the signal, both tables and the places, and attributes; the first is what fits.
TABLES: dict[str, tuple[Shape, Shape, Shape, Shape, dict[str, int]]] = {
    "fits": ((2, 6, 16), (8, 4), (8, 4), (2, 6), {"num_heads": 2}),
    "fits in heads": ((2, 2, 6, 8), (8, 4), (8, 4), (2, 6), {"num_heads": 2}),
    "fits in part": ((2, 6, 16), (8, 2), (8, 2), (2, 6), {"num_heads": 2, "rotary_embedding_dim": 4}),
    "fewer places than tokens": ((2, 6, 16), (5, 4), (5, 4), (2, 6), {"num_heads": 2}),
    "fewer places than tokens in heads": ((2, 2, 6, 8), (5, 4), (5, 4), (2, 6), {"num_heads": 2}),
    "tables of two lengths": ((2, 6, 16), (8, 4), (9, 4), (2, 6), {"num_heads": 2}),
    "too wide": ((2, 6, 16), (8, 5), (8, 5), (2, 6), {"num_heads": 2}),
    "too narrow": ((2, 6, 16), (8, 2), (8, 2), (2, 6), {"num_heads": 2}),
    "too narrow in heads": ((2, 2, 6, 8), (8, 2), (8, 2), (2, 6), {"num_heads": 2}),
    "a table for each sample": ((2, 6, 16), (2, 8, 4), (2, 8, 4), (2, 6), {"num_heads": 2}),
    "places of one sample": ((2, 6, 16), (8, 4), (8, 4), (1, 6), {"num_heads": 2}),
    "places of one token": ((2, 6, 16), (8, 4), (8, 4), (2, 1), {"num_heads": 2}),
}


def _drawn(shape: Shape) -> Operand:
    array = np.random.default_rng(0).random(shape, np.float32)
    return Operand(array, tuple(map(Partition.discrete, shape)))


def _rule_applies(node: onnx.NodeProto, given: dict[str, Operand], opset: int = 23) -> bool:
    """Return whether a rule applies, and assert that it does so just where ONNX Runtime runs the node."""
    whole = {name: operand.whole(0) for name, operand in given.items()}
    try:
        plain(node, whole, opset, _DOMAINS)
    except _REFUSED:
        runs = False
    else:
        runs = True
    try:
        applies = not lower(node, given, opset, domains=_DOMAINS).without_rule
    except _REFUSED:
        applies = False
    assert applies == runs
    return applies


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("case", TABLES)
def test_rotation(case: str, domain: str) -> None:
    x, cos, sin, places, attributes = TABLES[case]
    given = {"x": _drawn(x), "cos": _drawn(cos), "sin": _drawn(sin), "places": known(np.zeros(places), np.int64)}
    names = ["x", "places", "cos", "sin"] if domain else ["x", "cos", "sin", "places"]
    node = onnx.helper.make_node("RotaryEmbedding", names, ["y"], domain=domain, **attributes)
    assert _rule_applies(node, given) == case.startswith("fits")


GROUPS: dict[str, dict[str, Any]] = {
    "fits": {},
    "fewer places than tokens": {"rows": 5},
    "angles too wide": {"pairs": 9},
    "cache of other heads": {"past": (2, 2, 0, 16)},
    "cache of another width": {"past": (2, 1, 0, 32)},
    "length behind the end": {"last": 6},
}


@pytest.mark.parametrize("case", GROUPS)
def test_grouped_attention(case: str) -> None:
    sizes = {"rows": 8, "pairs": 8, "past": (2, 1, 0, 16), "last": 5, **GROUPS[case]}
    given = {name: _drawn((2, 6, 32 if name == "q" else 16)) for name in "qkv"}
    given |= {"past_key": _drawn(sizes["past"]), "past_value": _drawn(sizes["past"])}
    given |= {
        "last": Operand(np.full(2, sizes["last"], np.int32), (Partition.discrete(2),)),
        "total": known(6, np.int32),
    }
    given |= {name: _drawn((sizes["rows"], sizes["pairs"])) for name in ("cos", "sin")}
    node = onnx.helper.make_node(
        "GroupQueryAttention", list(given), ["y", "key", "value"], domain="com.microsoft", num_heads=2, kv_num_heads=1,
        do_rotary=1,
    )  # fmt: skip
    assert _rule_applies(node, given) == (case == "fits")


@pytest.mark.parametrize("lump", [True, False])
def test_one_end_for_both(lump: bool) -> None:
    graph = """(int64[N,9] ids, int64[N,9] position_ids) => (float y) {
        x = Gather(E, ids)  r = RotaryEmbedding <num_heads = 2> (x, T, T, position_ids)  y = MatMul(r, W) }"""
    proto = build(graph, 23, E=(20, 16), T=(8, 4), W=(16, 3))
    with pytest.raises(RunError, match="RotaryEmbedding"):
        score(proto, lump=lump, batch=4, providers="cpu", threads=1)
