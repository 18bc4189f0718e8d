"""Hugging Face transformers as weightless graphs, from configurations alone."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from epsinas_onnx import inspect, score
from tests.builders import command
from tests.exporters.agreement import is_weightless, need

need("transformers", "transformers", "torch", "onnxscript")
import torch  # noqa: E402
import transformers  # noqa: E402

from epsinas_exporters.frameworks import ExportError, Request, huggingface  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 90}


@pytest.fixture(autouse=True)
def _nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("kind", ["bert", "llama", "roberta", "qwen2"])
def test_a_model_type_with_sizes_has_the_parameters_of_the_model(kind: str) -> None:
    sizes = SMALL | ({"num_key_value_heads": 2} if kind in ("llama", "qwen2") else {})
    exported = huggingface.export_named(Request(kind, sizes=sizes))
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **sizes))
    pooler = sum(one.numel() for name, one in model.named_parameters() if name.startswith("pooler"))
    assert is_weightless(exported)
    assert str(exported.graph.inputs[0].shape) == "[batch,64]"
    assert [one.tokens for one in inspect(exported).inputs] == [90]
    found = score(exported, weights=(1e-3, 0.1), batch=4)
    # The pooler's result is not what is compared; which rows of the table of places are read makes no difference
    assert found.parameters == pytest.approx(sum(one.numel() for one in model.parameters()) - pooler, abs=66)


def test_an_encoder_with_a_decoder_gets_tokens_for_both() -> None:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 90}
    exported = huggingface.export_named(Request("t5", sizes=sizes))
    assert [one.name for one in exported.graph.inputs] == ["input_ids", "decoder_input_ids"]
    assert score(exported, weights=(1e-3, 0.1), batch=8).score is not None


def test_a_configuration_file_and_a_class_from_the_command_line(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "model_type": "resnet", "hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 8, "num_channels": 3,
        "architectures": ["ResNetForImageClassification"], "id2label": {"0": "a", "1": "b", "2": "c"},
    }  # fmt: skip
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config))
    done = command("export", "transformers", str(tmp_path / "tiny"), "--input", "pixel_values=1,3,64,64",
                   "-o", str(tmp_path / "out.onnx"))  # fmt: skip
    assert done.code == 0, done.err
    exported = ir.load(tmp_path / "out.onnx")
    assert str(exported.graph.inputs[0].shape) == "[batch,3,64,64]"
    assert exported.graph.outputs[0].shape is not None
    assert exported.graph.outputs[0].shape[-1] == 3
    plain = f"{tmp_path / 'tiny'}:AutoModel"
    assert command("export", "transformers", plain, "--input", "pixel_values=1,3,64,64", "-o", str(tmp_path)).code == 0


def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="write a model type such as bert"):
        huggingface.export_named(Request("no-such-type"))
    with pytest.raises(ExportError, match=r"bert has no size 'width'; it has .*hidden_size"):
        huggingface.export_named(Request("bert", sizes={"width": 7}))
    with pytest.raises(ExportError, match="transformers has no class 'AutoNothing'"):
        huggingface.export_named(Request("bert:AutoNothing", sizes=SMALL))
    with pytest.raises(ExportError, match="bert cannot be built: "):
        huggingface.export_named(Request("bert", sizes=SMALL | {"num_attention_heads": 5}))
    done = command("export", "transformers", "bert", "--input", "1,16:int64", "-o", str(tmp_path))
    assert (done.code, "name its inputs, such as --input input_ids=1,64:int64" in done.err) == (2, True)
