"""PyTorch modules as weightless graphs: the same function, normalisations kept, no memory for weights, refusals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from epsinas_onnx import inspect, score
from epsinas_onnx.graph.load import load_model
from tests.builders import build, command

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from epsinas_exporters.frameworks import ExportError, ExportWarning  # noqa: E402
from epsinas_exporters.frameworks.pytorch import export_module, find_factory, trace_module  # noqa: E402


class Convolutions(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Two normalisations (one without running statistics), a buffer, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16)
        self.second = torch.nn.Conv2d(16, 16, 3, padding=1)
        self.free = torch.nn.BatchNorm2d(16, track_running_stats=False)
        self.dropout, self.last = torch.nn.Dropout(0.9), torch.nn.Linear(16, 10)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16).view(1, 16, 1, 1))

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.conv(x))) * self.scale
        return self.last(self.dropout(torch.relu(self.free(self.second(x)))).mean((2, 3)))


class Tokens(torch.nn.Module):  # type: ignore[misc,name-defined]
    """An embedding that is tied to the last layer, and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(50, 24)
        self.rnn = torch.nn.GRU(24, 24, batch_first=True)
        self.out = torch.nn.Linear(24, 50, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens: Any, gain: Any) -> Any:
        return self.out(self.rnn(self.table(tokens))[0][:, -1] * gain)


class Stubborn(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: Any) -> Any:
        return x if float(x.sum()) > 0 else -x


def with_weights(model: ir.Model, module: Any) -> onnx.ModelProto:
    """Put a module's parameters where the exported graph has ConstantOfShape."""
    proto = ir.to_proto(model)
    state = {name: tensor.detach().numpy() for name, tensor in module.named_parameters(remove_duplicate=False)}
    for node in list(proto.graph.node):
        if node.output[0] in state:
            proto.graph.node.remove(node)
    for tensor in list(proto.graph.initializer):
        if tensor.name in state:
            proto.graph.initializer.remove(tensor)
    read = {name for node in proto.graph.node for name in node.input}
    stored = [onnx.numpy_helper.from_array(array, name) for name, array in state.items() if name in read]
    proto.graph.initializer.extend(stored)
    return proto


def run(proto: onnx.ModelProto, *arrays: Any) -> Any:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([value.name for value in session.get_inputs()], arrays, strict=True)))[0]


def test_the_graph_computes_what_the_module_does() -> None:
    torch.manual_seed(0)
    module = Convolutions()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = export_module(module, [(1, 3, 8, 8)])
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in module.parameters())
    x = torch.randn(5, 3, 8, 8)
    expected = module.eval()(x).detach().numpy()
    assert run(with_weights(model, module), x.numpy()) == pytest.approx(expected, abs=1e-5)


def test_normalisations_stay_and_no_weight_is_stored() -> None:
    model = export_module(Convolutions, [(1, 3, 8, 8)])
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    stored = {str(v.name): v.const_value for v in model.graph.initializers.values()}
    assert stored["scale"].numpy().ravel() == pytest.approx(np.linspace(0.5, 1.5, 16))  # type: ignore[union-attr]
    assert not [name for name in stored if name.endswith("weight") and stored[name].size >= 16]  # type: ignore[union-attr]
    assert [node.op_type for node in model.graph].count("BatchNormalization") >= 1
    assert "Dropout" not in [node.op_type for node in model.graph]
    roles = {use.role for use in inspect(model).uses}
    assert {"weight", "bias", "statistics"} <= roles
    assert not any("restored" in note for note in inspect(model).warnings)
    assert inspect(model).inputs[0].declared[0] == "batch"


def test_inputs_by_name_tied_weights_and_integers() -> None:
    torch.manual_seed(0)
    module = Tokens()
    shapes = {"tokens": torch.zeros(1, 7, dtype=torch.int64), "gain": torch.ones(1, 24)}
    model = export_module(module, shapes)
    assert [value.name for value in model.graph.inputs] == ["tokens", "gain"]
    tokens, gain = torch.randint(0, 50, (4, 7)), torch.randn(4, 24)
    expected = module.eval()(tokens, gain).detach().numpy()
    assert run(with_weights(model, module), tokens.numpy(), gain.numpy()) == pytest.approx(expected, abs=1e-5)
    assert load_model(model).name == "<ir.Model>"
    embedding, weight = ([use for use in inspect(model).uses if use.role == role] for role in ("embedding", "weight"))
    assert len(embedding) == 1
    assert len(weight) == 3


