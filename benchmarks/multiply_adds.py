"""Compares the multiply-adds of ONNX files with what onnx-tool counts, which this script alone needs.

    pip install onnx-tool
    python benchmarks/multiply_adds.py models/*.onnx folder/*.onnx

onnx-tool adds up operations of every kind; taken here are those of convolutions and matrix products. It adds a bias as
one operation an entry, which is no product and is taken off again, and to recurrences the arithmetic of their gates.
Where there are recurrences, or where it gives a network up, the shapes that ONNX Runtime measures in a run take its
place (marked `run`), in formulas that are written here once more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_tool
import onnxruntime as ort

from epsinas_onnx.errors import EpsinasError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.lump.counting import count_multiply_adds
from epsinas_onnx.scoring.options import score_options
from epsinas_onnx.scoring.plan import plan

_RECURRENT = ("DynamicQuantizeLSTM", "GRU", "LSTM", "RNN")
_INTEGER = ("ConvInteger", "MatMulInteger")
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", *_RECURRENT, *_INTEGER)


def by_onnx_tool(path: Path, specs: tuple[InputSpec, ...]) -> int:
    """Return what onnx-tool counts, biases taken off; whatever it raises where it cannot."""
    with contextlib.redirect_stdout(io.StringIO()):
        graph = onnx_tool.Model(str(path), {"verbose": False}).graph
        graph.shape_infer({spec.name: np.ones(spec.shape, spec.dtype.numpy()) for spec in specs})
        graph.profile()
    if any(node.op_type in (*_RECURRENT, *_INTEGER) for node in graph.nodemap.values()):
        raise NotImplementedError
    total = 0
    for node in graph.nodemap.values():
        if node.op_type in _PRODUCTS:
            biased = node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2
            bias = math.prod(graph.tensormap[node.output[0]].get_shape()) if biased else 0
            total += int(node.macs[0]) - bias
    return total


def by_running(path: Path, specs: tuple[InputSpec, ...]) -> int:
    """Return the count of the main graph from the shapes that its values have in a run."""
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type in _PRODUCTS]
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = {name for node in nodes for name in [*node.input[:3], node.output[0]] if name and name not in stored}
    fed = {spec.name: np.ones(spec.shape, spec.dtype.numpy()) for spec in specs}
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(wanted - known - set(fed)))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = dict(zip(names, session.run(names, fed), strict=True))
    shapes = stored | {name: np.shape(array) for name, array in {**arrays, **fed}.items()}
    return sum(_products(node, shapes) for node in nodes)


def _products(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    x, w = shapes[node.input[0]], shapes[node.input[1]]
    if node.op_type in _RECURRENT:
        return x[0] * x[1] * (math.prod(w) + math.prod(shapes[node.input[2]]))
    y = shapes[node.output[0]]
    if node.op_type in ("Conv", "ConvInteger"):
        return math.prod(y) * math.prod(w) // w[0]
    if node.op_type == "ConvTranspose":
        return math.prod(x) * math.prod(w) // w[0]
    if node.op_type in (
        "MatMul",
        "MatMulInteger",
        "Gemm",
    ):  # entries of the left matrix times columns, or rows times those of the right
        return math.prod(y) * (x[0] if any(a.name == "transA" and a.i for a in node.attribute) else x[-1])
    raise NotImplementedError(node.op_type)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    agreeing: Counter[str] = Counter()
    print("| model | epsinas-onnx | other | by | |\n| :- | -: | -: | :- | :- |")
    for path in parser.parse_args().models:
        try:
            planned = plan(load_model(path), 1, score_options().whole_graph(), infer=True)
            specs = planned.specs
            ours = count_multiply_adds(planned.model, planned.name, specs, planned.decisions)
        except EpsinasError as error:
            print(f"| {path.name} | error | | | {error} |")
            continue
        theirs, by = None, "nobody"
        for name, count in (("onnx-tool", by_onnx_tool), ("run", by_running)):
            try:
                theirs, by = count(path, specs), name
                break
            except Exception as error:  # another counter, which may fail in any way
                by = f"nobody ({type(error).__name__})"
        verdict = "same" if theirs == ours.total else "" if theirs is None else f"{theirs - ours.total:+,}"
        agreeing[verdict == "same"] += 1
        notes = "; ".join([verdict, *ours.notes()])
        print(
            f"| {path.name} | {ours.total:,} | {'' if theirs is None else f'{theirs:,}'} | {by} | {notes} |", flush=True
        )
    print(f"\n{agreeing[True]} of {sum(agreeing.values())} the same")


if __name__ == "__main__":
    main()
