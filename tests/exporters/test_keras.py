"""Keras models as weightless graphs, on the backend that is installed."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from epsinas_onnx import inspect, score
from tests.builders import command
from tests.exporters.agreement import CONSTANTS, assert_same_scores, is_weightless, need, operators

need("keras", "keras")
import same_network  # noqa: E402
from epsinas_exporters.frameworks import ExportError, Input  # noqa: E402
from epsinas_exporters.frameworks import keras as exporter  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
keras = exporter.keras
layers = keras.layers
OPTIONS: dict[str, Any] = {"weights": (1e-2, 0.3), "batch": 16, "inputs": "normal"}


class Subclassed(keras.Model):  # type: ignore[misc]
    """A model that knows its shapes only when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = layers.Conv2D(8, 3), layers.BatchNormalization(), layers.Dense(3)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.last(keras.ops.mean(keras.ops.tanh(self.norm(self.conv(x), training=training)), (1, 2)))


def learned(model: Any) -> int:
    """Count what is trained."""
    return int(sum(keras.ops.convert_to_numpy(variable).size for variable in model.trainable_variables))


def convolutions(rank: int, **kind: Any) -> Any:
    """Return a network with a normalisation of any kind behind a layer of that rank, dropout, and a head."""
    layer: Any = {2: layers.Dense(6), 3: layers.Conv1D(6, 3), 4: layers.Conv2D(6, 3), 5: layers.Conv3D(6, 3)}[rank]
    given = layers.Input((8,) * (rank - 2) + (4,))
    x = layers.Activation("tanh")(layers.BatchNormalization(**kind)(layer(given)))
    return keras.Model(given, layers.Dense(5)(layers.Dropout(0.9)(layers.Flatten()(x))))


@pytest.mark.parametrize("weights", CONSTANTS)
def test_the_same_networks_score_the_same(weights: tuple[float, float]) -> None:
    assert_same_scores(same_network.from_keras(), weights)


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}], ids=str)
def test_a_normalisation_of_any_kind_stays_one(rank: int, kind: dict[str, bool]) -> None:
    model = convolutions(rank, epsilon=3e-3, **kind)
    exported = exporter.export_model(model)
    norms = [node for node in exported.graph if node.op_type == "BatchNormalization"]
    assert [node.attributes["epsilon"].as_float() for node in norms] == [pytest.approx(3e-3)]
    assert is_weightless(exported)
    assert "Dropout" not in operators(exported)
    found = score(exported, **OPTIONS)
    assert found.score is not None, found.reason
    assert not found.warnings
    assert found.parameters == learned(model)


def test_channels_may_come_first() -> None:
    given = layers.Input((4, 8, 8))
    x = layers.BatchNormalization(axis=1)(layers.Activation("tanh")(given))
    exported = exporter.export_model(keras.Model(given, layers.Dense(3)(layers.Flatten()(x))))
    assert operators(exported).count("BatchNormalization") == 1


def test_inputs_keep_their_names_types_and_free_batch() -> None:
    a, b = layers.Input((12,), name="words", dtype="int32"), layers.Input((4,), name="extra")
    words = layers.GlobalAveragePooling1D()(layers.Embedding(30, 16)(a))
    model = keras.Model({"words": a, "extra": b}, layers.Dense(3, "tanh")(layers.Concatenate()([words, b])))
    exported = exporter.export_model(model)
    assert sorted((str(one.name), str(one.shape)) for one in exported.graph.inputs) == [
        ("extra", "[batch,4]"), ("words", "[batch,12]")
    ]  # fmt: skip
    tokens = {one.name: one.tokens for one in inspect(exported).inputs}
    assert tokens == {"words": 30, "extra": None}
    assert score(exported, weights=(1e-2, 0.3), batch=16).parameters == learned(model)


def test_a_model_that_does_not_know_its_shapes_asks_for_them() -> None:
    with pytest.raises(ExportError, match="give their shapes, batch first"):
        exporter.export_model(Subclassed())
    exported = exporter.export_model(Subclassed(), [(1, 12, 12, 3)])
    assert operators(exported).count("BatchNormalization") == 1
    free = keras.Sequential([layers.Input((None, 8)), layers.LSTM(4)])
    with pytest.raises(ExportError, match=r"has free sizes, 1,\?,8; give them by --input"):
        exporter.export_model(free)
    assert score(exporter.export_model(free, [Input((1, 6, 8))]), **OPTIONS).score is not None


def test_another_backend_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ExportError, match=r"Keras runs on jax.*set KERAS_BACKEND to torch or tensorflow"):
        exporter.export_model(convolutions(2))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_is_exported_from_the_command_line(suffix: str, tmp_path: Path) -> None:
    model = convolutions(4)
    model.save(tmp_path / f"net{suffix}")
    done = command("export", "keras", str(tmp_path / f"net{suffix}"), "-o", str(tmp_path))
    assert done.code == 0, done.err
    exported = ir.load(tmp_path / "net.onnx")
    assert is_weightless(exported)
    plain = score(exporter.export_model(model), **OPTIONS)
    assert score(exported, **OPTIONS).score == pytest.approx(plain.score, rel=1e-6)


def test_a_factory_of_ones_own_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import keras

        def made():
            return keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(3)])

        number = 7
    """
    (tmp_path / "keras_nets.py").write_text(textwrap.dedent(source))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "keras_nets", raising=False)
    assert command("export", "keras", "keras_nets:made").code == 0
    assert score("made.onnx", **OPTIONS).parameters == 8 * 16 + 16 + 16 * 3 + 3
    (tmp_path / "broken.keras").write_bytes(b"nothing")
    for name, message in (
        ("keras_nets:number", "is no Keras model, but a int"),
        ("broken.keras", "broken.keras cannot be loaded"),
        ("lost.keras", "lost.keras does not exist"),
    ):
        done = command("export", "keras", name)
        assert (done.code, message in done.err) == (2, True), done.err
