"""The process that talks to Ray for a run: started by `engine.py`, which never loads Ray itself.

So what Ray prints does not end up among results, and a cluster that is lost, which ends the process that talks to it,
does not end the run before its rows are written.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from typing import Any

from epsinas_onnx.scoring.cluster.messages import Connected, Order, Refused, Stream

_GRACE = 10.0  # seconds that Ray may take to end once nobody listens any more


def main() -> None:
    """Read an order and models from standard input, and write what comes of them to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    stream = Stream(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1) if os.environ.get("EPSINAS_TRACEBACK") else (0, 1, 2):
        os.dup2(quiet, descriptor)
    if sys.stdout is not None and os.environ.get("EPSINAS_TRACEBACK"):
        sys.stdout = sys.stderr
    order = stream.receive()
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(stream, inbox), name="epsinas-reader", daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        _run(order, stream, inbox)


def _read(stream: Stream, inbox: queue.SimpleQueue[Any]) -> None:
    while (message := stream.receive()) is not None:
        inbox.put(message)
    inbox.put(None)
    timer = threading.Timer(_GRACE, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _run(order: Order, stream: Stream, inbox: queue.SimpleQueue[Any]) -> None:
    import ray

    from epsinas_onnx.scoring.cluster.dispatch import Dispatch
    from epsinas_onnx.scoring.cluster.on_ray import Ray, connect

    try:
        refused = connect(order.address)
        if refused is not None:
            stream.send(Refused(refused))
            return
        stream.send(Connected())
        stream.send(Dispatch(Ray(order), order, stream, inbox).run())
    except ray.exceptions.RayError as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        stream.send(Refused(f"Ray failed: {first}", is_usage=False))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
