"""Finds the node in which ONNX Runtime gives up, by running ever closer prefixes of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from epsinas_onnx.errors import ModelError, RunError
from epsinas_onnx.explanation.observing import Seen, observed
from epsinas_onnx.explanation.sight import Sight
from epsinas_onnx.graph.emitter import PREFIX
from epsinas_onnx.inputs.minibatch import all_first, few_samples
from epsinas_onnx.runtime.session import Engine, to_proto
from epsinas_onnx.scoring.judged import FEW, Task
from epsinas_onnx.scoring.plan import plain_graph

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Failure:
    """The outputs of the node that fails, and what was seen of the values in front of it."""

    outputs: tuple[str, ...]
    sight: Sight


def find_failure(task: Task) -> Failure | None:
    """Return where a few samples of a model cannot be run, None where they can, or where that is not found.

    A prefix runs where none of its nodes fails, so that the first one that does not is found by halving.
    """
    try:
        prefixes = _Prefixes(task)
        if prefixes.runs(prefixes.count):
            return None
    except ModelError:
        return None
    good, bad = 0, prefixes.count
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if prefixes.runs(middle) else (good, middle)
    node = prefixes.users_node(bad - 1)
    return Failure(tuple(node.output), prefixes.sight(good))


class _Prefixes:
    """The first nodes of the plain graph of a task, as models of their own."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._planned = task.planned if task.batching.options.loosen else task.planned.with_batch(self._samples)
        self._proto = to_proto(plain_graph(self._planned).model, task.loaded.name)
        self._infos = {info.name: info for info in (*self._proto.graph.value_info, *self._proto.graph.output)}
        samples = self._samples if self._planned is not task.planned else task.batching.samples
        self._feeds = few_samples(task.feeds.arrays, task.feeds.axes, samples, self._planned.demands)
        if task.batching.per_sample:
            self._feeds = few_samples(task.feeds.arrays, task.feeds.axes, 1, self._planned.demands)

    @property
    def _samples(self) -> int:
        return 1 if self._task.batching.per_sample else min(FEW, self._task.batching.samples)

    @property
    def count(self) -> int:
        """Return how many nodes there are."""
        return len(self._proto.graph.node)

    def users_node(self, index: int) -> onnx.NodeProto:
        """Return the node, or the first behind it that the user's graph has."""
        nodes: list[onnx.NodeProto] = list(self._proto.graph.node)[index:]
        return next((node for node in nodes if not node.name.startswith(PREFIX)), nodes[0])

    def runs(self, count: int) -> bool:
        """Return whether so many nodes run for both constants."""
        read = {name for node in self._proto.graph.node[:count] for name in node.input}
        names = [name for node in self._proto.graph.node[:count] for name in node.output if name and name not in read]
        try:
            for constant in self._task.options.weights:
                self._run(count, names, constant, self._feeds)
        except RunError:
            return False
        return True

    def sight(self, count: int) -> Sight:
        """Return what the floats of so many nodes hold."""
        axes = {} if self._task.batching.per_sample else self._task.feeds.axes
        still = all_first(self._feeds, axes)
        names = [
            name for node in self._proto.graph.node[:count] for name in node.output
            if name in self._infos and not name.startswith(PREFIX)
        ]  # fmt: skip
        if not names:
            return Sight({}, self._samples)
        weights = self._task.options.weights
        made = [self._run(count, names, constant, self._feeds) for constant in weights]
        base = [self._run(count, names, constant, still) for constant in weights]
        seen = {}
        for name in names:
            if made[0][name].dtype.kind in "fiub":
                one, other = (observed(ran[name], first[name]) for ran, first in zip(made, base, strict=True))
                seen[name] = Seen((one, other), None, made[0][name].shape, None)
        return Sight(seen, self._samples)

    def _run(self, count: int, names: list[str], constant: float, feeds: Mapping[str, Array]) -> dict[str, Array]:
        task = self._task
        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        del proto.graph.node[count:]
        del proto.graph.output[:]
        proto.graph.output.extend(self._infos.get(name, onnx.ValueInfoProto(name=name)) for name in names)
        engine = Engine(
            lambda _: proto, task.loaded.name, task.config.providers, task.config.threads, False, small=True
        )
        return engine.run(np.asarray(constant, np.float32), feeds, names)
