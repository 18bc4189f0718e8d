"""What the worker processes of the tests do: in a module of their own, which is imported in no time."""

from __future__ import annotations

import os
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


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
