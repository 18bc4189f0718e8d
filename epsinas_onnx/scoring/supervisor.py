"""Keeps worker processes at work: a task each, watched, ended where it breaks a limit, and replaced when it dies."""

from __future__ import annotations

import pickle
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from epsinas_onnx.errors import UsageError
from epsinas_onnx.scoring.limits import NO_LIMITS, Limits
from epsinas_onnx.scoring.process import QUICK, SURE, Happened, Outcome, Process, Task, text_of

T = TypeVar("T")
Result: TypeAlias = "tuple[int, T | Failure]"
"""The position of a task, and what came of it."""

_LOOK = 0.05  # seconds between two looks at what the processes take
_PASSED = 2.0  # seconds that count between two looks at most: the parent may have been stopped, or busy elsewhere
_STARTS = 10  # processes in a row that fail to start before no more are tried
_GROWN = 2**30  # bytes by which a process may grow before it is replaced, and gives its memory back


@dataclass(frozen=True)
class Failure:
    """Why a task has no result, as a sentence without a subject, and after how many seconds."""

    cause: str
    seconds: float = 0.0


class Workers:
    """Worker processes that are kept between tasks; a context manager. jobs: how many at a time. limits: of a task."""

    def __init__(self, jobs: int, limits: Limits = NO_LIMITS) -> None:
        self._jobs, self._limits = jobs, limits
        self._events: queue.SimpleQueue[tuple[Process, Happened, bytes]] = queue.SimpleQueue()
        self._processes: list[Process] = []
        self._failed_starts = 0
        self._method = QUICK
        self._ended = ""
        self._looked = time.monotonic()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        for process in self._processes:
            process.end()
        for process in self._processes:
            process.reap()
        self._processes.clear()

    def run(self, work: Callable[..., T], args: tuple[Any, ...]) -> T | Failure:
        """Return the result of one task; what it raises passes through."""
        [(_, result)] = self.results(work, [args])
        return result

    def results(
        self, work: Callable[..., T], tasks: Iterable[tuple[Any, ...]], *, ahead: bool = False
    ) -> Iterator[Result[T]]:
        """Yield the result of every task as it comes; what `work` raises passes through.

        work: a function of a module, whose arguments and result are picklable. tasks: the arguments of each, taken as
        processes are free for them. A task whose process dies is done again once, in a fresh one. ahead: whether a
        process that is done gets its next task before the result is yielded, so that it need not wait for whoever takes
        results; tasks must not depend on these then.
        """
        batch = _Batch(work, tasks)
        try:
            while self._busy or not batch.is_done:
                batch.take(self._jobs - len(self._busy))
                yield from batch.unfit()
                if self._failed_starts >= _STARTS:
                    yield from batch.given_up(f"no worker process could be started ({self._ended})")
                self._hand_out(batch)
                happened = self._next(batch)
                found = list(happened)
                if found and ahead:
                    batch.take(self._jobs - len(self._busy))
                    self._hand_out(batch)
                yield from found
        finally:
            for process in self._busy:  # only where the batch was broken off
                process.end()
                process.task = None

    @property
    def _busy(self) -> list[Process]:
        return [process for process in self._processes if process.task is not None]

    def _hand_out(self, batch: _Batch[T]) -> None:
        for process in self._processes:
            task = batch.next_for(process) if process.is_idle else None
            if task is not None:
                process.give(task)
        coming = sum(process.is_starting for process in self._processes)
        for _ in range(min(len(batch.waiting) - coming, self._jobs - len(self._processes))):
            self._processes.append(Process(lambda *event: self._events.put(event), batch.work, self._method))

    def _next(self, batch: _Batch[T]) -> Iterator[Result[T]]:
        """Wait for something to happen, a short while at most; yield the result that it brings."""
        try:
            event = self._events.get(timeout=_LOOK)
        except queue.Empty:
            event = None
        if event is not None:
            yield from self._happened(*event, batch)
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            passed, self._looked = min(now - self._looked, _PASSED), now
            for process in self._processes:
                if not process.is_ended and not process.is_idle:
                    process.look(passed, self._limits)

    def _happened(self, process: Process, what: Happened, message: bytes, batch: _Batch[T]) -> Iterator[Result[T]]:
        if process not in self._processes:
            return
        match what:
            case Happened.READY:
                process.started()
                self._failed_starts = 0
            case Happened.DONE:
                task, process.task, process.is_fresh = process.task, None, False
                if process.grown() > _GROWN:
                    process.end()
                if task is not None:
                    yield task.index, _read(message, process.seconds)
            case Happened.GONE | Happened.UNSENT:
                self._processes.remove(process)
                self._ended = process.reap()
                if process.is_unguarded:
                    raise UsageError(_UNGUARDED)
                if process.is_starting:
                    self._failed_starts, self._method = self._failed_starts + 1, SURE
                elif process.task is not None and what is Happened.UNSENT:
                    batch.waiting.appendleft(process.task)
                elif process.task is not None:
                    yield from batch.died(process.task, process, self._ended)


