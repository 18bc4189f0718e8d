"""The files of models/: made by their script, sound, weightless, and with the parameter counts that are published."""

from __future__ import annotations

import runpy
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from epsinas_exporters import classics
from epsinas_onnx import Status, inspect, score

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "models").glob("*.onnx"))
EXPORTED = sorted((ROOT / "models" / "frameworks").glob("*.onnx"))


def test_there_are_at_least_twelve() -> None:
    assert len(FILES) >= 12


def test_the_script_writes_the_same_files(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "exporters" / "make_models.py"))["main"](tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*.onnx")}
    assert made == {path.name: path.read_bytes() for path in FILES}


@pytest.mark.parametrize("path", FILES + EXPORTED, ids=lambda path: path.stem)
def test_a_file_is_sound_and_holds_no_weights(path: Path) -> None:
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert max((len(tensor.raw_data) for tensor in proto.graph.initializer), default=0) <= 64


def test_the_readme_of_the_folder_names_every_file() -> None:
    text = (ROOT / "models" / "README.md").read_text()
    assert [path.name for path in FILES + EXPORTED if path.name not in text] == []


def test_the_exports_of_one_network_have_one_score() -> None:
    exported = [path for path in EXPORTED if path.stem.startswith("cnn-")]
    assert len(exported) == 6
    scores = [score(path, batch=64).score for path in exported]
    assert scores == [pytest.approx(scores[0], rel=1e-5)] * 6


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (classics.resnet50(), 25_557_032),  # torchvision's resnet50
        (classics.mobilenet_v2(), 3_504_872),  # torchvision's mobilenet_v2
        (classics.mlp((784, 512, 256, 10)), 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10),
    ],
    ids=["resnet50", "mobilenet_v2", "mlp"],
)
def test_parameter_counts_are_the_published_ones(model: ir.Model, parameters: int) -> None:
    assert inspect(model).parameters == parameters


@pytest.mark.parametrize(
    ("name", "status", "published"),
    [
        ("nb201-p-c1-s-c1-s-s", Status.OK, Status.OK),
        ("nb201-s-s-s-s-s-s", Status.OK, Status.OK),
        ("nb201-c1-n-c1-n-n-c3", Status.OK, Status.UNDERFLOW),
        ("nb201-n-n-n-n-n-n", Status.CONSTANT, Status.CONSTANT),
        ("nb201-c3-n-n-n-n-c3", Status.CONSTANT, Status.CONSTANT),
        ("mlp", Status.OK, Status.NOISE),
        ("transformer", Status.CONSTANT, Status.NOISE),
    ],
)
def test_each_kind_gets_its_status(name: str, status: Status, published: Status) -> None:
    result = score(ROOT / "models" / f"{name}.onnx", batch=32)
    assert result.status is status, result.reason
    assert result.float32_status is published
    assert (result.reason is None) == (status is Status.OK)
