"""The order of a network: how fast its output vanishes with its weights, from epsinas' exact arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.lump.unlumpable import Unlumpable
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy, UndefinedError
from epsinas_onnx.runtime.memory import refuse_if_too_large
from epsinas_onnx.scoring.evaluated import ExactExecutor
from epsinas_onnx.scoring.executors import ExecutionConfig, lower
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.plan import plan


class Order(Proxy):
    """d log |v| / d log c towards c = 0, where all weights are the constant c and v is how far outputs lie apart.

    It is the number of layers on the paths that carry the signal where weights are small, so on the shortest ones: 6
    for a cell of NAS-Bench-201 with an identity path, 36 with one convolution on its shortest path. `order` of a
    `Score` is the same number. A few samples of the default input of `score` are evaluated in exact arithmetic; no
    weight and no input is drawn from the seed but tokens.

    What it cannot say: anything about width, or about what lies on longer paths; whether a large or a small one is
    better depends on the set of networks.

    Source: epsinas-onnx, docs/numerics.md.
    """

    name: ClassVar[str] = "order"
    summary: ClassVar[str] = "layers on the paths that carry the signal where weights are small"
    source: ClassVar[str] = "epsinas-onnx"
    seeded: ClassVar[bool] = False

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Evaluate the lumped graph for constants that go to 0."""
        prepared.check_minibatch()
        few = plan(prepared.loaded, prepared.batching.traced, prepared.batching.options)
        minibatch = Minibatch("auto", prepared.seed, prepared.name)
        axes = {spec.name: spec.batch_axis for spec in few.specs if spec.batch_axis is not None}
        arrays = minibatch.feeds(few.specs, few.demands)
        drawn = minibatch.drawn(few.specs, few.demands)
        feeds = Feeds(lambda: arrays, axes, minibatch.fixed(few.specs, few.demands), drawn)
        try:
            lowered = lower(few, ExecutionConfig(prepared.providers), 1, feeds=feeds, evaluated=True)
        except Unlumpable as error:
            raise UnsupportedError(f"{prepared.name}: cannot be evaluated exactly: {error}") from error
        if lowered.cut_off is not None:
            raise UndefinedError(f"{prepared.name}: {lowered.cut_off.why}")
        executor = ExactExecutor(lowered, few.outputs, axes)
        refuse_if_too_large(executor.peak_bytes(), prepared.name)
        found = executor.order(arrays)
        if found is None:
            raise UndefinedError(f"{prepared.name}: outputs do not lie apart where weights are small")
        return found
