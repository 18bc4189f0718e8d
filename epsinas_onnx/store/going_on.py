"""Scores what a store does not hold yet, and writes each result as it comes: above every engine, which knows nothing.

A model is looked up as it is handed out. One whose equal is being scored waits for it; one that lacks other scores
alone has those computed in a run of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir

from epsinas_onnx.graph.load import Buildable, ModelSource, source_name
from epsinas_onnx.inputs.minibatch import input_text, is_kind
from epsinas_onnx.proxies.measurement import MeasurementStatus
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.result import SAME, Score, Status, same_as
from epsinas_onnx.store.keys import Settings, digest
from epsinas_onnx.store.network import Network, Networks
from epsinas_onnx.store.sources import Source, source_of
from epsinas_onnx.store.store import Known, Store
from epsinas_onnx.store.tables import Entry, renamed, whole

Run: TypeAlias = Callable[[Iterable[ModelSource], Sequence[str]], Iterator[tuple[int, Score]]]
"""Scores models, with the other scores that are named; yields positions and Scores as they come."""

_READY = 10_000
"""Results out of the store that are held, while what is scored is waited for, before they go first."""


@dataclass
class _Wanted:
    """A model that is asked for. known: what the store holds of it."""

    index: int
    model: ModelSource
    name: str
    source: Source
    key: str | None
    network: Network | None = None
    known: Known = Known()  # noqa: RUF009 (frozen)


def going_on(
    models: Iterable[ModelSource],
    options: ScoreOptions,
    store: Store | str | os.PathLike[str],
    run: Run,
    *,
    isolated: bool,
    limits: Limits,
) -> Iterator[tuple[int, Score]]:
    """Return the position and the Score of each model as they come, those that the store holds without scoring them.

    store: one that is open, and stays so, or a file that is opened at once and closed at the end. run: scores what is
    missing. isolated: whether a file could harm this process, so that another one reads it, within `limits`.

    Raises UsageError where the file is no store, and OutputError at the end where it is closed.
    """
    opened = contextlib.nullcontext(store) if isinstance(store, Store) else Store(store)
    settings = Settings.of(options)

    def results() -> Iterator[tuple[int, Score]]:
        with opened as kept, Networks(isolated=isolated, limits=limits) as networks:
            yield from _GoingOn(options, settings, kept, networks, run).results(models)

    return results()


class _GoingOn:
    """One run over one iterable of models."""

    def __init__(
        self, options: ScoreOptions, settings: Settings, store: Store, networks: Networks, run: Run
    ) -> None:  # fmt: skip
        self._options, self._settings, self._store = options, settings, store
        self._networks, self._run = networks, run
        self._fed = None if is_kind(options.inputs) else input_text(options.inputs)
        self._ready: deque[tuple[int, Score]] = deque()
        self._waiting: dict[str, list[_Wanted]] = {}
        self._partly: dict[tuple[str, ...], list[_Wanted]] = {}
        self._again: list[_Wanted] = []

    def results(self, models: Iterable[ModelSource]) -> Iterator[tuple[int, Score]]:
        coming = map(self._looked_up, enumerate(models))
        for first in coming:
            if first is None:
                yield from self._drained()
                continue
            # One run takes whatever is missing from here on, unless so much is found meanwhile that it goes first.
            yield from self._scored(self._missing(chain([first], coming)), self._options.proxies)
        yield from self._drained()
        while self._again or self._partly:
            again, self._again = self._again, []
            yield from self._scored(iter(again), self._options.proxies)
            partly, self._partly = self._partly, {}
            for names, wanted in partly.items():
                yield from self._scored(iter(wanted), names)

    def _missing(self, coming: Iterator[_Wanted | None]) -> Iterator[_Wanted]:
        for wanted in coming:
            if wanted is not None:
                yield wanted
            if len(self._ready) >= _READY:
                return

    def _scored(self, missing: Iterator[_Wanted], names: Sequence[str]) -> Iterator[tuple[int, Score]]:
        sent: dict[int, _Wanted] = {}

        def models() -> Iterator[ModelSource]:
            for number, wanted in enumerate(missing):
                sent[number] = wanted
                yield wanted.model

        for number, score in self._run(models(), names):
            wanted = sent.pop(number)
            found = self._together(score, wanted)
            self._keep(found, wanted)
            yield wanted.index, found
            for waiting in self._waiting.pop(wanted.key or "", []):
                self._settle(waiting, wanted, found)
            yield from self._drained()

    def _drained(self) -> Iterator[tuple[int, Score]]:
        while self._ready:
            yield self._ready.popleft()

    def _looked_up(self, numbered: tuple[int, ModelSource]) -> _Wanted | None:
        """Return a model that is to be scored; None where it is known, waits for its equal, or comes in a later run."""
        index, model = numbered
        source = source_of(model)
        if source.key is None and isinstance(model, Buildable):
            source = dataclasses.replace(source, key=self._networks.built(model))
        wanted = _Wanted(index, model, source_name(model), source, source.key)
        if source.key is None:
            return wanted
        names = self._options.proxies
        wanted.known = self._store.known(source.key, self._settings, names)
        lacking = tuple(name for name in names if name not in wanted.known.others)
        if wanted.known.score is not None and not lacking:
            self._found(wanted, wanted.known.score)
            return None
        if wanted.known.score is None:
            self._find_network(wanted)
            if wanted.network is not None:
                shared = self._store.shared(wanted.network.key, self._settings)
                if shared is not None and self._share(wanted, shared):
                    return None
        if wanted.key in self._waiting:
            self._waiting[wanted.key].append(wanted)
            return None
        self._waiting[str(wanted.key)] = []
        if lacking != names:
            self._partly.setdefault(lacking, []).append(wanted)
            return None
        return wanted

    def _find_network(self, wanted: _Wanted) -> None:
        """Find out which network a file holds, where a network's score may be another file's."""
        source, key = wanted.source, wanted.source.key
        if key is None or source.unread or source.kind == "space" or not self._settings.names_nothing:
            return
        if self._options.proxies or isinstance(wanted.model, Buildable):
            return
        known = self._store.network(key)
        model = wanted.model
        if known is None and isinstance(model, onnx.ModelProto | ir.Model):
            proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
            model = proto.SerializeToString()
        wanted.network = Network(*known) if known is not None else self._networks.of(model)
        if wanted.network is not None:
            wanted.key = digest("network", wanted.network.key)

    def _found(self, wanted: _Wanted, record: Mapping[str, Any]) -> None:
        if record["model"] != wanted.name and wanted.source.key is not None:
            self._store.note_name(wanted.source.key, wanted.name)
        record = renamed(record, wanted.name)
        if self._fed is not None:
            record["input"] = self._fed
        others = {name: wanted.known.others[name] for name in self._options.proxies}
        batch = self._options.proxy_batch if others else None
        self._store.found += 1
        self._ready.append((wanted.index, whole(record, others, batch)))

    def _share(self, wanted: _Wanted, record: Mapping[str, Any]) -> bool:
        """Give a model the score of its equal; return whether it has one: what names nodes is the equal's own."""
        others = [one for one in record["warnings"] if not one.startswith(SAME)]
        if record["status"] != Status.OK or others or wanted.network is None:
            return False
        note = next(iter(record["warnings"]), same_as(record["model"]))
        shared = {
            **record, "model": wanted.name, "nodes": wanted.network.nodes, "seconds": {"total": 0.0}, "warnings": [note]
        }  # fmt: skip
        self._keep(whole(shared, {}, None), wanted)
        self._store.found += 1
        self._found_shared(wanted, shared)
        return True

    def _found_shared(self, wanted: _Wanted, shared: dict[str, Any]) -> None:
        if self._fed is not None:
            shared["input"] = self._fed
        self._ready.append((wanted.index, whole(shared, {}, None)))

    def _settle(self, waiting: _Wanted, first: _Wanted, score: Score) -> None:
        """Give a model that waited what its equal got, where it may have it; otherwise it is scored itself."""
        record = score.to_dict()
        if score.status is Status.ERROR or any(one.status is MeasurementStatus.ERROR for one in score.proxies.values()):
            self._again.append(waiting)
        elif waiting.source.key == first.source.key:
            own = whole(renamed(record, waiting.name), record["proxies"], record["proxy_batch"])
            self._keep(own, waiting)
            self._store.found += 1
            self._ready.append((waiting.index, own))
        elif not self._share(waiting, record):
            self._again.append(waiting)

    def _together(self, score: Score, wanted: _Wanted) -> Score:
        """Return a score with the other scores that were known, and with the number that was known."""
        if not wanted.known.others and wanted.known.score is None:
            return score
        record = score.to_dict()
        computed = {name: one for name, one in record["proxies"].items() if name not in wanted.known.others}
        others = {**wanted.known.others, **computed}
        base = record if wanted.known.score is None else renamed(wanted.known.score, wanted.name)
        if self._fed is not None:
            base["input"] = self._fed
        return whole(base, {name: others[name] for name in self._options.proxies}, self._options.proxy_batch)

    def _keep(self, score: Score, wanted: _Wanted) -> None:
        """Write a result, unless the file may be another one by now than that which its key was taken of."""
        source, network = wanted.source, wanted.network
        if source.key is None or (source.unread and score.status is not Status.ERROR) or not source.is_as_it_was():
            return
        key, nodes = (None, None) if network is None else (network.key, network.nodes)
        self._store.add(Entry(source.key, source.kind, source.space, key, nodes, self._settings, score))
