"""Measuring several scores of one model: one session, statuses apart, seeds, weightless files, the registry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest

from epsinas_exporters.classics import resnet50
from epsinas_onnx import proxies, score
from epsinas_onnx.errors import UnsupportedError, UsageError
from epsinas_onnx.proxies import registry
from epsinas_onnx.proxies.measure import measure, measure_prepared
from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
from epsinas_onnx.proxies.prepared import Prepared, prepare
from epsinas_onnx.proxies.proxy import Array, Proxy, UndefinedError
from epsinas_onnx.proxies.registry import BUILT_IN, find_proxies, find_proxy, proxy_names
from tests.builders import build, external

MODELS = Path(__file__).parents[2] / "models"
CELL = MODELS / "nb201-p-c1-s-c1-s-s.onnx"
SHARED = ("nwot", "swap", "meco", "expressivity", "progressivity")

NETWORK = """
(float[N,3,8,8] x) => (float[N,4] y) {
    [first] c = Conv<pads = [1, 1, 1, 1]>(x, W)
    n = BatchNormalization(c, scale, shift, mean, variance)
    r = Relu(n)
    [second] d = Conv<pads = [1, 1, 1, 1]>(r, U)
    s = Relu(d)
    p = GlobalAveragePool(s)
    f = Flatten(p)
    [last] y = Gemm<transB = 1>(f, V, B)
}
"""


def network(seed: int = 0, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """Return a small network whose weights are drawn with a seed that no score may notice."""
    rng = np.random.default_rng(seed)
    dims = {"W": (5, 3, 3, 3), "U": (6, 5, 3, 3), "V": (4, 6), "B": (4,), "scale": (5,), "shift": (5,), "mean": (5,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in dims.items()}
    return build(NETWORK, **arrays, variance=np.ones(5, np.float32))


def numbers(found: Sequence[Measurement]) -> dict[str, float | None]:
    return {one.name: one.value for one in found}


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the sessions that are made."""
    made: list[int] = []
    real = onnxruntime.InferenceSession

    def counting(*given: Any, **options: Any) -> Any:
        made.append(1)
        return real(*given, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counting)
    return made


def test_one_session_serves_all_that_share_a_graph(sessions: list[int]) -> None:
    found = measure(network(), SHARED, batch=4)
    assert all(one.status is MeasurementStatus.OK for one in found)
    assert len(sessions) == 1


def test_counts_run_nothing(sessions: list[int]) -> None:
    assert all(one.value for one in measure(network(), ["params", "macs", "depth", "relu_units"], batch=4))
    assert not sessions


def test_together_gives_what_each_gives_alone() -> None:
    together = numbers(measure(network(), batch=4))
    alone = {name: measure(network(), name, batch=4)[0].value for name in proxy_names()}
    assert together == pytest.approx(alone, rel=1e-6, abs=1e-6)


def test_names_keep_their_order() -> None:
    assert [one.name for one in measure(network(), ["swap", "params", "nwot"], batch=4)] == ["swap", "params", "nwot"]


def test_the_file_s_weights_are_never_looked_at(tmp_path: Path) -> None:
    first = numbers(measure(network(1), batch=4))
    assert first == numbers(measure(network(2), batch=4))
    stripped = network(3)
    for tensor in stripped.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="nowhere.bin")
    path = tmp_path / "without.onnx"
    path.write_bytes(stripped.SerializeToString())
    assert first == numbers(measure(path, batch=4))


def test_names_of_values_do_not_count() -> None:
    renamed = network()
    for node in renamed.graph.node:
        node.input[:] = [f"{name}_" if name != "x" else name for name in node.input]
        node.output[:] = [f"{name}_" if name != "y" else name for name in node.output]
    for tensor in renamed.graph.initializer:
        tensor.name += "_"
    assert numbers(measure(network(), batch=4)) == numbers(measure(renamed, batch=4))


