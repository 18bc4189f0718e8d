"""One worker process: what runs in it, and the parent's end of it, a thread that talks to it over a pipe of its own."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil

from epsinas_onnx.evaluate_lumped.fused.compiled import machine
from epsinas_onnx.scoring.limits import Limits

QUICK = "forkserver" if sys.platform == "linux" else "spawn"
"""How processes are started: forked from one that has imported what they need, where the system can be trusted to."""

SURE = "spawn"
"""How they are started where that failed: the process that is forked from may be what is dead, or stopped."""

_STOPPED = 10.0  # seconds after which a process that was stopped is given up
_STARTING = 180.0  # seconds that a process may take to start, which may have something to compile first
_DYING = 5.0  # seconds that are waited for a killed process
_UNGUARDED = 86  # exit code of a process that would start processes while it reads the caller's script


class Happened(Enum):
    """What a process has to say."""

    READY = "it has started"
    DONE = "it is done with its task"
    UNSENT = "it had died before it was given the task"
    GONE = "it died"


class Outcome(Enum):
    """What became of a task."""

    RETURNED = "returned"
    RAISED = "raised"
    FAILED = "failed, with a sentence"


@dataclass
class Task:
    """A task on its way. data: what its process is sent. deaths: how many processes died of it."""

    index: int
    data: bytes
    deaths: int = 0


def prepare(modules: Sequence[str]) -> None:
    """Start what worker processes are forked from, which imports these modules while the caller does other things.

    For programs: it decides for every process that this one starts with `forkserver`.
    """
    if QUICK == "forkserver":
        from multiprocessing import forkserver

        _expect_deaths()
        forkserver.set_forkserver_preload(list(modules))
        with _interrupts_held():
            forkserver.ensure_running()


class Process:
    """The parent's end of a worker process.

    tell: is called from a thread with what happens. work: what it will do, whose module is imported before the time of
    a task begins. method: how it starts.

    task: what it works on. is_fresh: whether it has done nothing yet. may_repeat: whether its task may be done again
    where it is gone. why: why it was ended, None where it was not.
    """

    def __init__(
        self, tell: Callable[[Process, Happened, bytes], None], work: Callable[..., Any], method: str = QUICK
    ) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):  # as Python tells it when it refuses
            os._exit(_UNGUARDED)
        context: Any = multiprocessing.get_context(method)
        self._ours, self._theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._theirs, work), daemon=True)
        self._info: psutil.Process | None = None
        self._failed = ""
        self._tell = tell
        self._inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.task: Task | None = None
        self.is_starting, self.is_fresh, self.is_ended = True, True, False
        self.why: str | None = None
        self.may_repeat = True
        self._given = time.monotonic()
        self._waited = self._stopped = 0.0
        self._first_size = 0
        threading.Thread(target=self._talk, name="epsinas-worker", daemon=True).start()

    def _start(self) -> None:
        _expect_deaths()
        with self._theirs, _interrupts_held():
            self._process.start()
        self._info = psutil.Process(self._process.pid)
        if self.is_ended:
            self.end(self.why)

    def _talk(self) -> None:
        try:
            self._start()
        except Exception as error:  # no memory or file descriptor is left, or what it is forked from died
            self._failed = text_of(error)
            self._tell(self, Happened.GONE, b"")
            return
        try:
            self._ours.recv_bytes()
            self._tell(self, Happened.READY, b"")
            while (task := self._inbox.get()) is not None:
                try:
                    self._ours.send_bytes(task.data)
                except OSError:
                    self._tell(self, Happened.UNSENT, b"")
                    return
                self._tell(self, Happened.DONE, self._ours.recv_bytes())
        except (EOFError, OSError):
            pass
        self._tell(self, Happened.GONE, b"")

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a task."""
        return not self.is_starting and not self.is_ended and self.task is None

    @property
    def seconds(self) -> float:
        """How long it has had its task."""
        return time.monotonic() - self._given

    def started(self) -> None:
        """Note that it can be given tasks, and what it takes without one."""
        self.is_starting = False
        self._first_size = self._resident()

    def give(self, task: Task) -> None:
        """Hand it a task."""
        self.task = task
        self._given, self._waited = time.monotonic(), 0.0
        self._inbox.put(task)

    def grown(self) -> int:
        """Return how many bytes it takes more than it did at first."""
        return self._resident() - self._first_size

    def look(self, passed: float, limits: Limits) -> None:
        """End it where it has broken a limit; passed: seconds since the last look."""
        self._waited += passed
        if self.is_starting:
            if self._waited > _STARTING:
                self.end("could not start")
            return
        self._stopped = self._stopped + passed if self._is_stopped() else 0.0
        if limits.timeout and self._waited > limits.timeout:
            self.may_repeat = False
            self.end(limits.too_slow())
        elif limits.memory and self._resident() > limits.bytes:
            self.may_repeat = not self.is_fresh  # what models before left may have been too much
            self.end(limits.too_large())
        elif self._stopped > _STOPPED:
            self.end("its worker process was stopped from outside (SIGSTOP), and did not go on")

    def end(self, why: str | None = None) -> None:
        """Kill it; that it is gone is told as if it had died."""
        self.is_ended, self.why = True, why
        with contextlib.suppress(psutil.Error):
            if self._info is not None:
                self._info.kill()
        self._inbox.put(None)

    @property
    def is_unguarded(self) -> bool:
        """Whether it ended because the script, which it reads first, calls for processes itself."""
        return bool(self._process.exitcode == _UNGUARDED)

    def reap(self) -> str:
        """Wait until it is gone; return how it ended, by the signal's name where it was one."""
        self._inbox.put(None)
        if self._failed or self._info is None:
            return self._failed or "it does not start"
        self._process.join(_DYING)
        code = self._process.exitcode
        if code is None:
            return "it does not end"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"exit code {code}"

    def _resident(self) -> int:
        try:
            return 0 if self._info is None else int(self._info.memory_info().rss)
        except psutil.Error:
            return 0

    def _is_stopped(self) -> bool:
        try:
            return self._info is not None and self._info.status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False


