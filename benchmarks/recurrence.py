"""Why NAS-Bench-NLP cells are written as Scan, beside Loop and unrolled: `python benchmarks/recurrence.py`.

Size of the file, and seconds from building the graph to the score, the three forms taking turns on the same recipes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

import epsinas_onnx
from epsinas_exporters import spaces
from epsinas_exporters.builder import GraphBuilder
from epsinas_exporters.spaces import nasbenchnlp
from epsinas_exporters.spaces.nasbenchnlp import STEPS, CellWriter

Form = Callable[[GraphBuilder, CellWriter, ir.Value, Sequence[ir.Value]], ir.Value]


def main() -> None:
    """Print one line for each form; ratios are taken recipe by recipe against Scan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=10)
    parser.add_argument("--no-lump", action="store_true", help="time the plain graphs instead of the lumped ones")
    chosen = parser.parse_args()
    space = spaces.get("nasbenchnlp")
    forms: dict[str, Form] = {"Scan": nasbenchnlp.scanned, "Loop": _looped, "unrolled": _unrolled}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    sizes: dict[str, list[int]] = {name: [] for name in forms}
    largest = 0.0
    epsinas_onnx.score(space.build(space.sample(1, seed=1)[0]), weights=space.defaults.weights, inputs="tokens",
                       batch=space.defaults.batch, providers="cpu",
                       arithmetic="float32")  # fmt: skip  # imports, thread pools
    for arch in space.sample(chosen.recipes, seed=0):
        scores = []
        for name, form in forms.items():
            nasbenchnlp.scanned = form
            started = time.perf_counter()
            data = ir.to_proto(space.build(arch)).SerializeToString()
            score = epsinas_onnx.score(
                data, weights=space.defaults.weights, inputs="tokens", batch=space.defaults.batch, providers="cpu",
                lump=not chosen.no_lump, arithmetic="float32",
            )  # fmt: skip
            seconds[name].append(time.perf_counter() - started)
            sizes[name].append(len(data))
            scores.append(score.raw_score)
        if None not in scores and scores[0]:
            largest = max(largest, max(abs(s / scores[0] - 1) for s in scores))
    for name in forms:
        ratio = statistics.geometric_mean(a / b for a, b in zip(seconds[name], seconds["Scan"], strict=True))
        size = statistics.mean(sizes[name])
        print(f"{name:9} {size:9,.0f} bytes  {statistics.mean(seconds[name]):6.3f} s  {ratio:6.2f} times Scan")
    print(f"largest relative difference of a raw score: {largest:.1e}")


def _looped(b: GraphBuilder, cell: CellWriter, x: ir.Value, starts: Sequence[ir.Value]) -> ir.Value:
    body = GraphBuilder(f"{cell.name}.cell")
    number = ir.Value(name=f"{cell.name}.i", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    more = ir.Value(name=f"{cell.name}.more", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    states = [
        ir.Value(name=f"{cell.name}.h_prev_{k}", type=ir.TensorType(ir.DataType.FLOAT)) for k in range(len(starts))
    ]
    made = cell.step(body, body.op("Gather", [x, number], f"{cell.name}.x", axis=0), states, cell.name)
    outputs = [body.op("Identity", [more], f"{cell.name}.go_on")]
    outputs += [body.op("Identity", [value], f"{cell.name}.state{k}") for k, value in enumerate([*made, made[0]])]
    for value in outputs[1:]:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    outputs[0].type, outputs[0].shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([])
    graph = ir.Graph(
        [number, more, *states], outputs, nodes=body.nodes, initializers=list(body.initializers.values()),
        name=body.name,
    )  # fmt: skip
    true = ir.tensor(np.asarray(True), name="true")
    b.initializers["true"] = b.initializers.get("true") or ir.Value(
        name="true", const_value=true, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([])
    )
    operands = [b.int64_scalar(STEPS), b.initializers["true"], *starts]
    b.op("Loop", operands, f"{cell.name}.loop", outputs=len(starts) + 1, body=graph)
    return b.nodes[-1].outputs[len(starts)]


def _unrolled(b: GraphBuilder, cell: CellWriter, x: ir.Value, starts: Sequence[ir.Value]) -> ir.Value:
    # Without a trace of the input in them, the first step's products would be taken for stored biases.
    tokens = b.op("Cast", [b.nodes[_position(b, "tokens.by_step")].outputs[0]], f"{cell.name}.float", to=1)
    column = b.op("Gather", [tokens, b.int64_scalar(0)], f"{cell.name}.column", axis=0)
    nothing = b.op("Mul", [b.op("Unsqueeze", [column, b.int64s([1])], f"{cell.name}.row"), b.scalar(1e-30, "tiny")],
                   f"{cell.name}.nothing")  # fmt: skip
    states = [b.op("Add", [start, nothing], f"{cell.name}.start{k}") for k, start in enumerate(starts)]
    shown = []
    for index in range(STEPS):
        name = f"{cell.name}.step{index}"
        given = b.op("Gather", [x, b.int64_scalar(index)], f"{name}.x", axis=0)
        states = cell.step(b, given, states, name)
        shown.append(b.op("Unsqueeze", [states[0], b.int64s([0])], f"{name}.output"))
    return b.op("Concat", shown, f"{cell.name}.outputs", axis=0)


def _position(b: GraphBuilder, name: str) -> int:
    return next(index for index, node in enumerate(b.nodes) if node.name == name)


if __name__ == "__main__":
    main()
