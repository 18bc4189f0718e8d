"""What the worker processes of the tests do: in a module of their own, which is imported in no time."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil


def same(number: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return number


def kill(first: str, how: int) -> int:
    """Kill this process; only once where `first` names a file that is not there yet."""
    if not (first and Path(first).exists()):
        if first:
            Path(first).touch()
        os.kill(os.getpid(), how)
    return os.getpid()


def in_the_middle(how: int) -> bytes:
    """End or stop in the middle of the message that says what was computed."""

    def half(self: Connection, data: bytes, *_: Any) -> None:
        os.write(self.fileno(), data[: len(data) // 2])
        os.kill(os.getpid(), how)

    Connection._send = half  # type: ignore[attr-defined]
    return b"." * 100_000


def take(size: int, seconds: float) -> int:
    held = b"." * size
    time.sleep(seconds)
    return len(held)


def own_process(number: int) -> int:
    return os.getpid()


def fail(kind: type[Exception], text: str) -> None:
    raise kind(text)


def unpicklable() -> Any:
    return threading.Lock()


@dataclass(frozen=True)
class Trouble:
    """A network whose building does something bad first; with `once`, a path, only the first time."""

    name: str
    does: str
    once: str = ""

    def build(self) -> Any:
        if not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            match self.does:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "kill its parent":
                    os.kill(psutil.Process(os.getppid()).ppid(), signal.SIGKILL)
                case "hang":
                    time.sleep(1000)
                case "grow":
                    held = b"." * 1_500_000_000
                    time.sleep(1000)
                    del held
        from epsinas_onnx.graph.load import load_model
        from tests.builders import perceptron

        return load_model(perceptron()).model