def in_order(results: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Yield what comes with its position by that position; what comes too early is held meanwhile."""
    early: dict[int, T] = {}
    following = 0
    for index, result in results:
        early[index] = result
        while following in early:
            yield early.pop(following)
            following += 1


class _Batch(Generic[T]):
    """The tasks of one call that are in no process: those to come, and those to be done again."""

    def __init__(self, work: Callable[..., T], tasks: Iterable[tuple[Any, ...]]) -> None:
        self.work, self._tasks = work, enumerate(tasks)
        self._exhausted = False
        self._unfit: list[tuple[int, Failure]] = []
        self.waiting: deque[Task] = deque()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to hand out, or to say."""
        return self._exhausted and not self.waiting and not self._unfit

    def take(self, free: int) -> None:
        """Take tasks until there is one for every free process."""
        while len(self.waiting) < free and not self._exhausted and not self._unfit:
            index, args = next(self._tasks, (-1, None))
            if args is None:
                self._exhausted = True
                return
            try:
                self.waiting.append(Task(index, pickle.dumps((self.work, args))))
            except Exception as error:  # what cannot be pickled raises as it likes
                self._unfit.append((index, Failure(f"cannot be handed to a worker process: {text_of(error)}")))

    def unfit(self) -> Iterator[tuple[int, Failure]]:
        """Yield the failures of tasks that no process can be given."""
        unfit, self._unfit = self._unfit, []
        yield from unfit

    def given_up(self, why: str) -> Iterator[tuple[int, Failure]]:
        """Yield a failure for each waiting task."""
        while self.waiting:
            yield self.waiting.popleft().index, Failure(why)

    def next_for(self, process: Process) -> Task | None:
        """Return a task that the process may do: what killed one before is done in a fresh one."""
        for task in self.waiting:
            if process.is_fresh or not task.deaths:
                self.waiting.remove(task)
                return task
        return None

    def died(self, task: Task, process: Process, how: str) -> Iterator[tuple[int, Failure]]:
        """Let a task be done again whose process died, or yield why it is not."""
        task.deaths += 1
        if task.deaths == 1 and process.may_repeat:
            self.waiting.appendleft(task)
            return
        yield task.index, Failure(process.why or _how_it_died(how), process.seconds)


_DIED = (
    "its worker process died twice ({}), most likely for lack of memory or by a fault in ONNX Runtime; try a smaller "
    "--batch, another --shape or fewer --jobs"
)
_DIVIDED = (
    "its worker process died twice (SIGFPE), most likely by a division by 0 in ONNX Runtime, as of sizes that are too "
    "small for a window; give larger ones with --shape or --dim"
)
_UNGUARDED = (
    "each worker process reads the script that started it, so what starts them must stand below "
    '`if __name__ == "__main__":` there; or score with jobs=1 and isolate=False'
)


def _how_it_died(how: str) -> str:
    return _DIVIDED if how == "SIGFPE" else _DIED.format(how)


def _read(message: bytes, seconds: float) -> Any:
    """Return what a process sent, or raise what was raised there."""
    try:
        outcome, result = pickle.loads(message)
    except Exception as error:
        return Failure(f"has a result that cannot be read: {text_of(error)}", seconds)
    if outcome is Outcome.RAISED:
        raise result
    return Failure(result, seconds) if outcome is Outcome.FAILED else result
