"""TensorFlow's functions and SavedModels as weightless graphs."""

from __future__ import annotations

import itertools
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from epsinas_onnx import score
from tests.builders import command
from tests.exporters.agreement import CONSTANTS, assert_same_scores, is_weightless, need, operators

need("tensorflow", "tensorflow", "tf2onnx")
from epsinas_exporters.frameworks import tensorflow as exporter  # noqa: E402, I001  (quietens TensorFlow's import)
import tensorflow as tf  # noqa: E402
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2  # noqa: E402
from tf2onnx.optimizer import back_to_back_optimizer  # noqa: E402

import same_network  # noqa: E402
from epsinas_exporters.frameworks import ExportError, Input  # noqa: E402
from epsinas_exporters.frameworks.tensorflow_batchnorm import fuse_batch_norms  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
OPTIONS: dict[str, Any] = {"weights": (1e-2, 0.3), "batch": 16, "inputs": "normal"}


class Normalised(tf.Module):  # type: ignore[misc]
    """A convolution and a normalisation that TensorFlow writes as arithmetic, and a head."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.random((3, 3, 3, width), np.float32))
        self.vectors = [tf.Variable(rng.random(width, np.float32) + 0.5) for _ in range(4)]
        self.head = tf.Variable(rng.random((width, 5), np.float32))

    def __call__(self, x: Any) -> Any:
        x = tf.nn.conv2d(x, self.kernel, 1, "SAME")
        x = tf.tanh(tf.nn.batch_normalization(x, *self.vectors, 2e-3))
        return tf.reduce_mean(x, (1, 2)) @ self.head


def frozen(function: Any, *specs: Any) -> Any:
    return convert_variables_to_constants_v2(tf.function(function).get_concrete_function(*specs))


def run(graph_def: Any, like: Any, array: Any) -> Any:
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        return session.run(like.outputs[0].name, {like.inputs[0].name: array})


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize(("scaled", "shifted"), list(itertools.product([True, False], repeat=2)))
def test_a_fused_normalisation_computes_what_the_arithmetic_does(rank: int, scaled: bool, shifted: bool) -> None:
    rng = np.random.default_rng(rank)
    mean, variance, offset, scale = (tf.Variable(rng.random(6, np.float32) + 0.5) for _ in range(4))
    x = rng.random((3, *(4,) * (rank - 2), 6), np.float32)

    def normalise(value: Any) -> Any:
        learned = (offset if shifted else None, scale if scaled else None)
        return tf.nn.batch_normalization(value, mean, variance, *learned, 1e-2)

    function = frozen(normalise, tf.TensorSpec((None, *x.shape[1:])))
    graph_def = function.graph.as_graph_def(add_shapes=True)
    expected = run(graph_def, function, x)
    assert fuse_batch_norms(graph_def) == 1
    assert [node.op for node in graph_def.node].count("FusedBatchNormV3") == 1
    np.testing.assert_allclose(run(graph_def, function, x), expected, rtol=1e-5, atol=1e-6)


def test_what_only_looks_like_a_normalisation_is_left_alone() -> None:
    variance, scale = tf.Variable(np.full(6, 2, np.float32)), tf.Variable(np.full(6, 3, np.float32))

    def unlike(x: Any) -> Any:
        factor = tf.math.rsqrt(variance + 1e-3) * scale
        return x * factor + tf.reduce_mean(x)

    graph_def = frozen(unlike, tf.TensorSpec((None, 6))).graph.as_graph_def(add_shapes=True)
    before = graph_def.SerializeToString(deterministic=True)
    assert fuse_batch_norms(graph_def) == 0
    assert graph_def.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("weights", CONSTANTS)
def test_the_same_networks_score_the_same(weights: tuple[float, float]) -> None:
    assert_same_scores(same_network.from_tensorflow(), weights)


def test_a_module_keeps_its_normalisation_and_all_its_parameters() -> None:
    module = Normalised()
    before = [variable.numpy() for variable in module.variables]
    folding = dict(back_to_back_optimizer._func_map)
    exported = exporter.export_function(module, [(1, 8, 8, 3)])
    norm = next(node for node in exported.graph if node.op_type == "BatchNormalization")
    assert norm.attributes["epsilon"].as_float() == pytest.approx(2e-3)
    assert str(exported.graph.inputs[0].shape) == "[batch,8,8,3]"
    assert is_weightless(exported)
    found = score(exported, **OPTIONS)
    assert found.score is not None, found.reason
    assert found.parameters == 3 * 3 * 3 * 6 + 2 * 6 + 6 * 5
    assert all(np.array_equal(one, variable.numpy()) for one, variable in zip(before, module.variables, strict=True))
    assert back_to_back_optimizer._func_map == folding


def test_a_saved_model_and_its_signatures(tmp_path: Path) -> None:
    module = Normalised()
    signatures = {
        "small": tf.function(lambda x: {"values": module(x)}).get_concrete_function(tf.TensorSpec((None, 8, 8, 3))),
        "wide": tf.function(lambda x: {"values": module(x)}).get_concrete_function(tf.TensorSpec((None, 16, 16, 3))),
    }
    tf.saved_model.save(module, tmp_path / "net", signatures)
    done = command("export", "tensorflow", str(tmp_path / "net"), "-o", str(tmp_path / "net.onnx"))
    assert done.code == 0, done.err
    exported = ir.load(tmp_path / "net.onnx")
    assert [value.name for value in exported.graph.outputs] == ["values"]
    assert operators(exported).count("BatchNormalization") == 1
    wide = exporter.export_saved_model(tmp_path / "net", signature="wide")
    assert str(wide.graph.inputs[0].shape) == "[batch,16,16,3]"
    with pytest.raises(ExportError, match="has no signature tall: it has small, wide"):
        exporter.export_saved_model(tmp_path / "net", signature="tall")
    done = command("export", "tensorflow", str(tmp_path))
    assert (done.code, "holds no SavedModel" in done.err) == (2, True)


def test_what_cannot_be_exported_is_refused_in_a_sentence() -> None:
    with pytest.raises(ExportError, match="broken cannot be traced: "):
        exporter.export_function(lambda x: x @ np.ones((7, 2), np.float32), [(1, 6)], name="broken")
    with pytest.raises(ExportError, match="TensorFlow has no element type 'float7'"):
        exporter.export_function(tf.tanh, [Input((1, 6), "float7")])
    with pytest.raises(ExportError, match="give the shape of each input"):
        exporter.export_function(tf.tanh, [])


def test_a_module_of_ones_own_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import tensorflow as tf

        table = tf.Variable(tf.ones((50, 16)))

        def function(tokens):
            return tf.reduce_mean(tf.tanh(tf.gather(table, tokens)), 1)

        def made():
            return function

        number = 7
    """
    (tmp_path / "tf_nets.py").write_text(textwrap.dedent(source))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "tf_nets", raising=False)
    for name in ("function", "made"):
        done = command("export", "tensorflow", f"tf_nets:{name}", "--input", "tokens=1,12:int32")
        assert done.code == 0, done.err
        assert str(ir.load(f"{name}.onnx").graph.inputs[0]).startswith('%"tokens"')
    done = command("export", "tensorflow", "tf_nets:number", "--input", "1,12")
    assert (done.code, "is neither a function of tensors nor a module" in done.err) == (2, True)
