"""What docs/ci.md tells to paste: each file is valid for the program it is for, and its shell steps run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.builders import Done, save
from tests.documentation.pages import ROOT, shown_files
from tests.integrations.test_sample_repository import export, run

_INPUT = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the two models of docs/ci.md, its configuration, and their baseline."""
    folder = tmp_path_factory.mktemp("exported")
    save(export("unfolded"), folder / "models" / "classifier.onnx")
    save(export("default"), folder / "models" / "edge.onnx")
    (folder / "pyproject.toml").write_text(shown_files("docs/ci.md")["pyproject.toml"])
    done = run(folder, "epsinas-onnx", "baseline", "write", "models/")
    assert done.code == 0, done.err
    return folder


def validated(kind: str, text: str, folder: Path) -> Done:
    file = folder / "file.yml"
    file.write_text(text)
    return run(folder, "check-jsonschema", "--builtin-schema", f"vendor.{kind}", str(file))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("github-workflows", ".github/workflows/onnx.yml"), ("gitlab-ci", ".gitlab-ci.yml"), ("github-actions", None)],
)
def test_what_is_to_be_pasted_is_valid_for_its_program(kind: str, name: str | None, tmp_path: Path) -> None:
    text = (ROOT / "action.yml").read_text() if name is None else shown_files("docs/ci.md")[name]
    done = validated(kind, text, tmp_path)
    assert done.code == 0, done.out
    assert validated(kind, text.replace("runs-on:", "run-on:").replace("script:", "scripts:").replace(
        "using:", "use:"), tmp_path).code == 1  # fmt: skip


def test_pre_commit_accepts_the_hook_and_the_configuration_that_uses_it(tmp_path: Path) -> None:
    for command, name, text in (
        ("validate-manifest", "hooks.yaml", (ROOT / ".pre-commit-hooks.yaml").read_text()),
        ("validate-config", "config.yaml", shown_files("docs/ci.md")[".pre-commit-config.yaml"]),
    ):
        (tmp_path / name).write_text(text)
        done = run(tmp_path, "pre-commit", command, name)
        assert done.code == 0, done.out
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    used = yaml.safe_load(shown_files("docs/ci.md")[".pre-commit-config.yaml"])["repos"][0]["hooks"]
    assert {one["id"] for one in used} <= {one["id"] for one in hooks}


class Job:
    """A job of GitHub Actions as far as our action needs it: inputs, environment files, and steps that run in bash."""

    def __init__(self, folder: Path, temporary: Path, **given: str) -> None:
        self.action = yaml.safe_load((ROOT / "action.yml").read_text())
        self.folder, self.temporary = folder, temporary
        declared = {name: one["default"] for name, one in self.action["inputs"].items()}
        assert set(given) <= set(declared), "the workflow gives inputs that the action has not"
        self.inputs = declared | given
        self.summary = temporary / "summary.md"
        self.summary.touch()

    def step(self, name: str) -> Done:
        step = next(one for one in self.action["runs"]["steps"] if one["name"] == name)
        assert "${{" not in step["run"], "an expression in a script would run what an input says"
        values = {key: _INPUT.sub(lambda m: self.inputs[m[1]], text) for key, text in step["env"].items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.folder, capture_output=True, text=True, check=False,
            env={**os.environ, **values, "RUNNER_TEMP": str(self.temporary), "GITHUB_ACTION_PATH": str(ROOT),
                 "GITHUB_STEP_SUMMARY": str(self.summary)},
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def installed(self) -> Job:
        """Put the package of this environment where the action installs it; `.ci/run` installs it for real."""
        if os.environ.get("EPSINAS_INSTALLS"):
            done = self.step("Install epsinas-onnx")
            assert done.code == 0, done.err
        else:
            program = self.temporary / "epsinas-onnx" / "bin" / "epsinas-onnx"
            program.parent.mkdir(parents=True)
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m epsinas_onnx "$@"\n')
            program.chmod(0o755)
        return self


@pytest.mark.slow
def test_the_steps_of_the_action_run_as_the_workflow_asks(exported: Path, tmp_path: Path) -> None:
    workflow = yaml.safe_load(shown_files("docs/ci.md")[".github/workflows/onnx.yml"])
    steps = workflow["jobs"]["check"]["steps"]
    used = next(one for one in steps if one.get("id") == "onnx")
    upload = next(one for one in steps if "sarif" in one["uses"])
    assert upload["with"]["sarif_file"] == "${{ steps.onnx.outputs.sarif }}"
    job = Job(exported, tmp_path, **used["with"]).installed()
    done = job.step("Check the models")
    assert done.code == 1, done.err
    assert "::error file=models/edge.onnx,title=folded-batchnorm::20 BatchNormalizations" in done.out
    assert job.summary.read_text().startswith("### epsinas-onnx check failed")
    sarif = json.loads((exported / job.inputs["sarif"]).read_text())
    assert [one["ruleId"] for one in sarif["runs"][0]["results"] if one["level"] == "error"] == ["folded-batchnorm"]

    other = tmp_path / "other.toml"
    other.write_text("score = { weights = [1e-4, 0.1], batch = 64 }\n")
    lenient = Job(exported, tmp_path, paths="models/edge.onnx models/class*.onnx", config=str(other))
    done = lenient.step("Check the models")
    assert (done.code, "::warning file=models/edge.onnx" in done.out) == (0, True), done.err
    wrong = Job(exported, tmp_path, paths="nowhere/")
    assert wrong.step("Check the models").code == 1  # the file that is not there is a finding


@pytest.mark.slow
def test_the_shell_lines_run(exported: Path) -> None:
    for name in ("check.sh", ".gitlab-ci.yml"):
        text = shown_files("docs/ci.md")[name]
        lines = yaml.safe_load(text)["onnx-check"]["script"] if name.endswith(".yml") else text.splitlines()
        [check] = [line.removeprefix(".venv/bin/") for line in lines if "epsinas-onnx check" in line]
        done = run(exported, "sh", "-ec", check)
        assert done.code == 1, done.err
        assert "error    folded-batchnorm" in done.out
    for written in ("check.xml", "check.sarif", "check.md"):
        assert (exported / written).stat().st_size > 100


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("EPSINAS_INSTALLS"), reason="EPSINAS_INSTALLS asks for no installation")
def test_the_shell_script_installs_the_package_and_runs(exported: Path, tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT))
    assert done.code == 0, done.err
    done = run(exported, "sh", "-ec", shown_files("docs/ci.md")["check.sh"], PIP_FIND_LINKS=str(tmp_path))
    assert done.code == 1, done.err
    assert "error    folded-batchnorm" in done.out


@pytest.mark.slow
def test_the_test_file_passes_beside_the_models(exported: Path) -> None:
    (exported / "test_models.py").write_text(shown_files("docs/ci.md")["test_models.py"])
    done = run(exported, sys.executable, "-m", "pytest", "--onnx", "models/", "-p", "no:cacheprovider")
    assert "1 failed, 2 passed" in done.out, done.out
    assert "folded-batchnorm (error): 20 BatchNormalizations were folded" in done.out


def test_the_page_of_rules_is_what_the_rules_say() -> None:
    written = (ROOT / "docs" / "rules.md").read_text()
    done = run(ROOT, sys.executable, "docs/rules.py")
    assert written == done.out, "write it again: python docs/rules.py > docs/rules.md"
