"""TorchScript files as weightless graphs: normalisations with and without running statistics, refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from epsinas_onnx import score
from tests.builders import command
from tests.exporters.agreement import CONSTANTS, assert_same_scores, is_weightless, need, operators

need("torch", "torch", "onnxscript")
import torch  # noqa: E402

import same_network  # noqa: E402
from epsinas_exporters.frameworks import ExportError, ExportWarning, Input  # noqa: E402
from epsinas_exporters.frameworks.pytorch import export_module  # noqa: E402
from epsinas_exporters.frameworks.torchscript import convert, export_script  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
WAYS = {"script": torch.jit.script, "trace": lambda module: torch.jit.trace(module, torch.rand(2, 3, 8, 8))}


class Normalised(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A convolution, a normalisation of any kind, dropout."""

    def __init__(self, **kind: bool) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8, eps=1e-3, **kind)
        self.dropout, self.last = torch.nn.Dropout(0.9), torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.dropout(torch.tanh(self.norm(self.conv(x)))).mean((2, 3)))


def run(proto: onnx.ModelProto, array: Any) -> Any:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: array})[0]


KINDS = [{"track_running_stats": tracked, "affine": learned} for tracked in (True, False) for learned in (True, False)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_normalisation_of_any_kind_computes_what_the_module_does(way: str, kind: dict[str, bool]) -> None:
    module = Normalised(**kind).eval()
    x = torch.rand(6, 3, 8, 8)
    proto = convert(WAYS[way](module), [Input((2, 3, 8, 8))])
    np.testing.assert_allclose(run(proto, x.numpy()), module(x).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_score_is_that_of_the_module(kind: dict[str, bool]) -> None:
    module = Normalised(**kind).eval()
    exported = [export_script(way(module), [(2, 3, 8, 8)]) for way in WAYS.values()]
    options: dict[str, Any] = {"weights": (1e-2, 0.3), "batch": 16, "inputs": "normal"}
    expected = score(export_module(module, [(1, 3, 8, 8)]), **options)
    for model in exported:
        assert operators(model).count("BatchNormalization") == 1
        found = score(model, **options)
        assert found.status == expected.status
        assert found.parameters == expected.parameters
        assert found.score == pytest.approx(expected.score, rel=1e-4)


def test_the_same_networks_score_the_same() -> None:
    networks = same_network.from_torchscript()
    for weights in CONSTANTS:
        assert_same_scores(networks, weights)


def test_a_control_flow_survives_and_the_module_stays_as_it_was() -> None:
    class Repeated(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(int(x.shape[1]) // 2):
                x = torch.tanh(self.inner(x))
            return x

    script = torch.jit.script(Repeated().eval())
    before = copy.deepcopy(script.state_dict())
    exported = export_script(script, [(1, 6)])
    assert all(torch.equal(tensor, script.state_dict()[key]) for key, tensor in before.items())
    assert score(exported, weights=(1e-2, 0.3), batch=16).score is not None


def test_a_file_is_exported_from_the_command_line(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Normalised(track_running_stats=False)), tmp_path / "net.pt")
    done = command("export", "torchscript", str(tmp_path / "net.pt"), "--input", "1,3,8,8", "-o", str(tmp_path))
    assert done.code == 0, done.err
    model = ir.load(tmp_path / "net.onnx")
    assert is_weightless(model)
    assert str(model.graph.inputs[0].shape) == "[batch,3,8,8]"


def test_what_is_no_torchscript_is_refused_in_a_sentence(tmp_path: Path) -> None:
    torch.save(Normalised().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ExportError, match=r"weights\.pt is no TorchScript.*use export torch"):
        export_script(tmp_path / "weights.pt", [(1, 3, 8, 8)])
    with pytest.raises(ExportError, match=r"nothing\.pt does not exist"):
        export_script(tmp_path / "nothing.pt", [(1, 3, 8, 8)])
    with pytest.raises(ExportError, match="torch has no element type 'float7'"):
        export_script(torch.jit.script(Normalised()), [Input((1, 3, 8, 8), "float7")])
    done = command("export", "torchscript", str(tmp_path / "weights.pt"), "-o", str(tmp_path))
    assert done.code == 2
    assert "give the shapes of its inputs" in done.err


def test_a_frozen_module_says_that_its_normalisations_may_be_gone() -> None:
    frozen = torch.jit.freeze(torch.jit.script(Normalised().eval()))
    with pytest.warns(ExportWarning, match="no parameters, as torch.jit.freeze leaves it"):
        exported = export_script(frozen, [(2, 3, 8, 8)])
    assert "BatchNormalization" not in operators(exported)
