"""Runs every command over a mutant in a worker process, and watches which files are opened meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.mutants import mutate

REPORT = "please report"
BATCH = 4

Outcomes = dict[str, str]
"""What each command made of a mutant: `ok`, the sentence of an error, or `unexpected ...`."""


def commands(path: str, original: str, folder: Path) -> dict[str, Callable[[], object]]:
    """Return what each command of the command line does in its worker process."""
    import epsinas_onnx
    from epsinas_onnx.check.config import load_config
    from epsinas_onnx.check.runner import check_one, task_of
    from epsinas_onnx.scoring.options import score_options
    from epsinas_onnx.scoring.single import score_or_error

    options = score_options(batch=BATCH, threads=1)
    target, config = str(folder / "out.onnx"), folder / "epsinas-onnx.toml"
    config.write_text(f"score = {{ batch = {BATCH} }}\n")

    def check() -> object:
        found = check_one(*task_of(path, load_config(config), None))
        return "; ".join(finding.message for finding in found.findings if REPORT in finding.message)

    def score() -> object:
        reason = score_or_error(path, options).reason or ""
        return reason if REPORT in reason else ""

    return {
        "score": score,
        "inspect": lambda: epsinas_onnx.inspect(path),
        "check": check,
        "strip": lambda: epsinas_onnx.strip(path, output=target),
        "fill": lambda: epsinas_onnx.fill(path, output=target),
        "rewrite": lambda: epsinas_onnx.rewrite(path, weight=0.5, output=target),
        "diff": lambda: epsinas_onnx.diff(original, path, with_score=False),
    }


def run_mutant(original: str, seed: int, places: tuple[str, ...], folder: str) -> Outcomes:
    """Make a mutant of a file and run every command over it; the file lies in a folder of its own."""
    from epsinas_onnx.errors import EpsinasError

    mutant = mutate(Path(original).read_bytes(), seed, places)
    outcomes: Outcomes = {}
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = str(Path(own, "mutant.onnx"))
        Path(path).write_bytes(mutant)
        for name, command in commands(path, original, Path(own)).items():
            try:
                said = command()
                outcomes[name] = f"unexpected {said}" if isinstance(said, str) and said else "ok"
            except EpsinasError as error:
                outcomes[name] = str(error)
            except Exception as error:
                outcomes[name] = f"unexpected {type(error).__name__}: {error}"
    return outcomes


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Counter[str]]:
    """Count how often files of a folder are opened, by whatever code of whatever process, by their names; on Linux."""
    opened: Counter[str] = Counter()
    if sys.platform != "linux":
        yield opened
        return
    libc: Any = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(folder), 0x20) >= 0  # IN_OPEN
        yield opened
        with contextlib.suppress(BlockingIOError):
            while True:
                events = os.read(descriptor, 2**16)
                while events:
                    _, mask, _, length = struct.unpack_from("iIII", events)
                    name = events[16 : 16 + length].split(b"\0")[0].decode()
                    opened["too many to count" if mask & 0x4000 else name] += 1
                    events = events[16 + length :]
    finally:
        os.close(descriptor)