def _expect_deaths() -> None:
    """Let Python start its own helper process again, where that was killed too, without a warning."""
    warnings.filterwarnings("ignore", "resource_tracker: process died unexpectedly", UserWarning)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back meanwhile; a process that is started here never gets it, since its parent is the one to act."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # Python starts it in front of others, and lets Ctrl-C through from then on
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, _: Callable[..., Any]) -> None:
    """Do the tasks that come through the pipe, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    machine()  # what is compiled when it is first needed would cost a task its time
    gc.freeze()  # what is imported by now stays, and need not be searched for circles again and again
    try:
        pipe.send_bytes(b"")
        while True:
            pipe.send_bytes(_done(pipe.recv_bytes()))
    except (EOFError, OSError):  # the parent is gone
        return


def _done(data: bytes) -> bytes:
    try:
        work, args = pickle.loads(data)
    except Exception as error:  # a module that cannot be imported here, for one
        return pickle.dumps((Outcome.FAILED, f"cannot be read by a worker process: {text_of(error)}"))
    try:
        outcome, result = Outcome.RETURNED, work(*args)
    except Exception as error:
        error.add_note(f"In the worker process:\n{traceback.format_exc()}")
        outcome, result = Outcome.RAISED, error
    try:
        return pickle.dumps((outcome, result))
    except Exception as error:
        return pickle.dumps((Outcome.FAILED, f"has a result that cannot be handed over: {text_of(error)}"))


def text_of(error: BaseException) -> str:
    """Return an exception on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _end_with_parent() -> None:
    """See to it that this process does not outlive its parent, whatever it is busy with."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform == "linux":  # a signal, since a thread would wait for C++ code that holds Python's lock
        import fcntl

        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
        if wait([parent.sentinel], 0):
            os._exit(1)
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
