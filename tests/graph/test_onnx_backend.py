"""Every operator and model test of the onnx package that holds a weight: read, decided, rewritten, lumped and equal."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.backend.test.case.model import collect_testcases as model_cases
from onnx.backend.test.case.node import collect_testcases as node_cases

from epsinas_onnx import EpsinasError, RunError, fill, inspect, score, strip
from epsinas_onnx.graph.load import load_model

LEARNED = {"weight", "bias", "statistics", "embedding"}
WEIGHTS = (1e-2, 0.1)
SEVERAL = 8  # minibatch of the models that leave it open
FED_LENGTHS = {"test_lstm_with_peepholes": "it is fed sequence lengths, and its sequences have a single step"}


@cache
def cases() -> dict[str, onnx.ModelProto]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute 1/0 and log(0)
        found = [*node_cases(None), *model_cases()]
    files = Path(onnx.__file__).parent / "backend" / "test" / "data"
    stored = {path.parent.name: onnx.load(path) for path in sorted(files.glob("*/*/model.onnx"))}
    return {case.name: case.model for case in found if case.model is not None} | stored


@cache
def with_weights() -> tuple[str, ...]:
    """Return the names of all cases in which a tensor is learned; the others are read, or refused in a sentence."""
    found = []
    for name, model in cases().items():
        try:
            roles = {use.role for use in inspect(model).uses}
        except EpsinasError:
            continue
        if roles & LEARNED:
            found.append(name)
    return tuple(found)


def is_runnable(model: onnx.ModelProto) -> bool:
    """Whether ONNX Runtime runs the model as it is: of recurrent layers it knows one layout, and not every opset."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def test_lumped_equals_plain_and_stripped_equals_both() -> None:
    assert len(cases()) > 2000
    operators = {node.op_type for name in with_weights() for node in cases()[name].graph.node}
    assert len(with_weights()) > 140
    assert operators > {
        "Conv", "ConvTranspose", "DeformConv", "BatchNormalization", "InstanceNormalization", "LayerNormalization",
        "GroupNormalization", "RMSNormalization", "LSTM", "GRU", "RNN", "PRelu", "Gemm", "MatMul",
    }  # fmt: skip
    assert min(entry.version for name in with_weights() for entry in cases()[name].opset_import) < 7
    scored, refused = 0, []
    for name in with_weights():
        model = cases()[name]
        try:
            plain = score(model, weights=WEIGHTS, batch=SEVERAL, providers="cpu", lump=False)
            lumped = score(model, weights=WEIGHTS, batch=SEVERAL, providers="cpu", arithmetic="float32")
        except RunError:
            assert name in FED_LENGTHS or not is_runnable(model), name
            refused.append(name)
            continue
        assert lumped.status == plain.status, name
        if plain.raw_score is not None and lumped.raw_score is not None:
            assert lumped.raw_score == pytest.approx(plain.raw_score, rel=1e-4, abs=1e-5), name
        scored += 1
        for form in (strip(model), strip(model, anonymise=True), fill(model)):
            again = score(form, weights=WEIGHTS, batch=SEVERAL, providers="cpu", arithmetic="float32")
            assert (again.status, again.raw_score) == (lumped.status, lumped.raw_score), name
    assert scored > 20 * len(refused)


def test_no_stored_tensor_is_read_to_be_measured() -> None:
    name = next(name for name in cases() if name.startswith("test_causal_conv_with_state_basic") and "expanded" in name)
    model = load_model(cases()[name]).model
    stored = {str(value.name): value.const_value for value in model.graph.initializers.values()}
    assert not [
        node for node in model.graph if node.op_type == "Shape" and node.inputs[0] is not None
        and node.inputs[0].name in stored
    ]  # fmt: skip
    assert np.isfinite(score(cases()[name], weights=WEIGHTS, providers="cpu").raw_score or 0)
