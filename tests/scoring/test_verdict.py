"""Which status a score carries and which node its reason names (docs/metric.md)."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from epsinas_onnx import Score, Status, score
from epsinas_onnx.scoring.diagnosis import SignalLoss
from epsinas_onnx.scoring.metric import normalised_dispersion
from epsinas_onnx.scoring.verdict import Evidence, Verdict, judge
from tests.builders import build

Array = npt.NDArray[Any]


def scored(proto: onnx.ModelProto, **options: Any) -> Score:
    """Score a model in float32, where signals end."""
    return score(proto, **{"batch": 16, "providers": "cpu", "threads": 1, "arithmetic": "float32", **options})


def reason(result: Score) -> str:
    """Return the reason of a result without a number."""
    assert result.score is None
    assert result.reason is not None
    return result.reason


def images(cells: str, last: str, **tensors: Any) -> onnx.ModelProto:
    """Return a network from 3x12x12 images over `cells` (h0 to `last`, 4 channels) to one class."""
    return build(
        f"""(float[N,3,12,12] x) => (float[N,1] y) {{
            h0 = Conv <pads = [1, 1, 1, 1]> (x, S)  {cells}
            p = GlobalAveragePool({last})  f = Flatten(p)  y = Gemm(f, D, E)
        }}""",
        S=(4, 3, 3, 3),
        D=(4, 1),
        E=(1,),
        **tensors,
    )


def chain(layers: int, norm: bool = True, skip: bool = False) -> onnx.ModelProto:
    """Return layers of Conv, BatchNormalization and Relu; with `skip` each adds what came in."""
    cells, tensors = "", {"K": (4, 4, 3, 3), **(dict.fromkeys("GBMV", (4,)) if norm else {})}
    for i in range(layers):
        cells += f"c{i} = Conv <pads = [1, 1, 1, 1]> (h{i}, K)  "
        cells += f"n{i} = BatchNormalization(c{i}, G, B, M, V)  " if norm else f"n{i} = Identity(c{i})  "
        cells += f"r{i} = Relu(n{i})  "
        cells += f"h{i + 1} = Add(r{i}, h{i})  " if skip else f"h{i + 1} = Identity(r{i})  "
    return images(cells, f"h{layers}", **tensors)


@pytest.mark.parametrize("inputs", ["grey", "normal"])
@pytest.mark.parametrize("layers", [1, 3, 8])
def test_chain_with_skip_connections_is_ok(layers: int, inputs: str) -> None:
    result = scored(chain(layers, skip=True), inputs=inputs)
    assert result.status is Status.OK
    assert result.score == result.raw_score
    assert result.score is not None
    assert result.score > 1e-3
    assert result.reason is None


@pytest.mark.parametrize("inputs", ["grey", "normal"])
@pytest.mark.parametrize("layers", [1, 2, 5, 10])
def test_plain_chain_whose_exact_score_is_0_is_noise(layers: int, inputs: str) -> None:
    # Behind a normalisation the constant is a common factor: both outputs are multiples of each other.
    result = scored(chain(layers), inputs=inputs, weights=(0.5, 1.0))
    assert result.status is Status.NOISE
    assert "rounding" in reason(result)
    assert result.raw_score is not None
    assert result.raw_score < 1e-4


def test_deep_chain_without_normalisation_underflows_in_a_named_layer() -> None:
    result = scored(chain(10, norm=False), inputs="normal")
    assert result.status is Status.UNDERFLOW
    assert re.search(r"with weights 1e-07 .* node 'Conv\(c\d\)' \(Conv\)", reason(result))


LINEAR = "(float[N,4] x) => (float[N,4] y) { h1 = MatMul(x, W)  h2 = MatMul(h1, W)  h3 = MatMul(h2, W)  y = Neg(h3) }"


def test_underflow_names_the_first_node_whose_result_is_0() -> None:
    result = scored(build(LINEAR, W=(4, 4)), weights=(1e-30, 1.0))
    assert result.status is Status.UNDERFLOW
    assert "underflows to 0 in node 'MatMul(h2)' (MatMul)" in reason(result)
    assert "1e-30" in reason(result)


@pytest.mark.parametrize("last", ["Add(a2, b2)", "Add(b2, a2)"])
def test_of_two_branches_that_lose_the_signal_the_first_is_named(last: str) -> None:
    proto = build(
        f"""(float[N,4] x) => (float[N,4] y) {{
            a1 = MatMul(x, W)  b1 = MatMul(x, W)  a2 = MatMul(a1, W)  b2 = MatMul(b1, W)  y = {last}
        }}""",
        W=(4, 4),
    )
    assert "node 'MatMul(a2)'" in reason(scored(proto, weights=(1e-30, 1.0)))


def test_output_that_varies_below_the_normal_range_alone_is_underflow() -> None:
    result = scored(build(LINEAR, W=(4, 4)), weights=(1e-14, 1.0))
    assert result.status is Status.UNDERFLOW
    assert "1e-14" in reason(result)


def test_overflow_names_the_first_node_with_an_infinite_result() -> None:
    result = scored(build(LINEAR, W=(4, 4)), weights=(1.0, 1e30))
    assert result.status is Status.OVERFLOW
    assert "node 'MatMul(h2)' (MatMul)" in reason(result)
    assert "1e+30" in reason(result)


def test_not_a_number_in_the_output_is_overflow() -> None:
    proto = build("(float[N,4] x) => (float[N,4] y) { h = MatMul(x, W)  l = Log(h)  y = Neg(l) }", W=(4, 4))
    result = scored(proto, inputs="normal")
    assert result.status is Status.OVERFLOW
    assert "node 'Log(l)' (Log)" in reason(result)


def test_signal_that_is_lost_beside_a_large_constant_is_underflow_in_that_node() -> None:
    proto = build(
        "(float[N,4] x) => (float[N,4] y) { h = MatMul(x, W)  s = Add(h, K)  y = Sqrt(s) }",
        W=(4, 4),
        K=np.full((), 100, np.float32),
    )
    result = scored(proto, inputs="uniform", weights=(1e-9, 1.0))
    assert result.status is Status.UNDERFLOW
    assert "node 'Add(s)' (Add)" in reason(result)


def test_mul_by_0_on_the_only_path_is_constant_and_named() -> None:
    proto = images("z = Mul(h0, zero)  c = Conv(z, K)  r = Relu(c)", "r", zero=np.zeros((), np.float32), K=(4, 4, 1, 1))
    result = scored(proto)
    assert result.status is Status.CONSTANT
    assert "multiplication by 0" in reason(result)
    assert "'Mul(z)'" in reason(result)
    assert result.provider is None  # nothing had to be run


def test_mul_by_0_beside_another_path_is_ok() -> None:
    proto = images(
        "z = Mul(h0, zero)  c = Conv(h0, K)  a = Add(z, c)  t = Tanh(a)",
        "t",
        zero=np.zeros((), np.float32),
        K=(4, 4, 1, 1),
    )
    assert scored(proto, weights=(0.01, 0.1)).status is Status.OK


def test_output_that_only_knows_the_shape_of_the_input_is_constant() -> None:
    proto = build(
        """(float[N,4] x) => (float[N,4] y) {
            s = Shape(x)  o = ConstantOfShape(s)  h = MatMul(o, W)  y = Relu(h)
        }""",
        W=(4, 4),
    )
    result = scored(proto)
    assert result.status is Status.CONSTANT
    assert "no path" in reason(result)


def test_dead_relu_is_constant_for_every_constant_and_named() -> None:
    proto = build(
        "(float[N,4] x) => (float[N,4] y) { n = Abs(x)  m = Neg(n)  r = Relu(m)  y = MatMul(r, W) }", W=(4, 4)
    )
    result = scored(proto)
    assert result.status is Status.CONSTANT
    assert "node 'Relu(r)' (Relu)" in reason(result)


NORMS = {
    "LayerNormalization": "n = LayerNormalization(h, G, B)",
    "decomposed": """
        m = ReduceMean(h, last)  d = Sub(h, m)  p = Mul(d, d)  v = ReduceMean(p, last)  e = Add(v, eps)  s = Sqrt(e)
        q = Div(d, s)  g = Mul(q, G)  n = Add(g, B)""",
    "pooled": """
        m = GlobalAveragePool(h)  d = Sub(h, m)  p = Mul(d, d)  v = GlobalAveragePool(p)  e = Add(v, eps)  s = Sqrt(e)
        r = Reciprocal(s)  f = Mul(r, G)  k = Mul(m, f)  b = Sub(B, k)  g = Mul(h, f)  n = Add(g, b)""",
    "summed": """
        t = ReduceSum(h, last)  m = Mul(t, share)  d = Sub(h, m)  p = Mul(d, d)  v = ReduceMean(p, last)
        e = Add(v, eps)  s = Sqrt(e)  q = Div(d, s)  g = Mul(q, G)  n = Add(g, B)""",
}


def over_equal_features(norm: str, width: int) -> onnx.ModelProto:
    """Return a MatMul, whose features are all equal under constant weights, with a layer norm behind it."""
    return build(
        f"""(float[N,5,4] x) => (float[N,5,2] y) {{
            h = MatMul(x, W)  {NORMS[norm]}  a = MatMul(n, U)  y = Softplus(a)
        }}""",
        W=(4, width),
        U=(width, 2),
        G=(width,),
        B=(width,),
        last=np.array([-1]),
        eps=np.full((), 1e-5, np.float32),
        share=np.full((), 1 / width, np.float32),
    )


@pytest.mark.parametrize("weights", [(1e-7, 1.0), (0.1, 1.0), (0.3, 0.7)])
@pytest.mark.parametrize("width", [4, 6, 768, 2048])
@pytest.mark.parametrize("norm", NORMS)
def test_layer_norm_over_equal_features_is_constant_or_noise(
    norm: str, width: int, weights: tuple[float, float]
) -> None:
    for seed in range(3):
        result = scored(over_equal_features(norm, width), inputs="normal", weights=weights, seed=seed)
        assert result.status in (Status.CONSTANT, Status.NOISE)


@pytest.mark.parametrize("norm", NORMS)
def test_sum_over_normalised_features_is_rounding_alone(norm: str) -> None:
    """Features that differ have the mean 0 behind a layer norm, however it is written, and one constant sums them."""
    proto = build(
        f"(float[N,5,16] h) => (float[N,5,2] y) {{ {NORMS[norm]}  y = MatMul(n, U) }}",
        U=(16, 2),
        G=(16,),
        B=(16,),
        last=np.array([-1]),
        eps=np.full((), 1e-5, np.float32),
        share=np.full((), 1 / 16, np.float32),
    )
    for seed in range(3):
        assert scored(proto, inputs="normal", weights=(0.1, 1.0), seed=seed).status is Status.NOISE


@pytest.mark.parametrize("width", [4, 6])
@pytest.mark.parametrize("norm", ["LayerNormalization", "decomposed"])
def test_layer_norm_over_equal_features_is_named(norm: str, width: int) -> None:
    result = scored(over_equal_features(norm, width), inputs="normal", weights=(0.1, 1.0))
    named = r"LayerNormalization\(n\)" if norm == "LayerNormalization" else r"(Sub\(d\)|Mul\(p\)|Div\(q\))"
    assert re.search(rf"node '{named}'", reason(result))


def test_layer_norm_over_features_that_differ_is_ok() -> None:
    proto = build(
        "(float[N,5,4] x) => (float[N,5,2] y) { n = LayerNormalization(x, G, B)  a = MatMul(n, U)  y = Softplus(a) }",
        U=(4, 2),
        G=np.linspace(1, 2, 4).astype(np.float32),
        B=(4,),
    )
    # The sum over all normalised features is 0 where the scale is one constant: the scale has to differ by feature.
    assert scored(proto, inputs="normal", weights=(0.1, 1.0), roles={"G": "constant"}).status is Status.OK


def test_softmax_at_the_end_is_left_out_and_says_so() -> None:
    proto = build("(float[N,4] x) => (float[N,3] y) { t = Tanh(x)  h = MatMul(t, W)  s = Softplus(h)  y = Softmax(s) }",
                  W=(4, 3))  # fmt: skip
    result = scored(proto, inputs="normal", weights=(0.1, 1.0))
    assert result.status is Status.OK
    assert result.output == ("s",)
    assert any("'Softmax(y)'" in warning for warning in result.warnings)


def test_softmax_that_was_asked_for_is_constant_with_advice() -> None:
    proto = build("(float[N,4] x) => (float[N,3] y) { h = MatMul(x, W)  s = Softplus(h)  y = Softmax(s) }", W=(4, 3))
    result = scored(proto, inputs="normal", weights=(0.1, 1.0), outputs="y")
    assert result.status is Status.CONSTANT
    assert "node 'Softmax(y)'" in reason(result)
    assert "--output-name 's'" in reason(result)


def test_token_model_is_judged_by_the_last_bits_of_the_constant() -> None:
    proto = build(
        "(int64[N,6] ids) => (float[N,6,2] y) { e = Gather(E, ids)  h = MatMul(e, W)  t = Tanh(h)  y = MatMul(t, U) }",
        E=(9, 4),
        W=(4, 3),
        U=(3, 2),
    )
    assert scored(proto, weights=(0.1, 1.0)).status is Status.OK
    linear = build("(int64[N,6] ids) => (float[N,6,2] y) { e = Gather(E, ids)  y = MatMul(e, W) }", E=(9, 4), W=(4, 2))
    assert scored(linear, weights=(0.1, 1.0)).status is Status.NOISE


# The decisions by themselves, with a runner that answers from memory.


class FakeRunner:
    """Answers what a test tells it, and counts what it is asked."""

    def __init__(
        self,
        again: Callable[[float], Array] | None = None,
        probe: tuple[Array, Array] | None = None,
        loss: SignalLoss | None = None,
    ) -> None:
        self._again, self._probe, self._loss = again, probe, loss
        self.asked: list[str] = []
        self.traced: list[float] = []

    def rerun_perturbed(self, constant: float, change: float | None = None) -> Array:
        self.asked.append("again")
        assert self._again is not None
        return self._again(constant)

    def run_probe_constant(self, constant: float) -> tuple[Array, Array]:
        self.asked.append("probe")
        assert self._probe is not None
        return self._probe

    def find_loss(self, constant: float) -> SignalLoss | None:
        self.asked.append("loss")
        self.traced.append(constant)
        return self._loss

    def find_explosion(self, constant: float) -> SignalLoss | None:
        self.asked.append("explosion")
        return self._loss

    def degree(self) -> int | None:
        return None


A = np.linspace(1, 2, 50).astype(np.float32)
SQUARE = (A * A).astype(np.float32)
STILL = np.ones(50, np.float32)
LOSS = SignalLoss(ir.node("Softmax", [ir.val("before")], name="layer7"), 3.0, 0.0)


def verdict_on(first: Array, second: Array, runner: FakeRunner, **changes: Any) -> Verdict:
    evidence = {
        "channel_stats": ([], []),
        "depth": 10,
        "longest_sum": 1,
        "sample_norms": [],
        "constant_reason": None,
        **changes,
    }
    return judge(Evidence((1e-7, 1.0), (first, second), **evidence), runner)


def test_sound_outputs_are_ok_without_a_single_rerun() -> None:
    runner = FakeRunner()
    verdict = verdict_on(A, SQUARE, runner)
    assert verdict == Verdict(Status.OK, None, normalised_dispersion(A, SQUARE))
    assert runner.asked == []


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_norms": ["norm"]},
        {"channel_stats": ([], [(np.array([1.0]), np.array([1e-13]))])},
    ],
    ids=["normalisation within samples", "variance at the size of rounding"],
)
def test_reason_to_doubt_costs_a_rerun_of_both_constants(changes: dict[str, Any]) -> None:
    runner = FakeRunner(again=lambda c: A if c < 1 else SQUARE)
    assert verdict_on(A, SQUARE, runner, **changes).status is Status.OK
    assert runner.asked == ["again"] * 4  # a change that dust cannot survive, and the last bits


def test_deviations_that_are_sound_or_exactly_0_are_no_reason_to_doubt() -> None:
    runner = FakeRunner()
    channel_stats = ([(np.array([1.0, 5.0]), np.array([1.0, 0.0]))], [])
    assert verdict_on(A, SQUARE, runner, channel_stats=channel_stats).status is Status.OK
    assert runner.asked == []


def test_little_relative_variation_is_measured_and_kept_where_it_is_real() -> None:
    first, second = (5000 + A).astype(np.float32), (5000 + SQUARE).astype(np.float32)
    runner = FakeRunner(again=lambda c: first if c < 1 else second)
    assert verdict_on(first, second, runner).status is Status.OK
    assert "again" in runner.asked


def test_output_that_changes_with_the_last_bits_as_much_as_it_varies_is_noise() -> None:
    shuffled = np.random.default_rng(0).permutation(A)
    runner = FakeRunner(again=lambda c: shuffled, loss=LOSS)
    verdict = verdict_on(A, SQUARE, runner, sample_norms=["norm"])
    assert verdict.status is Status.NOISE
    assert verdict.raw_score == normalised_dispersion(A, SQUARE)
    assert "'layer7' (Softmax)" in str(verdict.reason)


def test_noise_costs_no_more_than_it_takes_to_tell() -> None:
    shuffled = np.random.default_rng(0).permutation(A)
    for status_only, asked in ((False, ["again"] * 2 + ["loss"]), (True, ["again", "loss"])):
        runner = FakeRunner(again=lambda c: shuffled, loss=LOSS)
        verdict = verdict_on(A, SQUARE, runner, sample_norms=["norm"], status_only=status_only)
        assert verdict.status is Status.NOISE
        assert runner.asked == asked


def test_outputs_that_differ_by_no_more_than_the_last_bits_do_are_noise() -> None:
    nearly = (A + np.float32(1e-5) * np.sin(np.arange(50))).astype(np.float32)
    other = (A + np.float32(1e-5) * np.cos(np.arange(50))).astype(np.float32)
    verdict = verdict_on(A, nearly, FakeRunner(again=lambda c: other))
    assert verdict.status is Status.NOISE
    reason = str(verdict.reason)
    gives, counts_above = (float(found) for found in re.findall(r"(?:gives|above) ([\d.e-]+)", reason))
    assert gives < counts_above
    assert "4 times what rounding alone can give" in reason


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_one_entry_that_is_not_finite_is_overflow(bad: float) -> None:
    broken = SQUARE.copy()
    broken[3] = bad
    verdict = verdict_on(A, broken, FakeRunner(loss=LOSS))
    assert verdict.status is Status.OVERFLOW
    assert re.search("weights 1 .*'layer7'", str(verdict.reason))


def test_output_that_stands_still_where_the_other_moves_is_underflow() -> None:
    verdict = verdict_on(STILL, A, FakeRunner(again=lambda c: A, loss=LOSS))
    assert verdict.status is Status.UNDERFLOW
    assert verdict.raw_score is None
    assert re.search("weights 1e-07 .*'layer7'", str(verdict.reason))


def test_two_outputs_that_stand_still_are_underflow_where_another_constant_moves_them() -> None:
    verdict = verdict_on(STILL, STILL, FakeRunner(probe=(A, A), loss=LOSS))
    assert verdict.status is Status.UNDERFLOW


def test_two_outputs_that_stand_still_for_every_constant_are_constant() -> None:
    runner = FakeRunner(probe=(STILL, STILL), loss=LOSS)
    verdict = verdict_on(STILL, STILL, runner)
    assert verdict.status is Status.CONSTANT
    assert re.search("'layer7'.*--output-name 'before'", str(verdict.reason))
    assert runner.traced == [1.0]  # the larger constant carries a signal further, to where it really ends


def test_output_that_another_constant_moves_by_rounding_alone_is_noise() -> None:
    shuffled = np.random.default_rng(0).permutation(A)
    verdict = verdict_on(STILL, STILL, FakeRunner(probe=(A, shuffled), loss=LOSS))
    assert verdict.status is Status.NOISE


def test_graph_without_a_path_is_constant_whatever_its_outputs_are() -> None:
    verdict = verdict_on(A, SQUARE, FakeRunner(), constant_reason="no path leads there")
    assert verdict.status is Status.CONSTANT
    assert "no path leads there" in str(verdict.reason)


def one_survivor() -> tuple[Array, Array]:
    """Return outputs whose entries are 0, the minimum, in one of them everywhere but at the maximum of both."""
    first, second = np.zeros(16, np.float32), np.zeros(16, np.float32)
    first[[3, 9]], second[9] = (8e-36, 2e-35), 4e5
    return first, second


def test_a_single_entry_to_compare_is_a_score_of_0_with_a_note() -> None:
    """As in the references of NAS-Bench-101; both outputs vary, and their largest entries are equal by definition."""
    first, second = one_survivor()
    verdict = verdict_on(first, second, FakeRunner(again=lambda c: first if c < 1 else second))
    assert (verdict.status, verdict.raw_score, verdict.reason) == (Status.OK, 0.0, None)
    assert "only equal entries are left" in str(verdict.note)
    assert "larger --batch" in str(verdict.note)


def test_a_single_entry_to_compare_is_noise_where_the_output_is() -> None:
    first, second = one_survivor()
    shuffled = np.roll(second, 3)
    verdict = verdict_on(first, second, FakeRunner(again=lambda c: first if c < 1 else shuffled, loss=LOSS))
    assert verdict.status is Status.NOISE


def test_no_entry_to_compare_is_noise_that_says_so() -> None:
    first, second = np.eye(2, 16, 3, dtype=np.float32)[0], np.eye(2, 16, 9, dtype=np.float32)[0]
    verdict = verdict_on(first, second, FakeRunner(again=lambda c: first if c < 1 else second))
    assert (verdict.status, verdict.raw_score) == (Status.NOISE, None)
    assert "no entry is left" in str(verdict.reason)


def test_a_note_on_the_score_is_among_the_warnings() -> None:
    """Both outputs are 1 for one sample and 0 for all others, whatever the constant."""
    graph = """(float[N,2] x) => (float[N,1] y) {
        h = MatMul(x, W)  r = Relu(h)  s = Sub(r, one)  t = Relu(s)  y = Sign(t)
    }"""
    inputs = np.array([[9e9, 9e9]] + [[-1, -1]] * 7, np.float32)
    result = scored(build(graph, W=(2, 1), one=np.asarray(1, np.float32)), inputs=inputs, weights=(0.1, 1.0))
    assert (result.status, result.score) == (Status.OK, 0.0)
    assert any("only equal entries are left" in warning for warning in result.warnings)


def test_what_a_rectifier_cuts_off_is_called_that() -> None:
    graph = (
        "(float[N,3] x) => (float[N,2] y) {"
        "  p = Mul(x, x)  h = MatMul(p, W)  s = Sub(h, k)  r = Relu(s)  y = MatMul(r, V) }"
    )
    proto = build(graph, W=(3, 4), V=(4, 2), k=np.asarray(2, np.float32))
    found = score(proto, weights=(0.01, 10), batch=8, providers="cpu", arithmetic="float32")
    assert found.status is Status.UNDERFLOW
    assert "every sample is cut off to the same value in node 'Relu(r)'" in str(found.reason)
