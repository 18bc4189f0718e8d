"""Models exported without their parameters: inputs that are weights are found, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from epsinas_onnx import ModelError, fill, inspect, rewrite, score, strip
from epsinas_onnx.graph.load import load_model
from tests.builders import build, perceptron
from tests.tiers import ALIKE, tiered

MODELS = sorted((Path(__file__).parents[3] / "models").glob("*.onnx"))


def without_parameters(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Make every float initializer with an axis an input, as `torch.onnx.export(export_params=False)` does."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    moved = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and t.dims]
    for tensor in moved:
        made.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        made.graph.initializer.remove(tensor)
    return made, [tensor.name for tensor in moved]


def result(model: object, **options: object) -> tuple[object, ...]:
    found = score(model, weights=(1e-3, 1.0), batch=4, providers="cpu", **options)  # type: ignore[arg-type]
    return found.status, found.raw_score, found.parameters


@pytest.mark.parametrize("path", tiered(MODELS, exhaustive=ALIKE, name=lambda path: path.stem))
def test_a_model_without_its_parameters_has_the_score_of_the_model(path: Path) -> None:
    whole = fill(path)
    made, moved = without_parameters(whole)
    assert moved
    loaded = load_model(made)
    assert set(loaded.supplied.names) == set(moved)
    assert result(made) == result(whole)
    assert any("are weights" in note for note in inspect(made).warnings)


def test_its_stripped_and_filled_forms_are_whole_models() -> None:
    whole = fill(MODELS[0])
    made, _ = without_parameters(whole)
    for form in (strip(made), fill(made), strip(made, anonymise=True)):
        onnx.checker.check_model(form)
        assert len(form.graph.input) == len(whole.graph.input)
        assert result(form) == result(whole)
    assert [value.name for value in rewrite(made, 0.1).graph.input] == [value.name for value in whole.graph.input]


def test_without_a_telling_name_the_place_in_a_layer_tells() -> None:
    graph = (
        "(float[N,3,8,8] image, float[6,3,3,3] a, float[6] b, float[6] c, float[6] d, float[6] e, float[6] f,"
        " float[6,5] g) => (float[N,5] y) { h = Conv(image, a, b)  n = BatchNormalization(h, c, d, e, f)"
        "  p = GlobalAveragePool(n)  q = Flatten(p)  y = MatMul(q, g) }"
    )
    assert load_model(build(graph)).supplied.names == tuple("abcdefg")


@pytest.mark.parametrize(
    "graph",
    [
        "(float[2,3] x, float[3,4] w) => (float[2,4] y) { y = MatMul(x, w) }",  # nothing tells
        "(float[N,3] x, float[3] mean) => (float[N,3] y) { c = Sub(x, mean)  y = MatMul(c, W) }",
        "(float[4,3] x_bias, float[4,3] y_bias) => (float[4,3] z) { z = Add(x_bias, y_bias) }",  # nothing would be left
        "(float[N,3,8,8] x, float[3,4] w) => (float[N,3,8,8] y) { a = Conv(x, V)  s = ReduceSum(w)  y = Add(a, s) }",
        "(float[N,3] x, float[K,4] weight) => (float[N,4] y) { a = MatMul(x, W)  y = Add(a, weight) }",  # a free axis
        "(float[1,3,8,8] weight_image, float[1,3] x) => (float[1,3] y) { c = Conv(weight_image, V)"
        "  p = GlobalAveragePool(c)  f = Flatten(p)  y = Add(f, x) }",
    ],
)
def test_what_may_be_a_signal_stays_an_input(graph: str) -> None:
    proto = build(graph, W=(3, 3), V=(3, 3, 1, 1))
    loaded = load_model(proto)
    assert loaded.supplied.names == ()
    assert [value.name for value in loaded.model.graph.inputs] == [value.name for value in proto.graph.input]


def test_what_the_user_names_is_fed() -> None:
    proto, _ = without_parameters(perceptron())
    proto.graph.input[1].name = proto.graph.node[0].input[1] = "first.weight"
    proto.graph.input[2].name = proto.graph.node[2].input[1] = "last.weight"
    array = np.ones((3, 4), np.float32)
    assert {use.place for use in inspect(proto).uses} == {"first:1", "last:1", "last:2"}
    fed = inspect(proto, shapes={"first.weight": (3, 4)})
    assert "first.weight" in {given.name for given in fed.inputs}
    assert "first:1" not in {use.place for use in fed.uses}
    assert result(proto, inputs={"first.weight": array}) != result(proto)
    with pytest.raises(ModelError, match=r"'first.weight' is a weight by its name.*--input"):
        score(proto, batch=4, roles={"first:1": "constant"})


def test_a_file_of_arrays_names_inputs_too(tmp_path: Path) -> None:
    proto, _ = without_parameters(perceptron())
    proto.graph.input[1].name = proto.graph.node[0].input[1] = "first.weight"
    np.savez(tmp_path / "given.npz", **{"first.weight": np.ones((3, 4), np.float32)})
    given = result(proto, inputs=tmp_path / "given.npz")
    assert given == result(proto, inputs={"first.weight": np.ones((3, 4), np.float32)})


def test_an_export_that_lost_its_parameters_says_so() -> None:
    proto = perceptron()
    del proto.graph.initializer[:]
    with pytest.raises(ModelError, match=r"nothing makes the value 'W'.*with its parameters"):
        score(proto, batch=4)
