"""scikit-learn's perceptrons as weightless graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from epsinas_onnx import score
from tests.builders import command
from tests.exporters.agreement import CONSTANTS, assert_same_scores, is_weightless, need

need("sklearn", "sklearn", "skl2onnx")
import joblib  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

import same_network  # noqa: E402
from epsinas_exporters.frameworks import ExportError  # noqa: E402
from epsinas_exporters.frameworks.sklearn import export_estimator  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
FEATURES, CLASSES = np.random.default_rng(0).random((30, 8)), np.arange(30) % 3


def fitted(estimator: Any) -> Any:
    return estimator.fit(FEATURES, CLASSES)


@pytest.mark.parametrize("weights", CONSTANTS)
def test_the_same_network_scores_the_same(weights: tuple[float, float]) -> None:
    assert_same_scores(same_network.from_sklearn(), weights)


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_a_classifier_ends_with_its_probabilities(in_pipeline: bool) -> None:
    network = MLPClassifier((16, 12), activation="logistic", max_iter=2)
    model = export_estimator(fitted(make_pipeline(StandardScaler(), network) if in_pipeline else network))
    assert [value.name for value in model.graph.outputs] == ["probabilities"]
    assert is_weightless(model)
    found = score(model, weights=(1e-2, 0.3), batch=16)
    assert found.score is not None, found.reason
    assert found.parameters == 8 * 16 + 16 + 16 * 12 + 12 + 12 * 3 + 3


def test_what_cannot_be_exported_is_refused_in_a_sentence() -> None:
    with pytest.raises(ExportError, match=r"MLPClassifier is not fitted.*fit it on anything"):
        export_estimator(MLPClassifier())


def test_a_file_from_the_command_line(tmp_path: Path) -> None:
    joblib.dump(
        MLPRegressor(hidden_layer_sizes=(16,), max_iter=2).fit(FEATURES, FEATURES[:, :2]), tmp_path / "net.joblib"
    )
    done = command("export", "sklearn", str(tmp_path / "net.joblib"), "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert is_weightless(ir.load(tmp_path / "out" / "net.onnx"))
    joblib.dump([1, 2], tmp_path / "list.joblib")
    (tmp_path / "broken.pkl").write_bytes(b"nothing")
    for name, message in (
        ("list.joblib", "is no scikit-learn estimator, but a list"),
        ("broken.pkl", "broken.pkl cannot be loaded"),
        ("lost.joblib", "lost.joblib does not exist"),
        ("json:loads", "cannot be built"),
    ):
        done = command("export", "sklearn", name if ":" in name else str(tmp_path / name))
        assert (done.code, message in done.err) == (2, True), done.err
