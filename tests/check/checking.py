"""What the tests of checks share: a model checked under a configuration given as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from epsinas_onnx.check.baseline import Baseline
from epsinas_onnx.check.config import load_config
from epsinas_onnx.check.finding import CheckedModel, Finding
from epsinas_onnx.check.runner import check_one, task_of

ABORTS = """
import os, sys

def hook(event, args):
    if event == "open" and str(args[0]).endswith("{}"):
        os.abort()

sys.addaudithook(hook)
"""
"""A sitecustomize.py by which every process ends that opens a file of that name."""

QUICK = "score = { batch = 8 }\n"


def checked(model: onnx.ModelProto | Path, folder: Path, config: str = QUICK) -> CheckedModel:
    """Check a model, which is written into `folder` where it has no file yet, in this process."""
    path = model if isinstance(model, Path) else folder / "model.onnx"
    if isinstance(model, onnx.ModelProto):
        path.write_bytes(model.SerializeToString())
    file = folder / "epsinas-onnx.toml"
    file.write_text(config)
    settings = load_config(file)
    baseline = None
    if settings.baseline is not None:
        baseline = Baseline.model_validate_json(settings.baseline.read_text())
    return check_one(*task_of(str(path), settings, baseline))


def of(rule: str, findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of one rule."""
    return [finding for finding in findings if finding.rule == rule]


def rules(one: CheckedModel) -> list[str]:
    """Return the rules that found something, once each."""
    return list(dict.fromkeys(finding.rule for finding in one.findings))
