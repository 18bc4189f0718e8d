"""What docs/ci.md tells of: `exports` puts two exports of ResNet-18 into models/, `sigmoid` changes one of them."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import onnx

ROOT = Path(__file__).parents[2]
CLASSIFIER, OLD = Path("models/classifier.onnx"), Path("old.onnx")


def exports() -> None:
    """Write the two models: with its normalisations, and with these folded away."""
    with zipfile.ZipFile(ROOT / "tests" / "data" / "folded_exports.zip") as files:
        for path, form in ((CLASSIFIER, "unfolded"), (Path("models/edge.onnx"), "default")):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(files.read(f"torch-resnet18.{form}.onnx"))


def sigmoid() -> None:
    """Put a Sigmoid in place of the first ReLU, and keep the model as it was."""
    shutil.copy(CLASSIFIER, OLD)
    model = onnx.load(CLASSIFIER)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
    onnx.save(model, CLASSIFIER)


if __name__ == "__main__":
    {"exports": exports, "sigmoid": sigmoid}[sys.argv[1]]()
