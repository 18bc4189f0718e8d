"""Models without weights: the same score bit for bit, nothing left that tells, and weights put back that run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from epsinas_onnx import ModelError, UsageError, fill, inspect, score, strip
from tests.builders import Done, build, command, external, perceptron, save
from tests.tiers import tiered

MODELS = sorted((Path(__file__).parents[2] / "models").rglob("*.onnx"))
LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))
EXPORTS = Path(__file__).parents[1] / "data" / "folded_exports.zip"


def result(model: Any, **options: Any) -> tuple[Any, ...]:
    found = score(model, weights=(1e-3, 1.0), batch=4, providers="cpu", **options)
    return found.status, found.raw_score, found.parameters


def stored_floats(proto: onnx.ModelProto) -> int:
    """Return how many float entries a model stores."""
    return sum(int(np.prod(tensor.dims)) for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT)


LONG = {path.stem for path in LIGHT} - {"light_squeezenet", "light_shufflenet"}
"""What takes longest, and what test_score_invariance strips too."""


@pytest.mark.parametrize("path", tiered([*MODELS, *LIGHT], exhaustive=LONG, name=lambda path: path.stem))
@pytest.mark.parametrize("anonymise", [False, True])
def test_the_score_stays_bit_for_bit(path: Path, anonymise: bool) -> None:
    stripped = strip(path, anonymise=anonymise)
    onnx.checker.check_model(stripped)
    assert result(stripped) == result(path)


@pytest.mark.parametrize("anonymise", [False, True])
def test_what_an_exporters_traces_decided_stays_decided(anonymise: bool) -> None:
    with zipfile.ZipFile(EXPORTS) as files:
        for name in ("torch-unet.default.onnx", "torch-unet.old.onnx", "keras-MobileNetV3Small.tf2onnx.onnx"):
            data = files.read(name)
            assert result(strip(data, anonymise=anonymise)) == result(data), name


def test_no_weight_is_left_and_everything_else_is() -> None:
    proto = perceptron(width=40)
    stripped = strip(proto)
    assert stored_floats(stripped) <= 2  # the bias of two entries is smaller than a node
    names = [node.name for node in stripped.graph.node if node.op_type not in ("ConstantOfShape",)]
    assert names == ["first", "act", "last"]
    assert [value.name for value in stripped.graph.output] == ["y"]
    ours, theirs = ({(use.place, use.tensor, use.role) for use in inspect(model).uses} for model in (stripped, proto))
    assert ours == theirs
    assert stored_floats(proto) == 3 * 40 + 40 * 2 + 2  # the model itself is as it was


def test_what_is_no_weight_keeps_its_values() -> None:
    graph = "(float[N,32] x) => (float[N,32] y) { a = Mul(x, k)  y = MatMul(a, W) }"
    scale = np.arange(32, dtype=np.float32)
    stripped = strip(build(graph, k=scale, W=(32, 32)))
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in stripped.graph.initializer}
    assert np.array_equal(kept["k"], scale)
    assert "W" not in kept


def test_a_tensor_with_a_second_use_that_is_no_weight_stays() -> None:
    graph = "(float[N,32] x) => (float[N,32] y) { a = MatMul(x, W)  s = Cos(W)  b = MatMul(a, s)  y = Identity(b) }"
    stripped = strip(build(graph, W=(32, 32)))
    assert "W" in [tensor.name for tensor in stripped.graph.initializer]


def test_external_data_is_not_needed(tmp_path: Path) -> None:
    proto = build("(float[N,64] x) => (float[N,64] y) { y = MatMul(x, W) }")
    path = save(external(proto, "gone.bin", W=(64, 64)), tmp_path / "a.onnx")
    stripped = strip(path)
    assert not stripped.graph.initializer[0].external_data
    assert result(stripped) == result(path)


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 21])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_every_operator_set_and_float_type(opset: int, dtype: int) -> None:
    if dtype == TensorProto.BFLOAT16 and opset < 13:
        pytest.skip("MatMul takes bfloat16 from operator set 13")
    if dtype == TensorProto.DOUBLE and opset < 9:
        pytest.skip("no double here")
    proto = build("(float[N,16] x) => (float[N,16] y) { y = MatMul(x, W) }", opset=opset, W=(16, 16))
    values = numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("W", dtype, (16, 16), values.ravel().tolist()))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = dtype
    stripped = strip(proto)
    onnx.checker.check_model(stripped, full_check=True)
    assert "W" not in [tensor.name for tensor in stripped.graph.initializer]
    assert result(stripped) == result(proto)


FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
SMALL = (TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.UINT4,
         TensorProto.FLOAT4E2M1)  # fmt: skip
SINCE = {
    TensorProto.BFLOAT16: 13, TensorProto.DOUBLE: 9, TensorProto.INT8: 10, TensorProto.UINT8: 10,
    TensorProto.FLOAT8E4M3FN: 19, TensorProto.INT4: 21, TensorProto.UINT4: 21, TensorProto.FLOAT4E2M1: 23,
}  # fmt: skip
"""The operator set from which a MatMul, or a DequantizeLinear in front of it, takes a type."""


def of_type(dtype: int, opset: int) -> onnx.ModelProto:
    """Return a product with a stored matrix of this type, dequantised where MatMul does not take it."""
    graph = "(float[N,16] x) => (float[N,40] y) { y = MatMul(x, W) }"
    if dtype in SMALL:
        graph = "(float[N,16] x) => (float[N,40] y) { w = DequantizeLinear(W, s)  y = MatMul(x, w) }"
    proto = build(graph, opset=opset, W=(16, 40), **({"s": np.float32(0.01)} if dtype in SMALL else {}))
    values = numpy_helper.to_array(proto.graph.initializer[0]).ravel()
    if dtype in (TensorProto.UINT8, TensorProto.UINT4):
        values = np.abs(values)
    proto.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("W", dtype, (16, 40), values.tolist()))
    for value in (*proto.graph.input, *proto.graph.output):
        if value.name == "W" or dtype in FLOATS:
            value.type.tensor_type.elem_type = dtype
    return proto


FORMS = [
    (opset, dtype)
    for opset in (7, 8, 9, 10, 13, 19, 20, 21, 23)
    for dtype in (*FLOATS, *SMALL)
    if opset >= SINCE.get(dtype, 7)
]


@pytest.mark.parametrize(("opset", "dtype"), FORMS)
def test_what_strip_took_out_fill_draws_entry_by_entry(opset: int, dtype: int) -> None:
    proto = of_type(dtype, opset)
    stripped = strip(proto)
    assert "W" not in [tensor.name for tensor in stripped.graph.initializer]
    assert result(stripped) == result(proto)
    assert result(strip(proto, anonymise=True)) == result(proto)
    filled = fill(stripped)
    onnx.checker.check_model(filled, full_check=True)
    drawn = {tensor.name: numpy_helper.to_array(tensor) for tensor in filled.graph.initializer}
    array = next(array for array in drawn.values() if array.shape == (16, 40)).astype(np.float64)
    numbers = 16 if "4" in kind(dtype) else 256 if dtype in (*SMALL, TensorProto.BFLOAT16) else array.size
    assert len(np.unique(array)) > 0.4 * numbers
    assert result(filled) == result(proto)
    if dtype in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8):
        x = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float16 if "16" in kind(dtype) else np.float32)
        assert run(filled, x=x).std() > 1e-2
    if "W" in drawn:  # the same as for the model itself
        theirs = {tensor.name: numpy_helper.to_array(tensor) for tensor in fill(proto).graph.initializer}
        assert np.array_equal(drawn["W"], theirs["W"])
    left = [node.op_type for node in filled.graph.node]
    assert not {"Tile", "ConstantOfShape", "Constant"} & set(left)


def kind(dtype: int) -> str:
    return str(TensorProto.DataType.Name(dtype)).replace("E4M3FN", "")


@pytest.mark.parametrize("opset", [7, 8, 13])
def test_every_weight_of_a_network_is_drawn_entry_by_entry(opset: int) -> None:
    graph = (
        "(float[N,4,6,6] x) => (float[N,5] y) { c = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(c)  t = Transpose(V)"
        "  f = Flatten(r)  h = MatMul(f, t)  y = Gemm(h, G, k) }"
    )
    proto = build(graph, opset=opset, w=(20, 4, 3, 3), b=(20,), V=(30, 720), G=(30, 5), k=(5,))
    for stripped in (strip(proto), strip(proto, anonymise=True)):
        filled = fill(stripped)
        tables = [array for array in weights(filled).values() if array.ndim > 1]
        assert sorted(array.shape for array in tables) == [(20, 4, 3, 3), (30, 5), (30, 720)]
        assert all(len(np.unique(array)) > 0.99 * array.size for array in tables)
        given = filled.graph.input[0].name
        output = run(filled, **{given: np.random.default_rng(1).standard_normal((6, 4, 6, 6)).astype(np.float32)})
        assert output.std() > 0.1
        assert result(stripped) == result(filled) == result(proto)


def test_weights_inside_bodies_go_too() -> None:
    graph = (
        "(float[N,16] x, bool c) => (float[N,16] y) { y = If(c) <"
        "then_branch = t () => (float[N,16] a) <float[16,16] V = {"
        + ", ".join(["1.0"] * 256)
        + "}> { a = MatMul(x, V) }, "
        "else_branch = e () => (float[N,16] b) { b = MatMul(x, W) }> }"
    )
    proto = build(graph, W=(16, 16))
    stripped = strip(proto)
    onnx.checker.check_model(stripped)
    assert len(stripped.SerializeToString()) < len(proto.SerializeToString()) / 2
    assert result(stripped) == result(proto)


def test_weights_inside_functions_go_too() -> None:
    numbers = ", ".join(str(entry / 7) for entry in range(256))
    function = (
        '<domain: "local", opset_import: ["" : 21]> dense (x) => (y) {'
        f" V = Constant <value = float[16,16] {{ {numbers} }}> ()  b = Constant <value_floats = [{numbers}]> ()"
        "  h = MatMul(x, V)  s = Constant <value_ints = [16, 16]> ()  t = Reshape(b, s)  y = MatMul(h, t) }"
    )
    graph = "(float[N,16] x) => (float[N,16] y) { a = local.dense(x)  b = MatMul(a, W)  y = Tanh(b) }"
    proto = build(graph, functions=function, W=(16, 16))
    stripped = strip(proto)
    onnx.checker.check_model(stripped)
    assert len(stripped.SerializeToString()) < 1000
    assert result(stripped) == result(strip(proto, anonymise=True)) == result(proto)
    drawn = [array for array in weights(fill(proto)).values() if array.dtype == np.float32]
    assert [len(np.unique(array)) for array in drawn] == [256, 256, 256]


def test_a_role_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="the role pattern 'frist:1' matches nothing"):
        strip(perceptron(), roles={"frist:1": "weight"})


def test_what_was_told_is_written_into_the_model() -> None:
    proto = perceptron(width=40)
    stripped = strip(proto, roles={"first:1": "constant"})
    assert "W" in [tensor.name for tensor in stripped.graph.initializer]
    assert result(stripped) == result(proto, roles={"first:1": "constant"}) != result(proto)


def test_anonymous_models_tell_nothing() -> None:
    proto = perceptron(width=40)
    proto.producer_name, proto.doc_string, proto.graph.doc_string = "secret", "secret", "secret"
    proto.metadata_props.add(key="secret", value="secret")
    for node in proto.graph.node:
        node.doc_string = "secret"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/secret/model.py")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "secret"
    data = strip(proto, anonymise=True).SerializeToString()
    assert not [word for word in (b"secret", b"first", b"act", b"last", b"W", b"V") if word in data]
    assert b"/home" not in strip(proto).SerializeToString()


def test_anonymous_inputs_are_fed_the_same() -> None:
    graph = (
        "(int64[N,8] input_ids, int64[N,8] attention_mask) => (float[N,8,16] y) { e = Gather(E, input_ids)"
        "  m = Cast<to = 1>(attention_mask)  a = Unsqueeze(m, axes)  f = Mul(e, a)  h = MatMul(f, W)  y = Tanh(h) }"
    )
    proto = build(graph, E=(40, 16), W=(16, 16), axes=np.array([2]))
    ours, theirs = inspect(strip(proto, anonymise=True)), inspect(proto)
    assert [given.kind for given in ours.inputs] == [given.kind for given in theirs.inputs]
    assert result(strip(proto, anonymise=True)) == result(proto)


def run(proto: onnx.ModelProto, **feeds: Any) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def weights(proto: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def test_filled_models_run_and_score_as_before() -> None:
    for path in (p for p in MODELS if p.stem in ("lstm", "mlp", "transformer", "mobilenet_v2")):
        filled = fill(path, seed=3)
        onnx.checker.check_model(filled)
        assert not [node for node in filled.graph.node if node.op_type == "ConstantOfShape"]
        assert result(filled) == result(path)


def test_each_initialisation_is_what_it_is_called() -> None:
    proto = strip(perceptron(width=4000))
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    kaiming, xavier, normal = (weights(fill(proto, init)) for init in ("kaiming", "xavier", "normal"))
    assert kaiming["V"].std() == pytest.approx(np.sqrt(2 / 4000), rel=0.05)
    limit = np.sqrt(6 / (3 + 4000))
    assert 0.95 * limit < np.abs(xavier["W"]).max() <= limit
    assert xavier["W"].std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    assert normal["V"].std() == pytest.approx(0.02, rel=0.05)
    assert set(weights(fill(proto, "constant", value=0.25))["W"].ravel()) == {0.25}
    assert run(fill(proto), x=x).std() > 0


def test_biases_scales_and_statistics_are_those_of_an_untrained_network() -> None:
    graph = (
        "(float[N,4,6,6] x) => (float[N,20,6,6] y) { c = Conv<pads = [1, 1, 1, 1]>(x, w, b)"
        "  y = BatchNormalization(c, s, t, m, v) }"
    )
    proto = build(graph, w=(20, 4, 3, 3), b=(20,), s=(20,), t=(20,), m=(20,), v=(20,))
    for source in (proto, strip(proto)):
        filled = weights(fill(source))
        assert {name: set(filled[name]) for name in "bstmv"} == {"b": {0}, "s": {1}, "t": {0}, "m": {0}, "v": {1}}
        assert filled["w"].std() == pytest.approx(np.sqrt(2 / 36), rel=0.15)


def test_a_seed_gives_the_same_weights_whatever_else_is_there() -> None:
    small, large = perceptron(width=4), perceptron(width=4)
    large.graph.initializer.append(numpy_helper.from_array(np.zeros((5, 5), np.float32), "unused"))
    first, second, other = (weights(fill(*args)) for args in ((small,), (large,), (small, "kaiming")))
    assert np.array_equal(first["W"], second["W"])
    assert np.array_equal(first["W"], other["W"])
    assert not np.array_equal(first["W"], weights(fill(small, seed=1))["W"])
    assert not np.array_equal(first["W"].ravel()[:8], first["V"].ravel()[:8])


def written(*args: str) -> Done:
    return command(*args)


def test_the_commands_write_files_and_say_how_large(tmp_path: Path) -> None:
    path = save(perceptron(width=400), tmp_path / "model.onnx")
    done = written("strip", path, "--output", str(tmp_path / "light.onnx"), "--anonymise")
    assert (done.code, done.out) == (0, "")
    assert "bytes" in done.err
    assert (tmp_path / "light.onnx").stat().st_size < 1000
    done = written("fill", str(tmp_path / "light.onnx"), "-o", str(tmp_path / "new.onnx"), "--init", "xavier")
    assert done.code == 0
    assert result(str(tmp_path / "new.onnx")) == result(path)


def test_bad_commands_end_in_a_sentence(tmp_path: Path) -> None:
    path = save(perceptron(), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="kaiming, xavier, normal, constant"):
        fill(path, "zeros")
    with pytest.raises(ModelError, match="no such file"):
        strip(tmp_path / "none.onnx")
    assert written("strip", path, "-o", path).code == 2
    assert written("strip", path, "-o", f"{path}/folder.onnx").code == 2
    assert written("fill", path, "-o", str(tmp_path / "x.onnx"), "--init", "zeros").code == 2
    assert onnx.load(path).graph.initializer


def test_weights_that_are_too_many_for_a_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epsinas_onnx.edit.fill.LARGEST", 1000)
    path = save(perceptron(width=400), tmp_path / "model.onnx")
    target = tmp_path / "links" / "filled.onnx"
    for seed in (1, 2):  # the second one takes the place of the first
        fill(path, seed=seed, output=target)
    assert sorted(file.name for file in target.parent.iterdir()) == ["filled.onnx", "filled.onnx.data"]
    assert target.stat().st_size < 4000
    assert (target.parent / "filled.onnx.data").stat().st_size < 4 * (3 * 400 + 400 * 2 + 400)
    onnx.checker.check_model(str(target), full_check=True)
    monkeypatch.undo()
    whole = {tensor.name: numpy_helper.to_array(tensor) for tensor in fill(path, seed=2).graph.initializer}
    for tensor in onnx.load(target).graph.initializer:
        assert np.array_equal(numpy_helper.to_array(tensor), whole[tensor.name])
    assert result(str(target)) == result(path)
