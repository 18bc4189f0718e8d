"""Writes scikit-learn's perceptrons, alone or in a pipeline, as graphs without weights, by skl2onnx."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx_ir as ir
import skl2onnx
from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from epsinas_exporters.frameworks import ExportError, Request
from epsinas_exporters.frameworks.common import call, find, first_line, silent, without_weights


def export_estimator(estimator: BaseEstimator, *, features: int | None = None, name: str | None = None) -> ir.Model:
    """Return a fitted estimator as a graph without weights, with one float32 input of `[batch, features]`.

    estimator: anything that skl2onnx converts; a perceptron (`MLPClassifier`, `MLPRegressor`), alone or at the end of
    a pipeline, has weights to score. It must have been fitted, since `fit` decides how many outputs there are; on
    what does not matter. features: where the estimator does not say it itself. name: of the graph, for reports.

    A classifier's graph ends with the probabilities: the label is left out.

    Raises ExportError where the estimator is not fitted, or cannot be converted.
    """
    label = name or type(estimator).__name__
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise ExportError(
            f"{label} is not fitted, so the number of its outputs is not known; fit it on anything, such as "
            "fit(numpy.random.rand(20, FEATURES), [0, 1] * 10)"
        ) from None
    width = features or getattr(estimator, "n_features_in_", None)
    if not width:
        raise ExportError(f"{label} does not say how many features it takes; give them, such as --input 1,20")
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    try:
        with silent():
            proto = skl2onnx.to_onnx(estimator, np.zeros((1, int(width)), np.float32), options=options)
    except Exception as error:  # skl2onnx raises dozens of kinds
        raise ExportError(f"{label} cannot be exported: {first_line(error)}") from error
    if is_classifier(estimator):
        proto = select_model_inputs_outputs(proto, outputs=[proto.graph.output[-1].name])
    return without_weights(proto, label)


def export_named(request: Request) -> ir.Model:
    """Export a file that joblib or pickle wrote, or what `package.module:attribute` names or makes."""
    path = Path(request.network)
    if path.suffix in (".joblib", ".pkl", ".pickle") or path.is_file():
        found = _loaded(path)
    else:
        found = find(request.network)
        if not isinstance(found, BaseEstimator) and callable(found):
            found = call(found, request.network)
    if not isinstance(found, BaseEstimator):
        raise ExportError(f"{request.network} is no scikit-learn estimator, but a {type(found).__name__}")
    features = request.inputs[0].shape[-1] if request.inputs else None
    return export_estimator(found, features=features, name=path.stem.rpartition(":")[2])


def _loaded(path: Path) -> Any:
    try:
        return joblib.load(path)
    except FileNotFoundError:
        raise ExportError(f"{path} does not exist") from None
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, ImportError, AttributeError, ValueError) as error:
        raise ExportError(f"{path} cannot be loaded: {first_line(error)}") from error
