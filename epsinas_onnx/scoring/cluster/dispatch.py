"""Hands models out to the seats of a cluster: as many as keep them busy, and again where a seat or its node is lost."""

from __future__ import annotations

import pickle
import queue
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from epsinas_onnx.scoring.cluster.messages import (
    End,
    Gone,
    Hello,
    Lost,
    Model,
    Order,
    Refused,
    Report,
    Row,
    Said,
    Stream,
    Wanted,
)

_LOOK = 2.0  # seconds between two looks at which nodes there are
_PAUSE = 0.2  # seconds that a seat collects results, so that a message is worth its while
_PAUSE_EACH = 0.002  # and for every seat there is, so that this process keeps up with thousands
_STOCK = 2.5  # pauses that the models of a seat are to last
_MOST = 1024  # models that a seat has at a time
_DEATHS = 2  # seats that may be lost with a model while their node lives
_NODES = 5  # nodes that may be lost with it: what takes several with it is no chance
_STARTS = 10  # seats in a row that do not start before no more are tried
_NO_ROOM = 600.0  # seconds without any seat before the run is given up


class Cluster(Protocol):
    """What is asked of a cluster; `on_ray.Ray` is one. A call is what can be waited for."""

    @property
    def kind(self) -> str: ...  # noqa: D102

    def nodes(self) -> Mapping[str, int]: ...  # noqa: D102

    def seat(self) -> Any: ...  # noqa: D102

    def hello(self, seat: Any) -> Any: ...  # noqa: D102

    def exchange(self, seat: Any, models: list[Model], pause: float) -> Any: ...  # noqa: D102

    def wait(self, calls: list[Any], seconds: float) -> list[Any]: ...  # noqa: D102

    def answer(self, call: Any) -> Any: ...  # noqa: D102

    def end(self, seat: Any) -> None: ...  # noqa: D102


@dataclass(eq=False)
class _Seat:
    """A seat. call: what it was asked last, None where it was answered. models: what it has. pace: seconds for one."""

    actor: Any
    call: Any
    node: str = ""
    is_starting: bool = True
    is_useless: bool = False
    models: dict[int, Model] = field(default_factory=dict)
    pace: float | None = None

    @property
    def is_idle(self) -> bool:
        return not self.is_starting and not self.is_useless and self.call is None


class _Over(Exception):
    def __init__(self, message: End | Refused) -> None:
        self.message = message


