"""Integers that are made for an input lie in the range of the operators that read them, wherever these are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

from epsinas_onnx import Status
from epsinas_onnx.graph.analysis.caches import Decoding
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.inputs.generate import make_input
from epsinas_onnx.inputs.minibatch import few_samples
from epsinas_onnx.inputs.operands import Demand, asked
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan

from ..builders import build
from .feeding import feeds_of, runs, scores

Array = npt.NDArray[Any]

# Inputs with one called `i`, nodes that make `e` of it, and stored tensors: numbers, or shapes of random floats.
BOXES = np.full((4, 4), (0, 0, 4, 4), np.float32)
READERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GatherND": (
        "int64[N,5,2] i",
        "e = GatherND(T, i)",
        {"T": (7, 3, 4)},
    ),
    "GatherND of samples": (
        "int64[N,5,1] i, float[N,6,4] x",
        "e = GatherND <batch_dims = 1> (x, i)",
        {},
    ),
    "ScatterElements": (
        "int64[N,2] i, float[N,9] x",
        "u = Slice(x, zero, two, one)  e = ScatterElements <axis = 1> (x, i, u)",
        {"zero": np.array([0]), "two": np.array([2]), "one": np.array([1])},
    ),
    "ScatterND": (
        "int64[N,1] i, float[N,4] x",
        "s = ScatterND(T, i, x)  b = ReduceSum(x, axes)  e = Add(s, b)",
        {"T": (8, 4), "axes": np.array([0])},
    ),
    "RotaryEmbedding": (
        "int64[N,6] i, float[N,6,8] x",
        "e = RotaryEmbedding <num_heads = 1> (x, T, T, i)",
        {"T": (8, 4)},
    ),
    "LSTM": (
        "int32[N] i, float[5,N,3] x",
        "e = LSTM <hidden_size = 2> (x, W, R, , i)",
        {"W": (1, 8, 3), "R": (1, 8, 2)},
    ),
    "GRU": (
        "int32[N] i, float[5,N,3] x",
        "e = GRU <hidden_size = 2> (x, W, R, , i)",
        {"W": (1, 6, 3), "R": (1, 6, 2)},
    ),
    "ReverseSequence": (
        "int64[N] i, float[N,5,3] x",
        "e = ReverseSequence <batch_axis = 0, time_axis = 1> (x, i)",
        {},
    ),
    "RoiAlign": (
        "int64[N] i, float[N,3,8,8] x",
        "e = RoiAlign(x, T, i)",
        {"T": BOXES},
    ),
    "TopK": (
        "int64[1] i, float[N,5] x",
        "e, j = TopK(x, i)",
        {},
    ),
    "CumSum": (
        "int64 i, float[N] x",
        "e = CumSum(x, i)",
        {},
    ),
    "Mod": (
        "int64[N,5] i",
        "m = Mod(hundred, i)  e = Gather(T, m)",
        {"T": (101, 4), "hundred": np.array(100)},
    ),
    "Div by itself": (
        "int64[N,5] i",
        "m = Div(hundred, i)  e = Gather(T, m)",
        {"T": (101, 4), "hundred": np.array(100)},
    ),
    "behind Cast, Reshape and Concat": (
        "int32[N,5,1] i",
        "c = Cast <to = 7> (i)  j = Concat <axis = 2> (c, c)  e = GatherND(T, j)",
        {"T": (7, 7, 4)},
    ),
    "behind an addition": (
        "int64[N,5] i",
        "j = Add(i, two)  e = Gather(T, j)",
        {"T": (11, 4), "two": np.array(2)},
    ),
    "behind a subtraction": (
        "int64[N,5] i",
        "j = Sub(i, two)  k = Unsqueeze(j, last)  e = GatherND(T, k)",
        {"T": (11, 4), "two": np.array(2), "last": np.array([-1])},
    ),
    "behind fields of one table": (
        "int64[N,3] i",
        "j = Add(i, fields)  e = Gather(T, j)",
        {"T": (30, 4), "fields": np.array([0, 10, 20])},
    ),
    "out of a branch": (
        "bool f, int64[N,5,1] i",
        (
            "j = If (f) < then_branch = t () => (int64[N,5,1] p) { p = Identity(i) }, else_branch = o () => "
            "(int64[N,5,1] q) { q = Identity(i) } > e = GatherND(T, j)"
        ),
        {"T": (7, 4)},
    ),
    "in a loop": (
        "int64[N,1] i, float[N,7] x",
        (
            "y0, j = Loop (three, , x, i) < body = b (int64 n, bool c, float[N,7] s, int64[N,1] k) => (bool "
            "d, float[N,7] t, int64[N,1] l) { d = Identity(c) g = GatherElements <axis = 1> (s, k) t = "
            "Add(s, g) l = Identity(k) } > e = Identity(y0)"
        ),
        {"three": np.array(3)},
    ),
}


def model_of(case: str) -> onnx.ModelProto:
    """Return the graph of a case, with a sum and a weight behind it."""
    inputs, nodes, tensors = READERS[case]
    graph = f"({inputs}) => (float y) {{ {nodes}  t = Tanh(e)  y = Mul(t, scale) }}"
    return build(graph, 23 if "Rotary" in nodes else 21, **tensors, scale=np.float32(2))


@pytest.mark.parametrize("case", READERS)
def test_onnx_runtime_takes_the_integers(case: str) -> None:
    proto = model_of(case)
    runs(proto, feeds_of(proto))


@pytest.mark.parametrize("case", READERS)
def test_lumped_and_plain_end_alike(case: str) -> None:
    lumped, plain = scores(model_of(case))
    assert lumped.status is plain.status
    assert lumped.status is not Status.ERROR


def test_table_behind_the_range_says_nothing_of_what_fits_already() -> None:
    spec = InputSpec("ids", ir.DataType.INT64, ("N", 50), (8, 50), 0)
    drawn = make_input(spec, "auto", 5)
    np.testing.assert_array_equal(make_input(spec, "auto", 5, Demand(low=0, high=100)), drawn)
    folded = make_input(spec, "auto", 5, Demand(low=10, high=60))
    fits = (drawn >= 10) & (drawn < 60)
    np.testing.assert_array_equal(folded[fits], drawn[fits])
    assert folded.min() >= 10
    assert folded.max() < 60


def test_samples_that_are_looked_at_alone_are_counted_anew() -> None:
    feeds = {"x": np.arange(64.0)[:, None], "i": np.arange(64)}
    demands = {"x": Demand(), "i": Demand(kind="samples", high=4)}
    few = few_samples(feeds, {"x": 0, "i": 0}, 4, demands)
    assert few["x"].reshape(-1).tolist() == [0, 21, 42, 63]
    assert sorted(few["i"].tolist()) == [0, 1, 2, 3]


def test_places_of_samples_are_known_for_few_of_them_too() -> None:
    decided = plan(load_model(model_of("RoiAlign")), 64, GraphOptions())
    assert decided.demands["i"] == Demand(kind="samples", high=64)
    assert decided.with_batch(4).demands["i"].high == 4


# What no CPU kernel of ONNX Runtime reads: the rule alone.

SIZES = {
    "x": (4, 6, 32),
    "flat": (24, 32),
    "ids": (5,),
    "table": (9, 4),
    "blocks": (12, 16, 2, 8),
    "n": (4,),
    "m": (4, 6),
}
ASKED: dict[str, tuple[str, list[str], int, Demand | None]] = {
    "cumulative": ("PagedAttention", ["flat", "", "", "blocks", "blocks", "ids"], 5, Demand(kind="offsets", value=6)),
    "blocks": ("PagedAttention", ["flat", "", "", "blocks", "blocks", "ids", "n", "m"], 7, Demand(low=0, high=12)),
    "block rows": ("GatherBlockQuantized", ["table", "m"], 1, Demand(low=0, high=9)),
    "one length a sample": ("Attention", ["x", "", "", "n"], 3, Demand(kind="length", value=9)),
    "one mask a sample": ("Attention", ["x", "", "", "m"], 3, Demand(kind="ones")),
    "seen": ("MultiHeadAttention", ["x", "", "", "", "", "", "", "", "n"], 8, Demand(kind="offset", value=3)),
    "place of the last": ("GroupQueryAttention", ["x", "", "", "", "", "n"], 5, Demand(kind="length", value=8)),
    "regions": ("CropAndResize", ["x", "table", "n"], 2, Demand(kind="samples", high=4)),
    "unknown": ("GroupNorm", ["x", "n"], 1, None),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_what_contributed_operators_ask(case: str) -> None:
    op_type, inputs, slot, expected = ASKED[case]
    values = [
        ir.Value(name=name, shape=ir.Shape(SIZES[name]), type=ir.TensorType(ir.DataType.INT64)) if name else None
        for name in inputs
    ]
    node = ir.Node("com.microsoft", op_type, values)
    assert asked(node, slot, Decoding(seen=3, new=6)) == expected


def test_every_range_is_of_an_operator_that_there_is() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    from epsinas_onnx.inputs.operands import _ASKS

    contributed = {schema.name for schema in runtime.get_all_operator_schema() if schema.domain == "com.microsoft"}
    for domain, op_type in _ASKS:
        assert op_type in contributed if domain else onnx.defs.has(op_type), op_type
