"""The package as a whole: its public names, what importing it loads, and what it says without a runtime."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import epsinas_onnx
from epsinas_onnx._util.install import pip_install

ROOT = Path(__file__).parent.parent
PRINT_MODULES = "print(json.dumps(sorted(sys.modules)))"
FRAMEWORKS = ("torch", "tensorflow", "jax", "keras", "paddle", "sklearn", "flax")


def in_new_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these() -> None:
    assert epsinas_onnx.__all__ == [
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
    assert all(getattr(epsinas_onnx, name) is not None for name in epsinas_onnx.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = epsinas_onnx.train


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = json.loads(in_new_python(f"import epsinas_onnx, json, sys; {PRINT_MODULES}"))
    heavy = {*FRAMEWORKS, "onnx", "onnx_ir", "onnxruntime", "numpy", "scipy", "sympy", "rich", "typer"}
    assert heavy & set(loaded) == set()


def test_starting_the_command_line_loads_nothing_heavy() -> None:
    loaded = json.loads(in_new_python(f"import epsinas_onnx.cli.main, json, sys; {PRINT_MODULES}"))
    heavy = {*FRAMEWORKS, "onnx", "onnx_ir", "onnxruntime", "numpy", "scipy", "sympy", "matplotlib", "plotly"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in loaded)


def test_scoring_loads_no_training_framework() -> None:
    model = ROOT / "models" / "mlp.onnx"
    code = f"import epsinas_onnx, json, sys; epsinas_onnx.score({str(model)!r}, batch=4); {PRINT_MODULES}"
    assert set(FRAMEWORKS) & set(json.loads(in_new_python(code))) == set()


def test_the_exporters_for_benchmarks_load_no_training_framework() -> None:
    code = f"import epsinas_exporters.nasbench201, json, sys; {PRINT_MODULES}"
    assert set(FRAMEWORKS) & set(json.loads(in_new_python(code))) == set()


def test_no_module_of_the_scorer_names_a_training_framework_in_an_import() -> None:
    pattern = re.compile(rf"^\s*(?:import|from)\s+({'|'.join(FRAMEWORKS)})\b", re.MULTILINE)
    found = {str(path): pattern.findall(path.read_text()) for path in (ROOT / "epsinas_onnx").rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_without_onnx_runtime_one_sentence_names_the_command_to_run() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        f"sys.argv = ['epsinas-onnx', 'score', {str(ROOT / 'models' / 'mlp.onnx')!r}]\n"
        "from epsinas_onnx.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert pip_install("cpu") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_score_leaves_nothing_in_the_home_folder_and_no_telemetry_to_send(tmp_path: Path) -> None:
    """ONNX Runtime writes an identifier and a queue of events there unless it is told not to."""
    code = f"import epsinas_onnx; epsinas_onnx.score({str(ROOT / 'models' / 'mlp.onnx')!r}, batch=4)"
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}  # in CI it is quiet anyway
    subprocess.run([sys.executable, "-c", code], env={**kept, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_every_module_says_in_its_first_line_what_it_owns() -> None:
    sources = [*(ROOT / "epsinas_onnx").rglob("*.py"), *(ROOT / "exporters").rglob("*.py")]
    assert [str(path) for path in sources if not path.read_text().startswith('"""')] == []
