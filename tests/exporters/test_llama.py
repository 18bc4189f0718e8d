"""The Llama builder: sound, small on disk, with the published number of parameters, and it runs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from epsinas_exporters import classics
from epsinas_onnx import Status, inspect, score


def test_the_default_has_seven_billion_parameters_in_a_small_file(tmp_path: Path) -> None:
    model = classics.llama()
    assert inspect(model, batch=2, shapes={"sequence": 8}).parameters == 6_738_415_616  # Llama-2-7b
    ir.save(model, tmp_path / "llama.onnx")
    assert (tmp_path / "llama.onnx").stat().st_size < 130_000


def test_shared_heads_of_keys_and_values_have_fewer_parameters() -> None:
    whole, shared = (inspect(_tiny(kv_heads)).parameters for kv_heads in (4, 2))
    assert whole - shared == 2 * 2 * 64 * 32  # two layers, keys and values, half the heads


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_it_runs(kv_heads: int) -> None:
    result = score(_tiny(kv_heads), lump=False, batch=4, shapes={"sequence": 8})
    assert result.status is Status.NOISE  # as with every transformer: a normalisation takes equal features' size away
    assert result.raw_score is not None
    assert math.isfinite(result.raw_score)


def test_a_token_does_not_see_those_behind_it() -> None:
    model = ir.to_proto(_tiny(2))
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(0)
    for node in model.graph.node:  # random weights: equal ones would hide what attention does
        if node.op_type == "ConstantOfShape":
            shape = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[0])
            array = rng.normal(0, 0.1, onnx.numpy_helper.to_array(shape)).astype(np.float32)
            node.CopyFrom(onnx.helper.make_node("Constant", [], node.output, value=onnx.numpy_helper.from_array(array)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tokens = np.asarray([[1, 2, 3, 4, 5]])
    changed = np.asarray([[1, 2, 3, 9, 5]])
    before, after = (session.run(None, {"input_ids": ids})[0] for ids in (tokens, changed))
    np.testing.assert_allclose(before[:, :3], after[:, :3], rtol=1e-5, atol=1e-5)
    assert np.abs(before[:, 3:] - after[:, 3:]).max(axis=2).min() > 1e-3


def _tiny(kv_heads: int) -> ir.Model:
    return classics.llama(layers=2, width=64, heads=4, hidden=96, vocabulary=50, kv_heads=kv_heads)
