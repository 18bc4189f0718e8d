"""Networks that say in a file that they are built, so that a test can count what is really computed."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from tests.builders import perceptron


@dataclass(frozen=True)
class Counted:
    """A network that is known by its name. log: takes a line each time. width: of its middle layer.

    kills: a file; whoever builds the network while there is none makes it and dies. always: it dies every time.
    """

    name: str
    log: str
    width: int = 4
    seconds: float = 0.0
    kills: str = ""
    always: bool = False
    fails: str = ""
    space: str = "counted"

    @property
    def store_key(self) -> str:
        return self.name

    def build(self) -> ir.Model:
        with Path(self.log).open("a", encoding="utf-8") as log:
            log.write(f"{self.name}\n")
        time.sleep(self.seconds)
        if self.kills and (self.always or not Path(self.kills).exists()):
            Path(self.kills).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails and Path(self.fails).exists():
            raise ValueError(f"{self.name}: cannot be built today")
        return ir.from_proto(perceptron(width=self.width))


def built(log: Path) -> list[str]:
    """Return the names of the networks that were built, in order."""
    return log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []
