"""What the tests of all frameworks share: skipping where one is missing, and the scores that all must give."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from epsinas_onnx import Status, score

FILES = Path(__file__).parents[1] / "data" / "same_network.zip"
CONSTANTS = ((1e-2, 0.3), (1e-3, 0.1))


def need(extra: str, *modules: str) -> None:
    """Skip where a framework is missing, and fail there when CI's step for it says that it must be there."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            assert os.environ.get("EPSINAS_FRAMEWORK") != extra, f"{module} should be installed here"
            pytest.skip(f"{module} is not installed: pip install 'epsinas-onnx[{extra}]'", allow_module_level=True)


def stored() -> dict[str, dict[str, bytes]]:
    """Return the exports that are kept in the repository: by network, then by framework."""
    found: dict[str, dict[str, bytes]] = {}
    with zipfile.ZipFile(FILES) as files:
        for name in files.namelist():
            network, framework = name.removesuffix(".onnx").split("-")
            found.setdefault(network, {})[framework] = files.read(name)
    return found


def assert_same_scores(models: Mapping[str, Any], weights: tuple[float, float]) -> None:
    """Compare networks, by name, with what PyTorch's exports of them score."""
    for network, model in models.items():
        options: dict[str, Any] = {"weights": weights, "batch": 16, "providers": "cpu"}
        expected = score(stored()[network]["torch"], **options)
        found = score(model, **options)
        assert (found.status, expected.status) == (Status.OK, Status.OK), (network, found.reason)
        assert not found.warnings, (network, found.warnings)
        assert expected.raw_score
        near = min(1e-4, expected.raw_score / 1000)
        assert found.raw_score == pytest.approx(expected.raw_score, rel=0, abs=near), network


def operators(model: ir.Model) -> list[str]:
    """Return the operators of a graph, in order."""
    return [node.op_type for node in model.graph]


def is_weightless(model: ir.Model) -> bool:
    """Whether a graph stores no floats but a few."""
    stored = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    return all(tensor.size < 64 for tensor in stored if tensor.dtype.is_floating_point())
