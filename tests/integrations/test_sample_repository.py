"""A repository as a team has it: models, a configuration, a baseline, and the hook, run by git and pre-commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest

from epsinas_onnx import fill
from tests.builders import Done, save
from tests.check.test_baseline import exported_again

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

CONFIG = """
[tool.epsinas-onnx]
baseline = "models/epsinas-baseline.json"
score = { batch = 16, weights = [1e-4, 0.1] }
"""
HOOK = """
repos:
  - repo: {root}
    rev: {rev}
    hooks:
      - id: epsinas-onnx-check
"""
INSTALLED = "        language: system\n        additional_dependencies: []\n"
"""Lets the hook run the package of this environment; with EPSINAS_INSTALLS, pre-commit installs one, as it does."""


def run(folder: Path, *command: str, **variables: str) -> Done:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    author = {f"GIT_{who}_{what}": "team@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **author, "GIT_CONFIG_GLOBAL": os.devnull, "PATH": path, **variables},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def git(folder: Path, *words: str) -> Done:
    done = run(folder, "git", *words)
    assert done.code == 0, done.out + done.err
    return done


def export(form: str) -> onnx.ModelProto:
    """Return torchvision's ResNet-18 as PyTorch exports it, with weights."""
    with zipfile.ZipFile(ROOT / "tests" / "data" / "folded_exports.zip") as files:
        return fill(files.read(f"torch-resnet18.{form}.onnx"), seed=1)


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a repository with the hook, as pre-commit clones it, and its revision."""
    if os.environ.get("EPSINAS_INSTALLS"):
        return ROOT, git(ROOT, "rev-parse", "HEAD").out.strip()
    folder = tmp_path_factory.mktemp("hooks")
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "hooks")
    return folder, git(folder, "rev-parse", "HEAD").out.strip()


@pytest.fixture
def sample(
    tmp_path: Path, hooks: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a repository with one good export, its baseline, and the hook installed."""
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path_factory.getbasetemp() / "pre-commit"))
    pytest.importorskip("pre_commit", reason="pre-commit is not installed: pip install pre-commit")
    folder = tmp_path / "sample"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "pyproject.toml").write_text(CONFIG)
    hook = HOOK if os.environ.get("EPSINAS_INSTALLS") else HOOK + INSTALLED
    (folder / ".pre-commit-config.yaml").write_text(hook.format(root=hooks[0], rev=hooks[1]))
    save(export("unfolded"), folder / "models" / "classifier.onnx")
    done = run(folder, "epsinas-onnx", "baseline", "write", "models")
    assert done.code == 0, done.err
    done = run(folder, "pre-commit", "install")
    assert done.code == 0, done.out
    git(folder, "add", ".")
    return folder


def commit(folder: Path) -> Done:
    """Commit everything, which runs the hook; pre-commit prints on standard error."""
    git(folder, "add", "-A")
    done = run(folder, "git", "commit", "-m", "models")
    return Done(done.code, " ".join((done.out + done.err).split()), "")


def test_the_gate_lets_through_what_is_unchanged_and_nothing_else(sample: Path) -> None:
    model = sample / "models" / "classifier.onnx"
    done = commit(sample)
    assert (done.code, "check ONNX models" in done.out, "Passed" in done.out) == (0, True, True), done.out

    save(exported_again(fill(model, seed=2)), model)
    done = commit(sample)
    assert (done.code, "Passed" in done.out) == (0, True), f"other weights, names and order: {done.out}"

    changed = onnx.load(model)
    relu = next(node for node in changed.graph.node if node.op_type == "Relu")
    relu.op_type = "Sigmoid"
    save(changed, model)
    done = commit(sample)
    assert done.code == 1
    assert "graph-baseline the graph is not the baseline's" in done.out
    assert "epsinas-onnx baseline write" in done.out

    assert run(sample, "epsinas-onnx", "baseline", "write", "models").code == 0
    assert commit(sample).code == 0, "a change that is meant passes with its baseline"


@pytest.mark.exhaustive  # that the hook runs, and fails, is seen above
def test_folded_batchnorm_is_reported_with_its_fix_and_fails_where_the_team_asks_for_it(sample: Path) -> None:
    save(export("default"), sample / "models" / "folded.onnx")
    assert run(sample, "epsinas-onnx", "baseline", "write", "models").code == 0
    done = run(sample, "epsinas-onnx", "check", "models")
    assert done.code == 0
    text = " ".join(done.out.split())
    assert "warning folded-batchnorm 20 BatchNormalizations were folded into the layers in front" in text
    assert "fix: Export without the optimisation that folds: " in text
    git(sample, "add", "-A")

    with (sample / "pyproject.toml").open("a") as file:
        file.write('[tool.epsinas-onnx.rules]\nfolded-batchnorm = "error"\n')
    done = run(sample, "pre-commit", "run", "--all-files")
    assert done.code == 1
    assert "folded-batchnorm" in done.out
    assert "classifier.onnx" not in done.out

    with (sample / "pyproject.toml").open("a") as file:
        file.write('[[tool.epsinas-onnx.ignore]]\nrule = "folded-batchnorm"\npath = "models/folded.onnx"\n'
                   'reason = "the device wants it folded"\n')  # fmt: skip
    assert run(sample, "pre-commit", "run", "--all-files").code == 0
