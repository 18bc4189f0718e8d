"""The process that measures latencies: what it answers, and that a network that ends it costs that network alone."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from epsinas_onnx import fill
from epsinas_onnx.errors import RunError, UsageError
from epsinas_onnx.search.latency import LatencySettings, Stopwatch
from tests.search.toy import Toy

QUICK = LatencySettings(provider="cpu", runs=5, warmups=1)


def toy() -> onnx.ModelProto:
    return fill(Toy().build("123321"))


def with_input(shape: list[str | int], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_it_says_what_ran_and_how_long() -> None:
    with Stopwatch(QUICK) as watch:
        found = watch.measure(toy())
        again = watch.measure(toy())
    assert found.provider == again.provider == "CPUExecutionProvider"
    assert found.runs == 5
    assert 0 < found.low <= found.milliseconds <= found.high


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL, TensorProto.INT8]
)
def test_inputs_of_any_kind_are_fed(kind: int) -> None:
    with Stopwatch(LatencySettings(provider="cpu", runs=2, shapes={"time": 7})) as watch:
        assert watch.measure(with_input(["batch", "time"], kind)).runs == 2


def test_a_free_size_that_nobody_named_is_asked_for() -> None:
    with Stopwatch(QUICK) as watch:
        with pytest.raises(RunError, match="axis 1 of the input x has no size; name it with --dim time=SIZE"):
            watch.measure(with_input(["batch", "time"]))
        assert watch.measure(toy()).runs == 5  # the process is still there


def test_a_network_that_onnx_runtime_refuses_is_one_sentence() -> None:
    broken = with_input(["batch", 3])
    broken.graph.node[0].op_type = "Unheard"
    with Stopwatch(QUICK) as watch, pytest.raises(RunError, match="Unheard"):
        watch.measure(broken)


def test_a_process_that_is_gone_is_started_again() -> None:
    with Stopwatch(QUICK) as watch:
        watch.measure(toy())
        process = watch._process
        assert process is not None
        process.kill()
        process.wait()
        assert watch.measure(toy()).runs == 5


def test_one_that_takes_too_long_is_given_up() -> None:
    hurried = LatencySettings(provider="cpu", timeout=0.01)
    with Stopwatch(hurried) as watch, pytest.raises(RunError, match=r"its latency took longer than 0\.01 s to measure"):
        watch.measure(toy())


def test_settings_that_measure_nothing() -> None:
    with pytest.raises(UsageError, match="at least 1 of runs, not 0"):
        LatencySettings(runs=0)
    with pytest.raises(UsageError, match="fewer than 0 threads"):
        LatencySettings(threads=-1)
