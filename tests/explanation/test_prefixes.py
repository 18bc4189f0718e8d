"""The node that `explain` names, for each status: a prefix of the graph before it has what one with it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from epsinas_onnx import Explanation, RunError, Status, explain, rewrite, score

MODELS = Path(__file__).parents[2] / "models"
BATCH = 16
Array = npt.NDArray[Any]


def prefix(proto: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """Return a model of nothing but what these values need."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    needed, kept = set(outputs), []
    for node in reversed(proto.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    del made.graph.node[:], made.graph.output[:]
    made.graph.node.extend(reversed(kept))
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return made


def ran(name: str, weight: float, outputs: list[str], feeds: Mapping[str, Array]) -> list[Array]:
    """Run a prefix of the plain graph with all weights at a constant, in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    proto = prefix(rewrite(MODELS / name, weight), outputs)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    return session.run(outputs, {key: array for key, array in feeds.items() if key in wanted})


def images(*, shape: tuple[int, ...] = (3, 32, 32), name: str = "input") -> dict[str, Array]:
    ramp = np.arange(BATCH, dtype=np.float32).reshape(-1, *[1] * len(shape)) / BATCH
    return {name: np.broadcast_to(ramp, (BATCH, *shape)).copy()}


def apart(array: Array) -> float:
    """Return how far samples differ."""
    return float(np.abs(array - array[:1]).max())


def at(found: Explanation) -> tuple[str, list[str]]:
    """Return the value that the named node makes, and those that feed it."""
    assert found.lost is not None
    (made,) = [value for value in found.values if value.node == found.lost.node]
    assert found.lost.operands == made.operands
    return made.name, list(made.operands)


def same_as_score(found: Explanation, name: str, **options: Any) -> None:
    scored = score(MODELS / name, batch=BATCH, **options)
    assert (found.status, found.score) == (scored.status, scored.score)
    assert (None if found.lost is None else found.lost.reason) == scored.reason


def test_ok_names_no_node_because_the_output_varies() -> None:
    name = "nb201-p-s-n-n-n-s.onnx"
    found = explain(MODELS / name, batch=BATCH)
    same_as_score(found, name)
    assert (found.status, found.endings) == (Status.OK, [])
    for weight in found.weights:
        (output,) = ran(name, weight, ["output"], images())
        assert apart(output) > 0


def test_underflow_begins_in_the_node() -> None:
    name = "nb201-c3-n-n-c1-c3-n.onnx"
    found = explain(MODELS / name, batch=BATCH, arithmetic="float32")
    same_as_score(found, name, arithmetic="float32")
    made, (before,) = at(found)
    assert found.status is Status.UNDERFLOW
    assert found.lost is not None
    assert found.lost.constant == 1e-7
    seen, lost = ran(name, 1e-7, [before, made], images())
    assert apart(seen) > 0
    assert apart(lost) == 0


def test_where_float32_ends_is_said_beside_an_exact_score() -> None:
    name = "nb201-c3-n-n-c1-c3-n.onnx"
    found = explain(MODELS / name, batch=BATCH)
    alone = explain(MODELS / name, batch=BATCH, arithmetic="float32")
    same_as_score(found, name)
    assert (found.status, found.lost, found.arithmetic) == (Status.OK, None, "exact")
    assert found.lost_in_float32 == alone.lost
    assert found.float32_status is Status.UNDERFLOW


def test_overflow_begins_in_the_node() -> None:
    weights = (1.0, 1e20)
    found = explain(MODELS / "mlp.onnx", batch=BATCH, weights=weights, arithmetic="float32")
    same_as_score(found, "mlp.onnx", weights=weights, arithmetic="float32")
    made, (before,) = at(found)
    assert found.status is Status.OVERFLOW
    rng = np.random.default_rng(0)
    feeds = {"input": rng.standard_normal((BATCH, 784)).astype(np.float32)}
    seen, lost = ran("mlp.onnx", 1e20, [before, made], feeds)
    assert np.isfinite(seen).all()
    assert not np.isfinite(lost).all()


def test_constant_begins_in_the_node() -> None:
    name = "nb201-c3-n-n-n-n-c3.onnx"
    found = explain(MODELS / name, batch=BATCH)
    same_as_score(found, name)
    made, (before,) = at(found)
    assert found.status is Status.CONSTANT
    for weight in found.weights:
        seen, lost = ran(name, weight, [before, made], images())
        assert apart(seen) > 0
        assert apart(lost) == 0


def test_noise_begins_in_the_node() -> None:
    found = explain(MODELS / "transformer.onnx", batch=BATCH, arithmetic="float32")
    same_as_score(found, "transformer.onnx", arithmetic="float32")
    made, (before,) = at(found)
    assert found.status is Status.NOISE
    feeds = {"tokens": np.random.default_rng(0).integers(0, 1000, (BATCH, 32))}
    plain = ran("transformer.onnx", 1.0, [before, made], feeds)
    moved = ran("transformer.onnx", 1.0 + 2.0**-14, [before, made], feeds)
    seen, lost = (float(np.abs(one - two).max()) / apart(one) for one, two in zip(plain, moved, strict=True))
    assert seen < 0.01
    assert lost > 0.1


def test_error_is_in_the_node() -> None:
    shapes = {"height": 32, "width": 32, "right_height": 28, "right_width": 28}
    with pytest.raises(RunError) as failed:
        score(MODELS / "stereo.onnx", batch=BATCH, shapes=shapes)
    found = explain(MODELS / "stereo.onnx", batch=BATCH, shapes=shapes)
    made, before = at(found)
    assert found.status is Status.ERROR
    assert found.lost is not None
    assert found.lost.reason == str(failed.value)
    feeds = images(name="left") | images(shape=(3, 28, 28), name="right")
    assert all(apart(array) > 0 for array in ran("stereo.onnx", 1.0, before, feeds))
    with pytest.raises(Exception, match="broadcast"):
        ran("stereo.onnx", 1.0, [made], feeds)
    seen = {value.name: value.observed for value in found.values}
    assert all(seen[name] != (None, None) for name in before)
    assert seen[made] == (None, None)
