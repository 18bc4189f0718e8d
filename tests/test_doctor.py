"""`doctor` says what runs, what does not and why, and what is slow, on machines of all kinds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import onnxruntime
import pytest
from typer.testing import CliRunner

from epsinas_onnx.cli.main import app
from epsinas_onnx.doctor import examination, providers
from epsinas_onnx.doctor.examination import Examination, Level, _findings, examine
from epsinas_onnx.doctor.providers import ProviderState
from epsinas_onnx.errors import MissingRuntime
from epsinas_onnx.runtime import cores
from epsinas_onnx.runtime.libraries import CUDA
from epsinas_onnx.runtime.providers import CPU
from epsinas_onnx.versions import versions


@pytest.fixture(scope="module")
def found() -> Examination:
    return examine()


def test_this_machine_works_and_its_facts_are_those_of_others(found: Examination) -> None:
    assert found.works
    assert {name: found.packages[name] for name in versions()} == dict(versions())
    assert [state.name for state in found.providers if state.works] == [CPU]
    assert found.cores >= 1
    assert sum(found.score_seconds.values()) > 0
    assert found.gigaflops > 0


def test_the_record_is_json_and_says_the_same_as_the_text() -> None:
    told = CliRunner().invoke(app, ["doctor", "--json"])
    assert told.exit_code == 0
    record = json.loads(told.output)
    assert record["packages"]["onnxruntime"] == onnxruntime.__version__
    shown = CliRunner().invoke(app, ["doctor"])
    assert f"onnxruntime {onnxruntime.__version__}" in shown.output
    assert f"{CPU}: runs" in shown.output


def test_without_a_runtime_it_says_which_command_to_run_and_fails() -> None:
    with mock.patch.object(examination, "try_providers", side_effect=MissingRuntime("run 'pip install x'")):
        told = CliRunner().invoke(app, ["doctor"])
    assert told.exit_code == 3
    assert "error: run 'pip install x'" in told.output


class FallsBack:
    """A session that was asked for CUDA and runs on the CPU, as ONNX Runtime does where libraries are missing."""

    def __init__(self, graph: bytes, options: Any, providers: list[str]) -> None:
        if providers == ["TensorrtExecutionProvider"]:
            raise RuntimeError("libnvinfer.so.10: cannot open\n shared object file")
        self._session = onnxruntime.InferenceSession(graph, providers=[CPU])

    def get_providers(self) -> list[str]:
        return [CPU]

    def run(self, names: Any, feeds: Any) -> Any:
        return self._session.run(names, feeds)


def test_a_provider_that_is_listed_and_cannot_load_is_told_from_one_that_runs() -> None:
    fake = SimpleNamespace(
        get_available_providers=lambda: ["TensorrtExecutionProvider", CUDA, CPU], InferenceSession=FallsBack,
        SessionOptions=onnxruntime.SessionOptions,
    )  # fmt: skip
    with (
        mock.patch.object(providers, "runtime", return_value=fake),
        mock.patch.object(providers, "missing", return_value=None),
    ):
        states = {state.name: state for state in providers.try_providers()}
    assert states[CPU].works
    assert not states[CUDA].works
    assert "fell back" in str(states[CUDA].reason)
    reason = states["TensorrtExecutionProvider"].reason
    assert reason is not None
    assert "libnvinfer.so.10" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("change", "level", "word"),
    [
        ({"providers": (ProviderState(CPU, False, "broken", None),)}, Level.ERROR, "broken"),
        ({"providers": (ProviderState(CUDA, False, "no driver", None),)}, Level.WARNING, "no driver"),
        ({"packages": {"onnxruntime": "1", "onnxruntime-gpu": "1"}}, Level.WARNING, "pip uninstall"),
        ({"packages": {"onnxruntime-gpu": "1"}}, Level.WARNING, CUDA),
        ({"cores": 8, "quota": 1.5}, Level.SLOW, "--jobs 1"),
        ({"memory": 2**20}, Level.SLOW, "1 MiB"),
        ({"import_seconds": 30.0}, Level.SLOW, "30.0 s"),
        ({"gigaflops": 0.1}, Level.SLOW, "0.1 thousand million"),
        ({"score_seconds": {"load": 0.1, "run": 9.0}}, Level.SLOW, "'run'"),
    ],
)
def test_each_trouble_has_a_sentence_with_what_to_do(change: dict[str, Any], level: Level, word: str) -> None:
    healthy = Examination(
        "Python", {"onnxruntime": "1"}, 2, None, 2**33, (), (ProviderState(CPU, True, None, 0.01),), 0.5, 20.0,
        {"run": 0.01}, (),
    )  # fmt: skip
    assert _findings(healthy) == []
    (finding,) = _findings(dataclasses.replace(healthy, **change))
    assert finding.level is level
    assert word in finding.text


@pytest.mark.parametrize(
    ("text", "expected"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("nonsense", None), ("0 0", None)]
)
def test_a_containers_limit_is_read(tmp_path: Path, text: str, expected: float | None) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    with mock.patch.object(cores, "_QUOTA", path), mock.patch.object(cores, "_OLD_QUOTA", (tmp_path / "a",) * 2):
        assert cores.quota() == expected
