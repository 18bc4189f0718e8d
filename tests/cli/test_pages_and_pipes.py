"""A page that was asked for is written, whatever becomes of what is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"
NETWORK, OTHER = str(MODELS / "nb201-p-c1-s-c1-s-s.onnx"), str(MODELS / "nb201-p-s-n-n-n-s.onnx")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise on Windows")
@pytest.mark.parametrize("args", [("explain", NETWORK, "--batch", "8"), ("diff", NETWORK, OTHER, "--batch", "8")])
def test_a_reader_who_has_enough_costs_no_page(tmp_path: Path, args: tuple[str, ...]) -> None:
    page = tmp_path / "page.html"
    command = [sys.executable, "-m", "epsinas_onnx", *args, "--html", str(page)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(300)
    assert "</html>" in page.read_text(encoding="utf-8")
