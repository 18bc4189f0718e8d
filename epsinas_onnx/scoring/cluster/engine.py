"""Scores models on a Ray cluster: hands them to the process that talks to Ray, as it wants them; yields their rows."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import ClusterError, UsageError
from epsinas_onnx.graph.load import ModelSource, source_name
from epsinas_onnx.runtime.libraries import CUDA
from epsinas_onnx.runtime.providers import runtime
from epsinas_onnx.scoring.cluster.messages import (
    Connected,
    End,
    Lost,
    Model,
    Order,
    Refused,
    Row,
    Said,
    Stream,
    Unseen,
    Wanted,
)
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.process import text_of
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.scoring.single import error_score, score_or_error
from epsinas_onnx.scoring.workers import portable
from epsinas_onnx.versions import versions

_ANSWERS = 5.0  # seconds in which somebody has to listen at an address
_CONNECTS = 60.0  # seconds that connecting may take, or starting Ray on this machine
_ENDS = 15.0  # seconds that Ray may take to end


def cluster_address(given: str | None) -> str | None:
    """Return the address of the cluster that is meant: the one given, or that of RAY_ADDRESS, None where there is none.

    Raises UsageError where Ray is not installed, or nothing listens there.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(f"--engine ray needs Ray; run '{pip_install('ray')}'")
    address = given or os.environ.get("RAY_ADDRESS") or "auto"
    if address == "auto":
        return None
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise UsageError(
            f"{address} is the address of a Ray client; give HOST:PORT of the cluster's head, or run the command on "
            f"the cluster with 'ray job submit'"
        )
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"the address of a Ray cluster is HOST:PORT, as 'ray start --head' prints it, not {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS).close()
    except OSError as error:
        raise UsageError(
            f"nothing answers at {address} ({error.strerror or error}); give the one that 'ray start --head' printed, "
            f"and look whether the cluster runs with 'ray status'"
        ) from None
    return address


def score_on_cluster(
    models: Iterable[ModelSource], options: ScoreOptions, limits: Limits, address: str | None, most: int | None = None
) -> Iterator[tuple[int, Score]]:
    """Yield the position and the Score of each model as they come, computed by a Ray cluster.

    Paths are handed over as they are, and read where they are scored; what is built there (an architecture) as the
    small object that it is; models in memory as their serialised form. They are taken from `models` as the cluster has
    room for them. address: `HOST:PORT`, None for the cluster of this machine, or one that is started for this run.
    most: how many at a time, None for as many as the cluster has cores.

    Raises UsageError where the cluster cannot be used, and ClusterError where it is lost.
    """
    order = Order(options, limits, address, most, str(Path.cwd()), versions(), _has_cuda(options))
    with _Driver(order) as driver:
        tasks = enumerate(models)
        while True:
            match driver.next():
                case Wanted(count):
                    yield from _sent(driver, tasks, count, options)
                case tuple() as rows:
                    for row in rows:
                        yield row.index, as_score(row, options)
                case Said(sentence):
                    logging.getLogger("epsinas_onnx").warning(sentence)
                case Refused(sentence, is_usage):
                    raise UsageError(sentence) if is_usage else ClusterError(sentence)
                case End():
                    return


def _has_cuda(options: ScoreOptions) -> bool:
    return options.providers == "auto" and options.arithmetic != "exact" and CUDA in runtime().get_available_providers()


def _sent(
    driver: _Driver, tasks: Iterator[tuple[int, ModelSource]], count: int, options: ScoreOptions
) -> Iterator[tuple[int, Score]]:
    """Send as many models as are wanted, or that there are no more; yield a row for one that cannot be sent."""
    sent = 0
    while sent < count:
        try:
            index, model = next(tasks)
        except StopIteration:
            driver.send(End())
            return
        name = source_name(model)
        try:
            source = os.fspath(model) if isinstance(model, str | os.PathLike) else pickle.dumps(portable(model))
        except Exception as error:  # what cannot be pickled raises as it likes
            reason = f"{name}: cannot be handed to another process: {text_of(error)}"
            yield index, error_score(name, options, reason, 0.0)
            continue
        driver.send(Model(index, name, source))
        sent += 1


def as_score(row: Row, options: ScoreOptions) -> Score:
    """Return what a row holds; raises UsageError where the call is wrong, which only a model shows."""
    found = pickle.loads(row.data)
    match found:
        case Score():
            return found
        case UsageError():
            raise found
        case Unseen(node, path):
            if not os.path.lexists(path):  # so nobody sees it, and it has the row that it would have without a cluster
                return score_or_error(row.name, options)
            reason = (
                f"{row.name}: {node} does not see {path}; keep models where every node sees them under the same path, "
                f"such as on a shared file system"
            )
            return error_score(row.name, options, reason, 0.0)
        case Lost(cause):
            return error_score(row.name, options, f"{row.name}: {cause}", 0.0)
    raise AssertionError(found)


class _Driver:
    """The process that talks to Ray; a context manager, at whose end it and whatever it has started are gone."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._is_connected = False
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "epsinas_onnx.scoring.cluster.driver"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**quiet, **os.environ},
        )  # fmt: skip
        self._stream = Stream(cast(BinaryIO, self._process.stdout), cast(BinaryIO, self._process.stdin))
        self._reader = threading.Thread(target=self._read, name="epsinas-cluster", daemon=True)
        self._reader.start()
        self.send(self._order)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        try:
            self._process.wait(_ENDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        cast(BinaryIO, self._process.stdout).close()

    def _read(self) -> None:
        while (message := self._stream.receive()) is not None:
            self._inbox.put(message)
        self._inbox.put(None)

    def send(self, message: object) -> None:
        """Send a message; where the process is gone, `next` says so."""
        with contextlib.suppress(OSError):
            self._stream.send(message)

    def next(self) -> Any:
        """Wait for a message and return it; raises ClusterError where none can come any more."""
        try:
            message = self._inbox.get(timeout=None if self._is_connected else _CONNECTS)
        except queue.Empty:
            of = f"the Ray cluster at {self._order.address}" if self._order.address else "Ray on this machine"
            raise UsageError(
                f"{of} does not answer within {_CONNECTS:g} s; look whether that is a cluster, with 'ray status'"
            ) from None
        if message is None:
            raise ClusterError(
                "the connection with the Ray cluster was lost, as where its head node is gone; what was scored is kept"
            )
        if isinstance(message, Connected):
            self._is_connected = True
            return self.next()
        return message
