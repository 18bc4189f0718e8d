"""Runs a few samples in float32 with every float value in a body handed out, as far as ONNX Runtime lets it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper

from epsinas_onnx.errors import RunError
from epsinas_onnx.evaluate_lumped.watch import Turn, bodies_of, scopes_of
from epsinas_onnx.explanation.handed_out import hand_out
from epsinas_onnx.explanation.nested import Nested
from epsinas_onnx.graph.traversal import StaticValues
from epsinas_onnx.lump.lower import LumpedModel
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.runtime.session import Engine, bind_constant, to_proto
from epsinas_onnx.scoring.executors import lower
from epsinas_onnx.scoring.judged import Task
from epsinas_onnx.scoring.plan import ModelPlan, plain_graph
from epsinas_onnx.scoring.reruns import plan_few

Array = npt.NDArray[Any]

_AT_ONCE = 256
"""Values that one run hands out."""
_FAILURES = 32
"""Runs that may fail before values that were not handed out yet are given up."""


class _Inner(NamedTuple):
    """A value in a body. label: its name in the graph that runs. loops: axes in front, one for each loop around it."""

    label: str
    dtype: int
    loops: int
    lumped: Lumped | None


class FloatBodies:
    """Values in bodies in float32. feeds: the few samples. independent: names of values that follow from no input."""

    def __init__(self, task: Task, lumped: bool) -> None:
        self._task = task
        few, self.feeds = plan_few(task.loaded, task.planned, task.batching, task.feeds)
        self.independent: set[str] = set()
        self._lowered: LumpedModel | None = None
        self._inner: dict[str, _Inner] = {}
        self._branches: dict[tuple[str, str], str] = {}
        self._proto = self._of_lumped(few) if lumped else self._of_plain(few)
        self._engines: dict[tuple[str, ...], tuple[Engine, dict[str, str]] | None] = {}
        self._failures = 0

    def _of_lumped(self, few: ModelPlan) -> onnx.ModelProto:
        task = self._task
        lowered = self._lowered = lower(few, task.config, 1, bound=False, feeds=task.feeds)
        nested = Nested.of(lowered.model)
        scopes = scopes_of(lowered.graph)
        fetched = lowered.exposed(few.outputs)
        outside = {}
        for value, lumped in lowered.inner.items():
            name = nested.names[value]
            if not lumped.depends:
                self.independent.add(name)
            elif lumped.tensor is not None and lumped.dtype.is_floating_point():
                if lumped.tensor in scopes:
                    loops = nested.loops_around(value)
                    self._inner[name] = _Inner(lumped.tensor.name, int(lumped.dtype), loops, lumped)
                elif name not in fetched:
                    outside[name] = lowered.context.settle(lumped)
        proto = lowered.to_proto(fetched | outside, None)
        renamed = {lowered.context.canonical(one): name for name, one in (fetched | outside).items()}
        held = [node for node, _, _ in bodies_of(lowered.graph.nodes) if node.op_type == "If"]
        self._branches = _flagged(proto, {renamed.get(n.outputs[0], n.outputs[0].name): n.source for n in held})
        for name, lumped in outside.items():
            self._inner[name] = _Inner(name, int(lumped.dtype), 0, lumped)
        return proto

    def _of_plain(self, few: ModelPlan) -> onnx.ModelProto:
        model = plain_graph(few).model
        nested = Nested.of(model)
        static = StaticValues.of(model)
        for value, name in nested.names.items():
            if value.graph is model.graph:
                continue
            if value in static:
                self.independent.add(name)
            elif isinstance(value.type, ir.TensorType) and value.type.dtype.is_floating_point():
                self._inner[name] = _Inner(name, int(value.type.dtype), nested.loops_around(value), None)
            value.name = name
        return to_proto(model, few.name)

    def chunks(self) -> Iterator[list[str]]:
        """Yield names that are run together."""
        names = list(self._inner)
        yield from (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))

    def idle(self, constant: float) -> set[tuple[str, str]]:
        """Return the branches of the lumped graph that do not run: the node's name, and the attribute.

        A value in one may be the same tensor as one outside, but for a factor, and then it can be had all the same.
        """
        found = set()
        for branch, flag in self._branches.items():
            self._inner[flag] = _Inner(flag, onnx.TensorProto.FLOAT, 0, None)
            with contextlib.suppress(RunError):  # one that runs in some turns and not in others has no sequence
                if any(not array.size for array in self._run(constant, self.feeds, [flag]).values()):
                    found.add(branch)
            del self._inner[flag]
        return found

    def lumped(self, name: str) -> Lumped | None:
        """Return what became of a value in the lumped graph, where that runs."""
        return self._inner[name].lumped

    def turns(self, constant: float, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, dict[Turn, Array]]:
        """Return values by name and turn; those of a body that did not run, or that cannot be had, are left out.

        Where samples are run one by one they are stacked along a first axis.
        """
        found: dict[str, dict[Turn, Array]] = {}
        pending = [list(names)] if names else []
        while pending:
            some = pending.pop()
            try:
                ran = self._run(constant, feeds, some)
            except RunError:
                # Of a value that has another shape in every turn there is no sequence: it alone is left out.
                self._engines[tuple(some)] = None
                self._failures += 1
                if len(some) > 1 and self._failures < _FAILURES:
                    half = len(some) // 2
                    pending += [some[half:], some[:half]]
                continue
            for name, array in ran.items():
                turns = self._cut(name, array)
                if turns:
                    found[name] = turns
        return found

    def _run(self, constant: float, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        key = tuple(names)
        if key not in self._engines:
            self._engines[key] = self._engine(names)
        made = self._engines[key]
        if made is None:
            raise RunError("these values cannot be handed out together")
        engine, outer = made
        lowered = self._lowered
        feeds = feeds if lowered is None else lowered.fed(feeds)
        weight = np.full(() if lowered is None else (1,), constant, np.float32)
        got = engine.run(weight, feeds, list(outer.values()), self._task.cut_axes)
        return {name: got[label] for name, label in outer.items()}

    def _engine(self, names: Sequence[str]) -> tuple[Engine, dict[str, str]]:
        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        present = {one.name for one in proto.graph.output}
        labels = {name: self._inner[name].label for name in names}
        wanted = {labels[name]: self._inner[name].dtype for name in names if labels[name] not in present}
        handed = hand_out(proto, wanted) | {label: label for label in present}
        outer = {name: handed[label] for name, label in labels.items() if label in handed}
        config, binds = self._task.config, self._lowered is None and self._task.config.on_cpu
        write: Callable[[Array], onnx.ModelProto] = (lambda w: bind_constant(proto, w)) if binds else (lambda _: proto)
        return Engine(write, self._task.loaded.name, config.providers, config.threads, binds, small=True), outer

    def _cut(self, name: str, array: Array) -> dict[Turn, Array]:
        """Return a value turn by turn: its representatives where it is lumped."""
        inner, stacked = self._inner[name], int(self._task.cut_axes is not None)
        lumped = inner.lumped
        if not array.size:
            return {}
        found = {}
        for turn in np.ndindex(array.shape[stacked : stacked + inner.loops]):
            one = array[(slice(None),) * stacked + turn]
            if lumped is not None:
                one = one if lumped.factor == 1.0 else (one * np.float32(lumped.factor)).astype(one.dtype)
                if lumped.parts is not None:
                    counts = (1, *lumped.counts) if lumped.varied else lumped.counts
                    one = one.reshape(*one.shape[:stacked], *counts)
            found[turn] = one
        return found

    def entries_of(self, name: str, array: Array) -> Array:
        """Return what the metric takes of a value in one turn, each class as often as it counts."""
        lumped = self._inner[name].lumped
        if self._lowered is None or lumped is None:
            return array.reshape(-1)
        (row,) = self._lowered.split(lumped, array)
        return row.reshape(-1)


def _flagged(proto: onnx.ModelProto, sources: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Add a value to every branch, which tells that it runs; return their names by the user's node and the attribute.

    sources: the user's nodes by the name of an If's first output.
    """
    found: dict[tuple[str, str], str] = {}
    pending = [proto.graph]
    while pending:
        for node in pending.pop().node:
            held = [(one.name, one.g) for one in node.attribute if one.type == onnx.AttributeProto.GRAPH]
            pending += [body for _, body in held]
            for name, body in held:
                source = sources.get(node.output[0])
                if node.op_type == "If" and source is not None:
                    flag = found[source, name] = f"{node.output[0]}/{name}/epsinas.ran"
                    one = helper.make_tensor("", onnx.TensorProto.FLOAT, [1], [1.0])
                    body.node.append(helper.make_node("Constant", [], [flag], value=one))
    return found
