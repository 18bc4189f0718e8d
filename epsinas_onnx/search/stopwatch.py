"""The process behind `Stopwatch`: reads a question a line, runs the network, and answers with a line of JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

_BATCH = ("batch", "batch_size", "N")
"""What exporters call the axis of samples, where it is not the first."""
_FEWEST = 5
"""Runs that there are however long one takes."""


def main() -> None:
    """Answer questions until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        try:
            answer = measure(json.loads(line))
        except Exception as error:  # whatever a network provokes is its own answer
            answer = {"error": " ".join(str(error).split()) or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def measure(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the median of repeated runs, in milliseconds, with its quartiles."""
    from epsinas_onnx.runtime.providers import choose_providers, runtime

    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = question["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(question["model"], options, providers=choose_providers(question["provider"]))
    feeds = {one.name: _fed(one, question["batch"], question["shapes"]) for one in session.get_inputs()}
    for _ in range(question["warmups"]):
        session.run(None, feeds)
    seconds: list[float] = []
    ends = time.perf_counter() + question["seconds"]
    while len(seconds) < question["runs"] and (len(seconds) < _FEWEST or time.perf_counter() < ends):
        started = time.perf_counter()
        session.run(None, feeds)
        seconds.append(time.perf_counter() - started)
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {
        "milliseconds": 1e3 * middle, "low": 1e3 * low, "high": 1e3 * high, "runs": len(seconds),
        "provider": session.get_providers()[0],
    }  # fmt: skip


def _fed(given: Any, batch: int, shapes: Mapping[str, Any]) -> Any:
    """Return an array for an input of a session: normal numbers, or small whole ones from 0."""
    import ml_dtypes
    import numpy as np

    shape = [_size(given, axis, size, batch, shapes) for axis, size in enumerate(given.shape)]
    kind = given.type.removeprefix("tensor(").removesuffix(")")
    names = {"float": "float32", "double": "float64"}
    rng = np.random.default_rng(0)
    if kind == "bool":
        return np.ones(shape, np.bool_)
    if kind == "string":
        return np.full(shape, "", object)
    dtype = np.dtype(ml_dtypes.bfloat16) if kind == "bfloat16" else np.dtype(names.get(kind, kind))
    if dtype.kind in "iu":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _size(given: Any, axis: int, size: int | str | None, batch: int, shapes: Mapping[str, Any]) -> int:
    whole: Sequence[int] | int | None = shapes.get(given.name)
    if isinstance(whole, (list, tuple)) and axis < len(whole):
        return int(whole[axis]) if axis or isinstance(size, int) else batch
    if isinstance(size, int):
        return size
    if isinstance(size, str) and isinstance(shapes.get(size), int):
        return int(shapes[size])
    if axis == 0 or size in _BATCH:
        return batch
    raise ValueError(f"axis {axis} of the input {given.name} has no size; name it with --dim {size or 'NAME'}=SIZE")


if __name__ == "__main__":
    main()
