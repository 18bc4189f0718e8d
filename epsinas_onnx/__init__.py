"""epsinas-onnx: training-free scores for any ONNX network. See `score`, `score_many` and `Score`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from epsinas_onnx.versions import __version__ as __version__

if TYPE_CHECKING:
    from epsinas_onnx.compare.diff import Difference, diff
    from epsinas_onnx.compare.inspect import Inspection, inspect
    from epsinas_onnx.constants.choose import PairCoverage
    from epsinas_onnx.constants.find import find_weights
    from epsinas_onnx.constants.result import FoundWeights
    from epsinas_onnx.edit.fill import fill
    from epsinas_onnx.edit.rewrite import rewrite
    from epsinas_onnx.edit.strip import strip
    from epsinas_onnx.errors import (
        EpsinasError,
        MissingRuntime,
        ModelError,
        OutOfMemory,
        OutputError,
        RunError,
        ShapeError,
        UnsupportedError,
        UsageError,
    )
    from epsinas_onnx.explanation.api import explain
    from epsinas_onnx.explanation.result import Explanation
    from epsinas_onnx.proxies.measure import measure
    from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
    from epsinas_onnx.ranking.api import rank
    from epsinas_onnx.ranking.result import RankedSet
    from epsinas_onnx.report.dataframe import to_dataframe
    from epsinas_onnx.scoring.api import score, score_many
    from epsinas_onnx.scoring.metric import normalised_dispersion
    from epsinas_onnx.scoring.result import Score, Status
    from epsinas_onnx.store.store import Store

# Names are loaded when they are used: onnx-ir and its symbolic algebra alone take half a second to import.
_HOME = {
    "Difference": "compare.diff",
    "EpsinasError": "errors",
    "Explanation": "explanation.result",
    "FoundWeights": "constants.result",
    "Inspection": "compare.inspect",
    "Measurement": "proxies.measurement",
    "MeasurementStatus": "proxies.measurement",
    "MissingRuntime": "errors",
    "ModelError": "errors",
    "OutOfMemory": "errors",
    "OutputError": "errors",
    "PairCoverage": "constants.choose",
    "RankedSet": "ranking.result",
    "RunError": "errors",
    "Score": "scoring.result",
    "ShapeError": "errors",
    "Status": "scoring.result",
    "Store": "store.store",
    "UnsupportedError": "errors",
    "UsageError": "errors",
    "diff": "compare.diff",
    "explain": "explanation.api",
    "fill": "edit.fill",
    "find_weights": "constants.find",
    "inspect": "compare.inspect",
    "measure": "proxies.measure",
    "normalised_dispersion": "scoring.metric",
    "rank": "ranking.api",
    "rewrite": "edit.rewrite",
    "score": "scoring.api",
    "score_many": "scoring.api",
    "strip": "edit.strip",
    "to_dataframe": "report.dataframe",
}

__all__ = [
    "Difference",
    "EpsinasError",
    "Explanation",
    "FoundWeights",
    "Inspection",
    "Measurement",
    "MeasurementStatus",
    "MissingRuntime",
    "ModelError",
    "OutOfMemory",
    "OutputError",
    "PairCoverage",
    "RankedSet",
    "RunError",
    "Score",
    "ShapeError",
    "Status",
    "Store",
    "UnsupportedError",
    "UsageError",
    "diff",
    "explain",
    "fill",
    "find_weights",
    "inspect",
    "measure",
    "normalised_dispersion",
    "rank",
    "rewrite",
    "score",
    "score_many",
    "strip",
    "to_dataframe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
