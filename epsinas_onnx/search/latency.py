"""Measures how long a network takes on ONNX Runtime, in a process of its own that does nothing else meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx

from epsinas_onnx.edit.save import write_model, write_with_data
from epsinas_onnx.errors import RunError, UsageError

_IN_ONE_FILE = 2**30
"""Bytes of a model that is written as one file; larger ones keep their weights beside it."""


@dataclass(frozen=True)
class LatencySettings:
    """What a latency is measured with.

    batch: samples. threads: of ONNX Runtime within an operator, 0 for its own choice. provider: `cpu`, `cuda`,
    `tensorrt` or `auto`. warmups: runs that do not count. runs: those whose median is the latency, at most: after
    `seconds` no more are begun, once there are five. shapes: sizes of free dimensions by name, and whole shapes by
    input name. timeout: seconds after which a network is given up.
    """

    batch: int = 1
    threads: int = 1
    provider: str = "auto"
    warmups: int = 3
    runs: int = 50
    seconds: float = 5.0
    shapes: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 120.0

    def __post_init__(self) -> None:
        for name in ("batch", "runs"):
            if getattr(self, name) < 1:
                raise UsageError(f"a latency needs at least 1 of {name}, not {getattr(self, name)}")
        if self.threads < 0 or self.warmups < 0:
            raise UsageError("a latency cannot be measured with fewer than 0 threads or warm-up runs")


@dataclass(frozen=True)
class Latency:
    """A measured latency. milliseconds: the median. runs: of how many. low, high: the quartiles. provider: what ran."""

    milliseconds: float
    low: float
    high: float
    runs: int
    provider: str


class Stopwatch:
    """A process that loads a network, runs it and says how long that took; a context manager.

    It is started with the first network, kept for the next, and started again where a network ends it.
    """

    def __init__(self, settings: LatencySettings) -> None:
        self.settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._end: weakref.finalize[..., Stopwatch] | None = None

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, proto: onnx.ModelProto) -> Latency:
        """Return the latency of a network with weights; raises RunError where it cannot be run, or takes too long.

        The weights of a large one leave `proto` for a file.
        """
        with tempfile.TemporaryDirectory(prefix="epsinas-latency-") as folder:
            path = Path(folder) / "network.onnx"
            if proto.ByteSize() > _IN_ONE_FILE:
                write_with_data(proto, path)
            else:
                write_model(proto, path)
            answer = self._ask({"model": os.fspath(path), **asdict(self.settings)})
        if "error" in answer:
            raise RunError(str(answer["error"]))
        return Latency(**answer)

    def close(self) -> None:
        """End the process."""
        self._process = None
        if self._end is not None:
            self._end()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        except OSError:
            self.close()
            raise RunError("the process that measures latencies ended before it was asked") from None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.settings.timeout, end)
        timer.daemon = True
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if late.is_set():
            self.close()
            raise RunError(f"its latency took longer than {self.settings.timeout:g} s to measure")
        if not line:
            self.close()
            raise RunError("the process that ran it for its latency died, most likely for lack of memory")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "epsinas_onnx.search.stopwatch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True,
            )  # fmt: skip
            self._end = weakref.finalize(self, _end, self._process)  # who asks may never close it
        return self._process


def _end(process: subprocess.Popen[str]) -> None:
    """End a process, whatever it does."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
