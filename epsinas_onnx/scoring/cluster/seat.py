"""One seat of a cluster, an actor of Ray: scores a model at a time in a watched process, and says what came of each."""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx.errors import EpsinasError, UsageError
from epsinas_onnx.graph.load import ModelSource
from epsinas_onnx.inputs.given import read_given
from epsinas_onnx.inputs.minibatch import is_kind
from epsinas_onnx.runtime.providers import choose_providers
from epsinas_onnx.scoring.alike import Alike
from epsinas_onnx.scoring.cluster.messages import Hello, Model, Order, Report, Row, Unseen
from epsinas_onnx.scoring.measured import unmeasured
from epsinas_onnx.scoring.process import text_of
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.scoring.single import error_score, score_or_error
from epsinas_onnx.scoring.supervisor import Failure, Workers
from epsinas_onnx.versions import versions

_batch: Alike[Any] = Alike()
"""What this process has scored."""
_SLOW = 1.0  # seconds after which what waits behind a model is handed back


class Seat:
    """Scores what it is handed, one after the other, while its owner does something else.

    The scoring is done by a process of its own, as on one machine: a model that ends it, or breaks a limit, costs its
    own row, and this process goes on.
    """

    def __init__(self, order: Order, gpus: int = 0) -> None:
        _forget_main()
        node = _own_node()
        self._node, self._host = (
            str(node["NodeID"]),
            f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
        )
        beside = int(node["Resources"].get("GPU" if gpus else "CPU", 1))
        self._options = dataclasses.replace(order.options, jobs=max(beside, 1), threads=1)
        self._folder = order.folder
        if Path(order.folder).is_dir():
            os.chdir(order.folder)
        self._workers = Workers(1, order.limits)
        self._changed = threading.Condition()
        self._queue: deque[Model] = deque()
        self._running: Model | None = None
        self._since = 0.0
        self._rows: list[Row] = []
        self._busy, self._done = 0.0, 0
        self._thread: threading.Thread | None = None

    def hello(self) -> Hello:
        """Say where this is, and whether models can be scored here."""
        found = self._workers.run(examine, (self._options.providers, self._options.inputs))
        if isinstance(found, Failure):
            return Hello(self._node, self._host, {}, found.cause)
        return Hello(self._node, self._host, *found)

    def exchange(self, models: list[Model], pause: float) -> Report:
        """Take models, and return what is done: after `pause` seconds, or once there is nothing left to do.

        Where a model takes long, those behind it are handed back, for others to score.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="epsinas-seat", daemon=True)
            self._thread.start()
        end = time.monotonic() + pause
        with self._changed:
            self._queue.extend(models)
            self._changed.notify_all()
            while self._queue or self._running:
                now = time.monotonic()
                if (self._rows and now >= end) or (self._queue and self._running and now > self._since + _SLOW):
                    break
                self._changed.wait(0.1)
            slow = self._running is not None and time.monotonic() > self._since + _SLOW
            unstarted = tuple(model.index for model in self._queue) if slow else ()
            if slow:
                self._queue.clear()
            rows, self._rows = tuple(self._rows), []
            pace = _SLOW if slow or not self._done else self._busy / self._done
            self._busy, self._done = 0.0, 0
        return Report(rows, unstarted, pace)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                model = self._running = self._queue.popleft()
                self._since = time.monotonic()
            data = pickle.dumps(self._scored(model))
            with self._changed:
                self._rows.append(Row(model.index, model.name, data))
                self._busy += time.monotonic() - self._since
                self._done += 1
                self._running = None
                self._changed.notify_all()

    def _scored(self, model: Model) -> Score | UsageError | Unseen:
        """Return what comes of a model; without the other scores where its process is lost with them."""
        if isinstance(model.source, str) and not os.path.lexists(path := Path(self._folder, model.source)):
            return Unseen(self._host, str(path))
        options = self._options
        try:
            found = self._workers.run(score_sent, (model.source, model.name, options))
            if isinstance(found, Failure) and options.proxies:
                failure = found
                alone = dataclasses.replace(options, proxies=())
                found = self._workers.run(score_sent, (model.source, model.name, alone))
                if isinstance(found, Score):
                    others = unmeasured(options.proxies, f"{model.name}: {failure.cause}", failure.seconds)
                    return dataclasses.replace(found, proxies=others, proxy_batch=options.proxy_batch)
        except UsageError as error:
            return error
        except Exception as error:  # what a model's own class raises where it is made again
            found = Failure(f"cannot be read on {self._host}: {text_of(error)}")
        if isinstance(found, Failure):
            return error_score(model.name, options, f"{model.name}: {found.cause}", found.seconds)
        return found


def examine(providers: str, inputs: Any) -> tuple[dict[str, str], str | None]:
    """Return the versions of a node, and why nothing can be scored there; in the process that is to score."""
    try:
        choose_providers(providers)
        if not is_kind(inputs):
            read_given(inputs)
    except EpsinasError as error:
        return dict(versions()), str(error)
    return dict(versions()), None


def score_sent(source: str | bytes, name: str, options: Any) -> Score:
    """Score a path, or a model that was pickled elsewhere."""
    quiet_libraries()
    model: ModelSource = source if isinstance(source, str) else pickle.loads(source)
    with _batch.scoring():
        return dataclasses.replace(score_or_error(model, options), model=name)


def _own_node() -> dict[str, Any]:
    import ray

    own = ray.get_runtime_context().get_node_id()
    found: dict[str, Any] = next(node for node in ray.nodes() if node["NodeID"] == own)
    return found


def _forget_main() -> None:
    """Let processes that are started here not run Ray's own program as their main module, which imports all of Ray."""
    main = sys.modules["__main__"]
    main.__spec__ = None
    if hasattr(main, "__file__"):
        del main.__file__