def test_a_recurrent_layer_whose_weights_are_cut_up_by_the_shape_of_its_state() -> None:
    class Recurrent(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = torch.nn.LSTM(8, 16, batch_first=True), torch.nn.Linear(16, 5)

        def forward(self, x: Any) -> Any:
            return self.out(self.rnn(x)[0][:, -1])

    graph = (
        "(float[N,12,8] x) => (float[N,5] y) { t = Transpose <perm = [1, 0, 2]> (x)"
        "  all, last, state = LSTM <hidden_size = 16> (t, W, R, B)  s = Squeeze(last, zero)  y = Gemm(s, V, b) }"
    )
    by_hand = build(graph, W=(1, 64, 8), R=(1, 64, 16), B=(1, 128), V=(16, 5), b=(5,), zero=np.array([0]))
    options: dict[str, Any] = {"weights": (1e-2, 0.3), "batch": 16, "providers": "cpu"}
    ours, theirs = score(export_module(Recurrent, [(1, 12, 8)]), **options), score(by_hand, **options)
    assert (ours.status, ours.parameters) == (theirs.status, theirs.parameters)
    assert ours.raw_score == pytest.approx(theirs.raw_score, rel=1e-5)
    assert ours.raw_score


def test_billions_of_parameters_take_no_memory() -> None:
    def enormous() -> Any:
        return torch.nn.Sequential(*(torch.nn.Linear(16384, 16384, bias=False) for _ in range(26)))

    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = export_module(enormous, [(1, 16384)])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert inspect(model).parameters == 26 * 16384**2
    assert grown < 26 * 16384**2  # bytes: a quarter of what the weights would take
    assert len(ir.to_proto(model).SerializeToString()) < 50_000


def test_the_score_is_that_of_an_export_by_hand(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = export_module(Convolutions, [(1, 3, 16, 16)])
    stored = with_weights(ours, Convolutions())
    options: dict[str, Any] = {"weights": (1e-3, 0.5), "batch": 8, "inputs": "normal", "providers": "cpu"}
    one, other = score(ours, **options), score(stored, **options)
    assert (one.status, one.raw_score, one.parameters) == (other.status, other.raw_score, other.parameters)


def test_what_cannot_be_exported_ends_in_a_sentence() -> None:
    with pytest.raises(ExportError, match=r"^Stubborn cannot be exported: ") as caught:
        export_module(Stubborn(), [(1, 3)])
    assert "\n" not in str(caught.value)

    def broken() -> Any:
        raise KeyError("width")

    with pytest.raises(ExportError, match="thing cannot be built: 'width'"):
        export_module(broken, [(1, 3)], name="thing")
    for text, part in {"nothing": "names no network", "os:nothing": "has no 'nothing'", "no.such:thing": "No module",
                       "os:sep": "is neither a module nor"}.items():  # fmt: skip
        with pytest.raises(ExportError, match=part):
            find_factory(text)


class Counting(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Makes a tensor with data of its own while it runs, which the meta device would lose."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Linear(6, 20)

    def forward(self, *values: Any) -> Any:
        steps = torch.arange(6, device="cpu") / 6
        return self.last(torch.tanh(values[0] * steps + values[1]))


def test_a_module_that_makes_tensors_while_it_runs_is_traced_on_the_cpu() -> None:
    with pytest.raises(ExportError):
        trace_module(Counting, [(1, 6), (1, 6)], devices=["meta"])
    module, arrays = Counting(), [np.random.default_rng(0).random((5, 6), np.float32) for _ in range(2)]
    exported = export_module(Counting, [(1, 6), (1, 6)])
    assert [str(value.shape) for value in exported.graph.inputs] == ["[batch,6]"] * 2
    expected = module(*map(torch.from_numpy, arrays)).detach().numpy()
    np.testing.assert_allclose(run(with_weights(exported, module), *arrays), expected, atol=1e-6)


def test_a_batch_that_cannot_be_free_is_fixed_with_a_note() -> None:
    class Fixed(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return torch.tanh(x.reshape(1, 6))

    with pytest.warns(ExportWarning, match="Fixed: the batch is fixed to 1, since with a free one "):
        exported = export_module(Fixed(), [(1, 6)])
    assert str(exported.graph.inputs[0].shape) == "[1,6]"


def test_two_commands_take_a_module_of_ones_own_to_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\ndef network():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    done = command("export", "torch", "mine:network", "--input", "1,8", "-o", "mine.onnx")
    assert (done.code, done.out) == (0, "")
    assert "mine.onnx: " in done.err
    scored = command("score", "mine.onnx", "--format", "csv", "--weights", "0.1,0.5")
    assert ",ok," in scored.out
    assert command("export", "torch", "mine:network", "-o", "x.onnx").code == 2
    for text in ("a", "=1,2", "1,0", "1,8:floaty"):
        refused = command("export", "torch", "mine:network", "--input", text, "-o", "x.onnx")
        assert (refused.code, refused.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("raise ModuleNotFoundError('no torchvision', name='torchvision')", "pip install torchvision$"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist; torchv"),
    ],
)
def test_a_library_that_cannot_be_imported_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, message: str
) -> None:
    (tmp_path / "timm.py").write_text(error)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ExportError, match=message):
        find_factory("timm:resnet50")
