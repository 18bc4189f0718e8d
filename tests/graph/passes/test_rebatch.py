"""Models exported with batch 1: re-batched where that holds, else run sample by sample."""

from typing import Any

import numpy as np
import onnx
import pytest

from epsinas_onnx import Score, Status, score
from epsinas_onnx.graph.passes.rebatch import batch_axis_after_reshape
from tests.graph.models import Array, build, rewritten, run_rewritten

# Models with the batch written as {n}: free in one export and 1 in the other. {m} is the batch in a Reshape target.
REBATCHED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "convolutions with a flattening Reshape": (
        """(float[{n},3,8,8] x) => (float[{n},2] y) {{
            a = Conv(x, W, B)  r = Tanh(a)  s = Reshape(r, shape)  y = Gemm(s, D, E)
        }}""",
        {"W": (4, 3, 3, 3), "B": (4,), "D": (144, 2), "E": (2,)},
        {"shape": (np.array([0, 144]), np.array([1, 144]))},
    ),
    "a Reshape with a free axis behind the batch": (
        """(float[{n},3,8,8] x) => (float[{n},2] y) {{
            a = Conv(x, W)  r = Sigmoid(a)  s = Reshape(r, shape)  y = Gemm(s, D)
        }}""",
        {"W": (4, 3, 3, 3), "D": (144, 2)},
        {"shape": (np.array([0, -1]), np.array([1, -1]))},
    ),
    "samples merged with another axis": (
        """(float[{n},5,6] x) => (float[{n},5,2] y) {{
            m = Reshape(x, flat)  h = MatMul(m, W)  t = Tanh(h)  y = Reshape(t, apart)
        }}""",
        {"W": (6, 2)},
        {"flat": (np.array([-1, 6]), np.array([5, 6])), "apart": (np.array([-1, 5, 2]), np.array([1, 5, 2]))},
    ),
    "batch normalisation": (
        """(float[{n},3,8,8] x) => (float[{n},1] y) {{
            a = Conv(x, W)  b = BatchNormalization(a, G, S, M, V)  r = Relu(b)
            c = Conv(r, U)  d = Add(c, k)  t = Tanh(d)
            p = GlobalAveragePool(t)  s = Reshape(p, shape)  y = MatMul(s, D)
        }}""",
        {
            "W": (4, 3, 3, 3),
            "U": (2, 4, 3, 3),
            "D": (2, 1),
            "k": np.ones((), np.float32),
            **dict.fromkeys("GSM", (4,)),
            "V": np.ones(4, np.float32),
        },
        {"shape": (np.array([0, 2]), np.array([1, 2]))},
    ),
}


def exported(case: str, free: bool) -> onnx.ModelProto:
    graph, tensors, targets = REBATCHED[case]
    chosen = {name: pair[0 if free else 1] for name, pair in targets.items()}
    return build(graph.format(n="N" if free else "1"), **tensors, **chosen)


def scored(proto: onnx.ModelProto, **options: Any) -> Score:
    return score(proto, **{"weights": (0.01, 0.5), "batch": 6, "providers": "cpu", "threads": 1, **options})


def same(left: Score, right: Score) -> None:
    assert left.status == right.status == Status.OK
    assert left.score is not None
    assert left.score > 1e-3
    assert left.score == pytest.approx(right.score, rel=1e-5)


@pytest.mark.parametrize("case", REBATCHED)
def test_model_exported_with_batch_1_scores_like_the_one_with_a_free_batch(case: str) -> None:
    noise = np.random.default_rng(0).standard_normal((6, *_rest(case))).astype(np.float32)
    fixed = scored(exported(case, free=False), inputs=noise)
    same(fixed, scored(exported(case, free=True), inputs=noise))
    assert any("re-batched to 6" in warning for warning in fixed.warnings)


def _rest(case: str) -> tuple[int, ...]:
    dims = exported(case, free=True).graph.input[0].type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims)[1:]


@pytest.mark.parametrize("case", REBATCHED)
def test_model_with_a_free_batch_carries_no_warning_about_its_batch(case: str) -> None:
    assert not [warning for warning in scored(exported(case, free=True)).warnings if "batch" in warning]


@pytest.mark.parametrize("case", ["convolutions with a flattening Reshape", "samples merged with another axis"])
def test_loosened_graph_gives_every_sample_what_the_original_gives_it(case: str) -> None:
    x = np.random.default_rng(1).standard_normal((5, *_rest(case))).astype(np.float32)
    proto = exported(case, free=False)
    (together,) = run_rewritten(rewritten(proto, 5, loosen=True), 0.3, {"x": x})
    alone = rewritten(proto, 1)
    rows = [run_rewritten(alone, 0.3, {"x": x[i : i + 1]})[0] for i in range(5)]
    np.testing.assert_allclose(together, np.concatenate(rows), rtol=1e-5)