class Dispatch:
    """One run. A model has one row, whatever is lost, and is taken from the stream when a seat is to need it soon."""

    def __init__(self, cluster: Cluster, order: Order, stream: Stream, inbox: queue.SimpleQueue[Any]) -> None:
        self._cluster, self._order, self._stream, self._inbox = cluster, order, stream, inbox
        self._seats: list[_Seat] = []
        self._waiting: deque[Model] = deque()
        self._doubtful: deque[Model] = deque()  # those that a seat was lost with: each gets a seat for itself
        self._asked = 0
        self._is_exhausted = False
        self._nodes = dict(cluster.nodes())
        self._first_nodes = frozenset(self._nodes)
        self._looked = self._sat = time.monotonic()
        self._failed_starts = 0

    def run(self) -> End | Refused:
        """Score what comes through the inbox; return what the run ends with."""
        try:
            if self._cluster.kind == "GPU" and not sum(self._nodes.values()):
                raise _Over(Refused("the cluster has no GPU; use --provider cpu, or start nodes with --num-gpus"))
            while True:
                self._take_in()
                if self._is_exhausted and not self._in_flight:
                    return End()
                self._look()
                self._seat_more()
                self._hand_out()
                self._ask()
                self._listen()
        except _Over as over:
            return over.message
        finally:
            for seat in self._seats:
                self._cluster.end(seat.actor)

    @property
    def _in_flight(self) -> int:
        return len(self._waiting) + len(self._doubtful) + sum(len(seat.models) for seat in self._seats)

    @property
    def _target(self) -> int:
        """How many seats there are to be: on a cluster without any core yet one, for which one may be added."""
        return self._order.most or max(1, sum(self._nodes.values()))

    @property
    def _pause(self) -> float:
        return _PAUSE + _PAUSE_EACH * len(self._seats)

    def _depth(self, seat: _Seat) -> int:
        """How many models a seat has at a time: one until it is known how long one takes."""
        return 1 if seat.pace is None else max(1, min(_MOST, int(_STOCK * self._pause / max(seat.pace, 1e-6))))

    def _take_in(self) -> None:
        while not self._inbox.empty():
            message = self._inbox.get()
            if message is None:  # nobody listens any more
                raise _Over(End())
            if isinstance(message, End):
                self._is_exhausted, self._asked = True, 0
            else:
                self._waiting.append(message)
                self._asked -= 1

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked, self._nodes = now, dict(self._cluster.nodes())
        if any(not seat.is_starting for seat in self._seats):
            self._sat = now
        elif now - self._sat > _NO_ROOM:
            raise _Over(
                Refused(
                    f"no {self._cluster.kind} of the cluster was free for {_NO_ROOM / 60:g} minutes; look what takes "
                    f"them with 'ray status'",
                    is_usage=False,
                )
            )

    def _seat_more(self) -> None:
        useless = sum(seat.is_useless for seat in self._seats)
        if useless and useless >= self._target:
            raise _Over(Refused("no node is left on which models can be scored", is_usage=False))
        free = sum(seat.is_starting or (seat.is_idle and not seat.models) for seat in self._seats)
        wanted = min(len(self._waiting) + len(self._doubtful) - free, self._target - len(self._seats))
        for _ in range(wanted):
            actor = self._cluster.seat()
            self._seats.append(_Seat(actor, self._cluster.hello(actor)))

    def _hand_out(self) -> None:
        for seat in [seat for seat in self._seats if seat.is_idle]:
            models = self._models_for(seat)
            seat.models.update((model.index, model) for model in models)
            if seat.models:
                seat.call = self._cluster.exchange(seat.actor, models, self._pause)
            elif self._is_exhausted and all(len(one.models) < 2 for one in self._seats):  # nothing will be handed back
                self._seats.remove(seat)
                self._cluster.end(seat.actor)

    def _models_for(self, seat: _Seat) -> list[Model]:
        if self._doubtful:
            return [] if seat.models else [self._doubtful.popleft()]
        if any(model.lost for model in seat.models.values()):
            return []
        room = self._depth(seat) - len(seat.models)
        return [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]

    def _ask(self) -> None:
        if self._is_exhausted:
            return
        stock = sum(1.5 * self._depth(seat) for seat in self._seats if not seat.is_starting and not seat.is_useless)
        count = max(self._target, int(stock)) - self._in_flight - self._asked
        if count > 0:
            self._asked += count
            self._stream.send(Wanted(count))

    def _listen(self) -> None:
        """Wait a moment for seats to answer, and do what follows from it."""
        by_call = {seat.call: seat for seat in self._seats if seat.call is not None}
        if not by_call:
            time.sleep(0.01)  # models are on their way
            return
        for call in self._cluster.wait(list(by_call), 0.02 if self._asked else 0.2):
            seat, answer = by_call[call], self._cluster.answer(call)
            seat.call = None
            match answer:
                case Hello():
                    self._welcome(seat, answer)
                case Report():
                    self._take(seat, answer)
                case Gone():
                    self._lose(seat, answer.why)

    def _welcome(self, seat: _Seat, hello: Hello) -> None:
        seat.node, seat.is_starting = hello.node, False
        self._failed_starts = 0
        problem = hello.problem or differences(hello.versions, self._order.versions)
        if not problem:
            return
        sentence = f"{hello.host}: {problem}"
        if hello.node in self._first_nodes:
            raise _Over(Refused(sentence))
        seat.is_useless = True  # and stays where it is, so that no other comes there
        self._stream.send(Said(f"{sentence}; it is left out"))

    def _take(self, seat: _Seat, report: Report) -> None:
        for row in report.rows:
            del seat.models[row.index]
        if report.rows:
            self._stream.send(report.rows)
        self._waiting.extendleft(reversed([seat.models.pop(index) for index in report.unstarted]))
        seat.pace = report.pace

    def _lose(self, seat: _Seat, why: str) -> None:
        self._seats.remove(seat)
        self._cluster.end(seat.actor)
        if seat.is_starting:
            self._failed_starts += 1
            if "No module named 'epsinas_onnx" in why:
                raise _Over(Refused("a node of the cluster has no epsinas-onnx; install it on every node"))
            if self._failed_starts >= _STARTS:
                raise _Over(Refused(f"no worker starts on the cluster ({_last_line(why)})", is_usage=False))
            return
        if not seat.models:
            return
        suspect, *others = seat.models.values()  # it takes one after the other
        self._waiting.extendleft(reversed(others))
        suspect.lost += (seat.node,)
        self._nodes = dict(self._cluster.nodes())
        deaths = sum(node in self._nodes for node in suspect.lost)
        if deaths >= _DEATHS:
            self._give_up(suspect, f"its worker on the cluster was lost twice ({_last_line(why)})")
        elif len(set(suspect.lost)) >= _NODES:
            self._give_up(suspect, f"{_NODES} nodes of the cluster were lost while they scored it")
        else:
            self._doubtful.append(suspect)

    def _give_up(self, model: Model, cause: str) -> None:
        self._stream.send((Row(model.index, model.name, pickle.dumps(Lost(cause))),))


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """Return what is wrong with the versions of a node, None where they are those of the run."""
    ours, theirs = _by_module(here), _by_module(there)
    other = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    if not other:
        return None
    listed = ", ".join(
        f"{name} {theirs.get(name, 'not')} there and {ours.get(name, 'not')} here" for name in sorted(other)
    )
    return f"other versions than on the machine of the command ({listed}); install the same on every node"


def _by_module(versions: Mapping[str, str]) -> dict[str, str]:
    """Return the versions, that of ONNX Runtime under one name, whichever of its two packages it is."""
    return {name.removesuffix("-gpu"): version for name, version in versions.items()}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason is given"
