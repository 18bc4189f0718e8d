"""What this process, the one that talks to Ray, and the seats on the nodes say to each other."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.options import ScoreOptions


@dataclass(frozen=True)
class Order:
    """What a run wants of a cluster.

    address: `HOST:PORT`, None for the cluster of this machine, or one that is started on it. most: how many models at a
    time, None for as many as the cluster has cores. folder: which relative paths begin at.
    has_cuda: whether `auto` is CUDA where the cluster has GPUs.
    """

    options: ScoreOptions
    limits: Limits
    address: str | None
    most: int | None
    folder: str
    versions: Mapping[str, str]
    has_cuda: bool = False


@dataclass
class Model:
    """A model on its way. source: a path, or what `pickle.loads` makes one of. lost: nodes that were lost with it."""

    index: int
    name: str
    source: str | bytes
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unseen:
    """A file that a node does not see."""

    node: str
    path: str


@dataclass(frozen=True)
class Lost:
    """A model whose seats were lost. cause: a sentence without a subject."""

    cause: str


@dataclass(frozen=True)
class Row:
    """What came of a model. data: a pickled Score, UsageError, Unseen or Lost, which the process between passes on."""

    index: int
    name: str
    data: bytes


@dataclass(frozen=True)
class Hello:
    """What a seat says of itself. problem: why nothing can be scored there, None where it can."""

    node: str
    host: str
    versions: Mapping[str, str]
    problem: str | None = None


@dataclass(frozen=True)
class Report:
    """What a seat has done since it was asked last. unstarted: models that it hands back. pace: seconds for a model."""

    rows: tuple[Row, ...]
    unstarted: tuple[int, ...]
    pace: float


@dataclass(frozen=True)
class Gone:
    """A seat that was lost, or never started. why: what Ray says."""

    why: str


@dataclass(frozen=True)
class Connected:
    """There is a cluster."""


@dataclass(frozen=True)
class Wanted:
    """So many more models are wanted."""

    count: int


@dataclass(frozen=True)
class Said:
    """A sentence for the log of this process."""

    sentence: str


@dataclass(frozen=True)
class Refused:
    """The run ends. is_usage: whether the call is to blame, or the cluster."""

    sentence: str
    is_usage: bool = True


@dataclass(frozen=True)
class End:
    """There are no more models, or no more results."""


class Stream:
    """Messages over two pipes, in order."""

    def __init__(self, reads: BinaryIO, writes: BinaryIO) -> None:
        self._reads, self._writes = reads, writes

    def send(self, message: object) -> None:
        """Send a message; raises OSError where the other end is gone."""
        pickle.dump(message, self._writes)
        self._writes.flush()

    def receive(self) -> Any:
        """Wait for a message and return it; None where the other end is gone."""
        try:
            return pickle.load(self._reads)
        except (EOFError, OSError, pickle.UnpicklingError):
            return None

    def close(self) -> None:
        """Let the other end know that nothing more comes."""
        with contextlib.suppress(OSError):  # it was gone before, with something on its way to it
            self._writes.close()