RECURRENT = """(float[{n},5,3] x) => (float[1,{n},4] y) {{
    s = Transpose <perm = [1, 0, 2]> (x)  all, y = {kind} <hidden_size = 4> (s, W, R, B, "", {states})
}}"""


def recurrent(kind: str, gates: int) -> onnx.ModelProto:
    states = {"H0": np.full((1, 1, 4), 0.2, np.float32)}
    if kind == "LSTM":
        states["C0"] = np.full((1, 1, 4), -0.3, np.float32)
    graph = RECURRENT.format(n=1, kind=kind, states=", ".join(states))
    return build(graph, W=(1, 4 * gates, 3), R=(1, 4 * gates, 4), B=(1, 8 * gates), **states)


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_initial_state_of_one_sample_is_expanded_to_all(kind: str, gates: int) -> None:
    x = np.random.default_rng(1).standard_normal((5, 5, 3)).astype(np.float32)
    proto = recurrent(kind, gates)
    (together,) = run_rewritten(rewritten(proto, 5, loosen=True), 0.3, {"x": x})
    alone = rewritten(proto, 1)
    rows = [run_rewritten(alone, 0.3, {"x": x[i : i + 1]})[0] for i in range(5)]
    assert together.shape == (1, 5, 4)
    np.testing.assert_allclose(together, np.concatenate(rows, axis=1), rtol=1e-5)


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_model_with_stored_initial_states_is_rebatched(kind: str, gates: int) -> None:
    result = scored(recurrent(kind, gates))
    assert result.status is Status.OK
    assert any("re-batched to 6" in warning for warning in result.warnings)


def test_initial_states_that_are_inputs_get_one_row_a_sample() -> None:
    def model(n: str) -> onnx.ModelProto:
        return build(
            f"""(float[{n},5,3] x, float[1,{n},4] h, float[1,{n},4] c) => (float[1,{n},4] y) {{
                s = Transpose <perm = [1, 0, 2]> (x)  all, y = LSTM <hidden_size = 4> (s, W, R, B, "", h, c)
            }}""",
            W=(1, 16, 3),
            R=(1, 16, 4),
            B=(1, 32),
        )

    same(scored(model("1")), scored(model("N")))


def test_stored_token_is_joined_to_every_sample() -> None:
    def model(n: str, token: Array) -> onnx.ModelProto:
        return build(
            f"""(float[{n},5,4] x) => (float[{n},6,2] y) {{
                j = Concat <axis = 1> (token, x)  h = MatMul(j, W)  y = Tanh(h)
            }}""",
            W=(4, 2),
            token=token,
        )

    one = np.full((1, 1, 4), 0.5, np.float32)
    x = np.random.default_rng(1).standard_normal((6, 5, 4)).astype(np.float32)
    fixed = scored(model("1", one), inputs=x)
    same(fixed, scored(model("N", np.repeat(one, 6, axis=0)), inputs=x))
    assert any("re-batched to 6" in warning for warning in fixed.warnings)


# The batch axis is squeezed away: what follows means something else when there are more samples.
SQUEEZED = """(float[1,5,4] x) => (float[1,2] y) {
    q = Squeeze(x, first)  h = MatMul(q, W)  t = Tanh(h)  m = ReduceMean <keepdims = 1> (t, first)  y = Relu(m)
}"""
SQUEEZED_TENSORS: dict[str, Any] = {"first": np.array([0]), "W": (4, 2)}


def test_model_that_cannot_be_rebatched_is_run_sample_by_sample_and_says_so() -> None:
    result = scored(build(SQUEEZED, **SQUEEZED_TENSORS))
    assert any("sample by sample" in warning for warning in result.warnings)
    assert not any("re-batched to" in warning for warning in result.warnings)
    assert result.batch == 6


def test_model_run_sample_by_sample_scores_like_its_free_form() -> None:
    x = np.random.default_rng(2).random((6, 5, 4)).astype(np.float32)
    free = build(
        """(float[N,5,4] x) => (float[N,2] y) {
            h = MatMul(x, W)  t = Tanh(h)  m = ReduceMean <keepdims = 0> (t, axis)  y = Relu(m)
        }""",
        axis=np.array([1]),
        W=(4, 2),
    )
    same(scored(build(SQUEEZED, **SQUEEZED_TENSORS), inputs=x), scored(free, inputs=x))


def test_model_that_mixes_samples_when_rebatched_is_run_sample_by_sample() -> None:
    # Softmax over axis 0 of a single sample is 1 everywhere; over several it would compare the samples.
    proto = build(
        """(float[1,4] x) => (float[1,4] y) {
            s = Softmax <axis = 0> (x)  a = Add(s, x)  h = MatMul(a, W)  y = Tanh(h)
        }""",
        W=(4, 4),
    )
    x = np.random.default_rng(2).random((6, 4)).astype(np.float32)
    result = scored(proto, inputs=x)
    assert any("sample by sample" in warning for warning in result.warnings)
    free = build("(float[N,4] x) => (float[N,4] y) { a = Add(one, x)  h = MatMul(a, W)  y = Tanh(h) }",
                 W=(4, 4), one=np.ones((), np.float32))  # fmt: skip
    same(result, scored(free, inputs=x))


def test_rebatching_is_checked_on_outputs_however_small_they_are() -> None:
    layers = "".join(f"h{i + 1} = MatMul(h{i}, W)  " for i in range(12))
    tail = f"{layers} z = Tanh(h12)  y = MatMul(z, W)"
    fixed = build(
        f"(float[1,4] x) => (float[1,4] y) {{ s = Softmax <axis = 0> (x)  h0 = Add(s, x)  {tail} }}", W=(4, 4)
    )
    free = build(
        f"(float[N,4] x) => (float[N,4] y) {{ h0 = Add(one, x)  {tail} }}", W=(4, 4), one=np.ones((), np.float32)
    )
    x = np.random.default_rng(2).random((6, 4)).astype(np.float32)
    result = scored(fixed, inputs=x, weights=(0.1, 0.24))
    assert any("sample by sample" in warning for warning in result.warnings)
    same(result, scored(free, inputs=x, weights=(0.1, 0.24)))


@pytest.mark.parametrize(
    ("shape", "axis", "target", "lands"),
    [
        ((1, 9, 4, 4), 0, (1, 144), 0),
        ((1, 9, 4, 4), 0, (9, 4, 4), 0),
        ((7, 1, 16), 1, (7, 16), 0),  # a flattened sequence
        ((7, 1, 16), 1, (7, 4, 4), 1),  # heads split off the features, merged with the batch
        ((7, 1, 4, 4), 1, (7, 16), 0),  # heads merged again, sequence flattened
        ((7, 16), 0, (7, 1, 16), 0),
        ((4, 7, 4), 0, (1, 4, 7, 4), 0),
        ((7, 1, 1, 32), 2, (7, 1, 32), 1),  # the output of an RNN with one direction
    ],
)
def test_the_batch_is_followed_through_a_reshape(
    shape: tuple[int, ...], axis: int, target: tuple[int, ...], lands: int
) -> None:
    assert batch_axis_after_reshape(shape, axis, target) == lands


STACKED = """{ xt = Transpose <perm = [1, 0, 2]> (x)
    Y, H, C = LSTM <hidden_size = 4> (xt, W, R, B, , S, S)
    Yt = Transpose <perm = [0, 2, 1, 3]> (Y)  F = Reshape(Yt, seq)
    Z, K, D = LSTM <hidden_size = 4> (F, V, R, B, , S, S)
    Zs = Squeeze(Z, one)  Zt = Transpose <perm = [1, 0, 2]> (Zs)
    last = Gather <axis = 1> (Zt, end)  y = Gemm(last, O) }"""


def test_a_stacked_lstm_with_a_fixed_batch_scores_as_with_a_free_one() -> None:
    tensors: dict[str, Any] = {
        "W": (1, 16, 3), "R": (1, 16, 4), "B": (1, 32), "V": (1, 16, 4), "O": (4, 2),
        "one": np.array([1]), "end": np.array(-1),
    }  # fmt: skip
    state = np.zeros((1, 1, 4), np.float32)
    fixed = build(f"(float[1,5,3] x) => (float[1,2] y) {STACKED}", **tensors, S=state, seq=np.array([5, 1, 4]))
    stateless = STACKED.replace(", , S, S", "")
    free = build(f"(float[N,5,3] x) => (float[N,2] y) {stateless}", **tensors, seq=np.array([5, -1, 4]))
    x = np.random.default_rng(2).random((6, 5, 3)).astype(np.float32)
    result = scored(fixed, inputs=x, weights=(0.1, 0.5))
    assert any("re-batched" in warning for warning in result.warnings)
    same(result, scored(free, inputs=x, weights=(0.1, 0.5)))