def test_seeds_repeat_and_differ() -> None:
    first, again, other = (numbers(measure(network(), batch=4, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    fixed = {kind.name for kind in find_proxies() if not kind.seeded}
    assert {name for name in first if first[name] == other[name]} >= fixed
    assert all(first[name] != other[name] for name in ("nwot", "meco", "zen", "expressivity"))


def test_repeats_are_the_mean_over_seeds() -> None:
    single = [numbers(measure(network(), batch=4, seed=seed)) for seed in (3, 4, 5)]
    mean = numbers(measure(network(), batch=4, seed=3, repeats=3))
    for name, value in mean.items():
        assert value == pytest.approx(np.mean([one[name] for one in single]), rel=1e-9)


def test_inputs_of_the_caller_are_fed() -> None:
    images = np.random.default_rng(5).random((6, 3, 8, 8), np.float32)
    given = measure(network(), ["nwot"], inputs=images)
    assert given[0].value != measure(network(), ["nwot"], batch=6)[0].value
    assert prepare(network(), inputs=images).batch == 6
    same = images.copy()
    same[1] = same[0]
    (found,) = measure(network(), ["nwot"], inputs=same)
    assert found.status is MeasurementStatus.UNDEFINED
    assert "singular" in str(found.reason)


@pytest.mark.parametrize("name", ["nb201-p-c1-s-c1-s-s", "nb201-c3-c3-p-s-c3-s", "mlp"])
def test_order_is_that_of_the_score(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    assert measure(path, "order")[0].value == pytest.approx(score(path).order, rel=1e-9)


def test_parameters_and_depth_of_a_known_network() -> None:
    found = numbers(measure(resnet50(), ["params", "macs", "depth"], batch=2))
    assert found == {"params": 25_557_032, "macs": 4_089_184_256, "depth": 50}


class Broken(Proxy):
    """Appends a node that cannot be run."""

    name: ClassVar[str] = "broken"

    def ask(self, prepared: Prepared) -> Sequence[str]:
        name = str(prepared.emitter.reshape(prepared.output, [7, 11, 13]).name)
        prepared.append()
        return [name]

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        raise AssertionError("nothing can have been fetched")


class Refuses(Proxy):
    name: ClassVar[str] = "refuses"

    def ask(self, prepared: Prepared) -> Sequence[str]:
        prepared.emitter.op("Relu", [prepared.output])
        raise UnsupportedError("node 'first' (Conv) has no rule")

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        raise AssertionError("it was not asked")


class Careless(Proxy):
    name: ClassVar[str] = "careless"

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        return float({}["missing"])


class Endless(Proxy):
    name: ClassVar[str] = "endless"

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        return -math.inf


class Undefined(Proxy):
    name: ClassVar[str] = "undefined"

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        raise UndefinedError("nothing varies")


def test_what_keeps_one_score_costs_that_one_alone(sessions: list[int]) -> None:
    expected = numbers(measure(network(), SHARED, batch=4))
    sessions.clear()
    kinds = [Broken, Refuses, Careless, Endless, Undefined, *find_proxies(SHARED)]
    found = {one.name: one for one in measure_prepared(prepare(network(), batch=4), kinds)}
    assert {name: found[name].value for name in SHARED} == pytest.approx(expected, rel=1e-6)
    statuses = {name: str(found[name].status) for name in ("broken", "refuses", "careless", "endless", "undefined")}
    assert statuses == {
        "broken": "error", "refuses": "unsupported", "careless": "error", "endless": "undefined",
        "undefined": "undefined",
    }  # fmt: skip
    assert "ONNX Runtime" in str(found["broken"].reason)
    assert found["refuses"].reason == "node 'first' (Conv) has no rule"
    assert "KeyError" in str(found["careless"].reason)
    assert "-inf" in str(found["endless"].reason)


def test_a_model_that_cannot_be_read_is_an_error_of_each_score(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x07nothing")
    found = measure(tmp_path / "cut.onnx", ["params", "swap"])
    assert [one.status for one in found] == [MeasurementStatus.ERROR] * 2
    assert "cut.onnx" in str(found[0].reason)


def test_a_custom_operator_is_unsupported() -> None:
    model = build("(float[N,3] x) => (float[N,3] y) { y = my.domain.Thing(x) }")
    assert [one.status for one in measure(model, ["params"])] == [MeasurementStatus.UNSUPPORTED]


def test_a_network_without_relu_has_no_signs_but_counts() -> None:
    model = build("(float[N,3] x) => (float[N,2] y) { y = MatMul(x, W) }", W=(3, 2))
    found = {one.name: one for one in measure(model, batch=4)}
    assert {name for name, one in found.items() if one.value is not None} >= {"params", "macs", "depth", "order"}
    for name in ("nwot", "swap", "relu_units"):
        assert found[name].status is MeasurementStatus.UNSUPPORTED
        assert "ReLU" in str(found[name].reason)
    assert "head" in str(found["zen"].reason)
    assert found["progressivity"].status is MeasurementStatus.UNSUPPORTED


def test_tokens_cannot_be_moved_a_little() -> None:
    (found,) = measure(MODELS / "transformer.onnx", ["zen"], batch=2)
    assert found.status is MeasurementStatus.UNSUPPORTED
    assert "floats" in str(found.reason)


def test_a_batch_of_one_is_loosened_and_where_it_cannot_be_the_reason_says_so() -> None:
    loose = build(
        "(float[1,6] x) => (float[1,2] y) { h = MatMul(x, W) r = Relu(h) y = MatMul(r, V) }", W=(6, 5), V=(5, 2)
    )
    assert measure(loose, "nwot", batch=4)[0].status is MeasurementStatus.OK
    tied = build(
        "(float[1,6] x) => (float[1,2] y) { h = MatMul(x, W) s = ReduceSum<keepdims = 1>(h) q = Div(h, s) r = Relu(q) "
        "y = MatMul(r, V) }",
        W=(6, 5), V=(5, 2),
    )  # fmt: skip
    found = {one.name: one for one in measure(tied, batch=4)}
    assert found["params"].value == 40
    assert found["nwot"].status is MeasurementStatus.UNSUPPORTED
    assert "dynamic batch" in str(found["nwot"].reason)


@pytest.mark.parametrize(
    "frameworks", [("torch", "torchscript", "paddle"), ("jax", "keras", "tensorflow")], ids=["NCHW", "NHWC"]
)
def test_one_network_has_the_same_scores_from_every_framework(frameworks: Sequence[str]) -> None:
    first, *others = (numbers(measure(MODELS / "frameworks" / f"cnn-{name}.onnx", batch=8)) for name in frameworks)
    for other in others:
        assert other == pytest.approx(first, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("layout", ["batch first", "tokens first", "merged"])
def test_samples_are_found_wherever_they_lie(layout: str) -> None:
    front, back = {
        "batch first": ("t = Identity(x)", "u = Identity(r)"),
        "tokens first": ("t = Transpose<perm = [1, 0, 2]>(x)", "u = Transpose<perm = [1, 0, 2]>(r)"),
        "merged": ("t = Reshape(x, rows)", "u = Reshape(r, back)"),
    }[layout]
    shapes = {"rows": np.asarray([-1, 5]), "back": np.asarray([-1, 4, 7])} if layout == "merged" else {}
    model = build(
        f"(float[N,4,5] x) => (float[N,4,3] y) {{ {front} h = MatMul(t, W) r = Relu(h) {back} y = MatMul(u, V) }}",
        W=(5, 7), V=(7, 3), **shapes,
    )  # fmt: skip
    plain = build(
        "(float[N,4,5] x) => (float[N,4,3] y) { h = MatMul(x, W) r = Relu(h) y = MatMul(r, V) }", W=(5, 7), V=(7, 3)
    )
    wanted = ["nwot", "swap", "relu_units"]
    assert numbers(measure(model, wanted, batch=6)) == pytest.approx(numbers(measure(plain, wanted, batch=6)))


def test_data_files_are_read_only_for_what_stays_constant() -> None:
    model = build("(float[N,3] x) => (float[N,2] y) { h = MatMul(x, W) r = Relu(h) y = MatMul(r, V) }", V=(4, 2))
    external(model, "gone.bin", W=(3, 4))
    assert measure(model, "swap", batch=4)[0].status is MeasurementStatus.OK


def test_too_many_weights_are_refused_before_they_are_drawn() -> None:
    model = build(
        "(float[N,30000] x) => (float[N,2] y) { h = MatMul(x, W) r = Relu(h) y = MatMul(r, V) }", V=(30000, 2)
    )
    external(model, "gone.bin", W=(30000, 30000))
    found = {one.name: one for one in measure(model, ["params", "swap"], batch=2)}
    assert found["params"].value == 900_060_000
    assert found["swap"].status is MeasurementStatus.ERROR
    assert "memory" in str(found["swap"].reason) or "weights" in str(found["swap"].reason)


@pytest.mark.parametrize("repeats", [0, -1, 1.5])
def test_repeats_are_counted_from_one(repeats: Any) -> None:
    with pytest.raises(UsageError, match="at least 1 seed"):
        measure(network(), "params", repeats=repeats)


def test_an_unknown_score_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"there is no score 'jacob'; there are params, macs, depth") as caught:
        find_proxy("jacob")
    assert all(name in str(caught.value) for name in BUILT_IN)


def test_the_public_names_are_there_when_they_are_asked_for() -> None:
    assert proxies.__all__ == sorted(proxies.__all__)
    assert all(getattr(proxies, name) is not None for name in proxies.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = proxies.train


def test_every_score_says_what_it_is() -> None:
    for name in BUILT_IN:
        kind = find_proxy(name)
        assert kind.name == name
        assert kind.summary
        assert kind.source
        assert kind.__doc__
        assert "cannot say" in kind.__doc__


def test_others_add_scores_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    group, here = registry.ENTRY_POINTS, "tests.proxies.test_measure"
    added = {"endless": f"{here}:Endless", "wrong": f"{here}:network", "gone": "no_such_module:Score"}
    added["renamed"] = f"{here}:Endless"
    entries = {name: EntryPoint(name, value, group) for name, value in added.items()}
    monkeypatch.setattr(registry, "_added", lambda: entries)
    assert proxy_names()[-4:] == ("endless", "gone", "renamed", "wrong")
    assert find_proxy("endless").name == "endless"
    with pytest.raises(UsageError, match="no subclass of Proxy"):
        find_proxy("wrong")
    with pytest.raises(UsageError, match="'gone' cannot be loaded from 'no_such_module:Score'"):
        find_proxy("gone")
    with pytest.raises(UsageError, match=r"'renamed' .* names a score that calls itself 'endless'"):
        find_proxy("renamed")
