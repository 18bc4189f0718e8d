"""Times the lumped graph against the plain one, side by side: `python benchmarks/lumping.py`.

Both sides go from ONNX bytes to a score: load, roles, rewriting or lumping, sessions, runs of both constants. They take
turns, and ratios are taken pair by pair. Beside that: what a lumped score costs apart from the engine's run, the run
against a graph written by hand for the same network, memory, and a decoder of 7 billion parameters.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper

import epsinas_onnx
from epsinas_exporters import classics
from epsinas_exporters.spaces import nasbench101, nasbench201
from epsinas_onnx.inputs.generate import grey_ramp

NETWORKS, BATCH = 20, 256
CONSTANTS = np.asarray([1e-7, 1.0], np.float32)


def main() -> None:
    """Print one table a section; `--only` picks sections by name."""
    sections: dict[str, Callable[[int], None]] = {
        "nasbench201": nasbench201_section,
        "nasbench101": nasbench101_section,
        "resnet50": resnet50_section,
        "positions": positions_section,
        "llama": llama_section,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(sections), default=list(sections))
    parser.add_argument("--threads", type=int, default=0, help="intra-op threads of both sides, 0 for one a core")
    parser.add_argument("--score", nargs=2, help=argparse.SUPPRESS)  # a process of its own, to see its memory
    chosen = parser.parse_args()
    if chosen.score:
        _score_alone(*chosen.score)
        return
    for name in chosen.only:
        sections[name](chosen.threads)


# NAS-Bench-201


def nasbench201_section(threads: int) -> None:
    """Time 20 networks both ways, what a lumped score costs apart from its run, and the run against one by hand."""
    print(f"NAS-Bench-201, {NETWORKS} networks drawn with seed 1, batch {BATCH}, both constants; medians of 3")
    print(f"{'network':30} {'plain s':>8} {'lumped ms':>10} {'ratio':>6} {'not the run ms':>15} {'by hand':>8}")
    rows = []
    for arch in nasbench201.sample(NETWORKS, seed=1):
        data = ir.to_proto(nasbench201.build(arch)).SerializeToString()
        plain, lumped, ratio, result = side_by_side(data, 3, batch=BATCH, threads=threads)
        rest = statistics.median(lumped_rest(data, threads) for _ in range(5))
        by_hand = run_ratio(arch, data, threads)
        rows.append((plain, lumped, ratio, rest, by_hand))
        name = nasbench201.file_name(arch).removesuffix(".onnx")
        shown = f"{result.status}" if result.score is None else ""
        print(f"{name:30} {plain:8.3f} {1e3 * lumped:10.1f} {ratio:6.1f} {1e3 * rest:15.1f} {by_hand:8.2f} {shown}")
        sys.stdout.flush()
    columns = list(zip(*rows, strict=True))
    print(f"geometric mean of the ratios: {statistics.geometric_mean(columns[2]):.1f}")
    print(f"everything but the run: mean {1e3 * statistics.mean(columns[3]):.1f} ms")
    print(f"run over the run of a graph written by hand: geometric mean {statistics.geometric_mean(columns[4]):.2f}\n")


def published(source: Any, **options: Any) -> epsinas_onnx.Score:
    """Score in float32, so that lumped and plain graphs both run on ONNX Runtime."""
    return epsinas_onnx.score(source, arithmetic="float32", **options)


def side_by_side(data: bytes, repeats: int, **options: Any) -> tuple[float, float, float, epsinas_onnx.Score]:
    """Return the median seconds plain and lumped, the median of the ratios pair by pair, and the lumped result."""
    pairs = []
    for _ in range(repeats + 1):
        plain, _ = timed(lambda: published(data, lump=False, **options))
        lumped, result = timed(lambda: published(data, **options))
        pairs.append((plain, lumped))
    pairs = pairs[1:] if repeats > 1 else pairs[-1:]  # the first pair warms up
    seconds = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return seconds[0], seconds[1], statistics.median(plain / lumped for plain, lumped in pairs), result


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall-clock seconds of `work` and what it returned."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def lumped_rest(data: bytes, threads: int) -> float:
    """Return the seconds of one lumped score that are not the engine's run."""
    seconds = published(data, batch=BATCH, threads=threads).seconds
    return seconds["load"] + seconds["rewrite"] + seconds["session"]


def run_ratio(arch: str, data: bytes, threads: int) -> float:
    """Return the seconds of a lumped run over those of a graph written by hand, taking turns; best of 7."""
    from epsinas_onnx.graph.load import load_model
    from epsinas_onnx.scoring.executors import ExecutionConfig, LumpedExecutor, lower
    from epsinas_onnx.scoring.options import GraphOptions
    from epsinas_onnx.scoring.plan import plan

    decided = plan(load_model(data), BATCH, GraphOptions())
    setting = ExecutionConfig(["CPUExecutionProvider"], threads)
    lowered = lower(decided, setting, 2)
    if lowered.cut_off is not None:
        return 1.0
    execution = LumpedExecutor(lowered, decided, setting)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(written_by_hand(arch), options, providers=["CPUExecutionProvider"])
    feeds = {"input": grey_ramp((BATCH, 3, 32, 32), 0)}
    execution.run(CONSTANTS.tolist(), feeds, None)
    session.run(None, feeds)
    pairs = [
        (timed(lambda: execution.run(CONSTANTS.tolist(), feeds, None))[0], timed(lambda: session.run(None, feeds))[0])
        for _ in range(7)
    ]
    return min(ours for ours, _ in pairs) / min(theirs for _, theirs in pairs)


class ByHand:
    """Writes the network of an architecture for both constants, one channel each (docs/lumping.md).

    Activations are [1, 2 * batch, height, width]: a depthwise convolution is a box filter, and batch normalisation
    is an InstanceNormalization of [1, 2, batch * height * width]. Channels that a convolution sums up go into epsilon.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}
        self.maps = 2 * BATCH

    def op(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node and return its output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def store(self, name: str, array: np.ndarray) -> str:
        """Store an array once."""
        self.stored.setdefault(name, onnx.numpy_helper.from_array(array, name))
        return name

    def conv_bn(self, x: str, width: int, size: int, kernel: int, stride: int = 1, relu: bool = True) -> str:
        """Append ReLU, convolution and batch normalisation over `width` channels, giving maps of `size` squared."""
        x = self.op("Relu", [x]) if relu else x
        scale = np.repeat(CONSTANTS, BATCH).reshape(self.maps, 1, 1, 1)
        if kernel == 1:
            x = self.op("Mul", [x, self.store("scale", scale.reshape(1, self.maps, 1, 1))])
        else:
            weight = self.store(f"kernel{kernel}", np.tile(scale, (1, 1, kernel, kernel)))
            x = self.op("Conv", [x, weight], group=self.maps, pads=[kernel // 2] * 4, strides=[stride, stride])
        return self.norm(x, size, 1e-5 / width**2)

    def norm(self, x: str, size: int, epsilon: float) -> str:
        """Append batch normalisation."""
        flat = self.op("Reshape", [x, self.store("flat", np.asarray([1, 2, -1]))])
        zeros = self.store("zeros", np.zeros(2, np.float32))
        flat = self.op("InstanceNormalization", [flat, self.store("constants", CONSTANTS), zeros], epsilon=epsilon)
        return self.op("Reshape", [flat, self.store(f"maps{size}", np.asarray([1, self.maps, size, size]))])

    def cell(self, x: str, cell: nasbench201.Cell, width: int, size: int) -> str:
        """Append a cell; what a `none` edge multiplies by 0 is left out."""
        nodes: list[str | None] = [x]
        for target in (1, 2, 3):
            total: str | None = None
            for (source, end), operation in zip(nasbench201.EDGES, cell.operations, strict=True):
                before = nodes[source] if end == target else None
                if before is None or operation == "none":
                    continue
                edge = before
                if operation.startswith("nor_conv"):
                    edge = self.conv_bn(before, width, size, int(operation[-1]))
                elif operation == "avg_pool_3x3":
                    edge = self.op("AveragePool", [before], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0)
                total = edge if total is None else self.op("Add", [total, edge])
            nodes.append(total)
        assert nodes[3] is not None
        return nodes[3]

    def network(self, cell: nasbench201.Cell) -> bytes:
        """Return the whole network as ONNX bytes."""
        x = self.op("ReduceSum", ["input", self.store("channels", np.asarray([1]))])
        x = self.op("Reshape", [x, self.store("images", np.asarray([1, BATCH, 32, 32]))])
        ones = self.store("ones", np.ones((BATCH, 1, 3, 3), np.float32))
        x = self.op("Conv", [x, ones], group=BATCH, pads=[1] * 4)
        both = self.store("both", CONSTANTS.reshape(2, 1, 1, 1))
        x = self.norm(self.op("Mul", [x, both]), 32, 1e-5)
        width, size = 16, 32
        for stage in range(3):
            if stage:
                main = self.conv_bn(x, width, size // 2, 3, stride=2)
                main = self.conv_bn(main, 2 * width, size // 2, 3)
                short = self.op("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
                scale = self.store("scale", np.repeat(CONSTANTS, BATCH).reshape(1, self.maps, 1, 1))
                counted = self.op("Mul", [self.op("Mul", [short, scale]), self.store(f"n{width}", np.float32([width]))])
                x, width, size = self.op("Add", [counted, main]), 2 * width, size // 2
            for _ in range(5):
                x = self.cell(x, cell, width, size)
        x = self.op("Relu", [self.norm(x, size, 1e-5)])
        x = self.op("GlobalAveragePool", [x])
        x = self.op("Reshape", [x, self.store("output_shape", np.asarray([2, BATCH]))])
        x = self.op("Mul", [x, self.store("both_once", CONSTANTS.reshape(2, 1))])
        graph = helper.make_graph(
            self.nodes, "by_hand", [helper.make_tensor_value_info("input", 1, (BATCH, 3, 32, 32))],
            [helper.make_tensor_value_info(x, 1, None)], list(self.stored.values()),
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        return bytes(model.SerializeToString())


def written_by_hand(arch: str) -> bytes:
    """Return a graph for both constants that knows the network rather than finding out about it."""
    return ByHand().network(nasbench201.parse(arch))


# NAS-Bench-101


def nasbench101_section(threads: int) -> None:
    """Time three cells of NAS-Bench-101 at batch 64."""
    cells = {
        "conv3x3, conv3x3": (["conv3x3", "conv3x3"], [(0, 1), (1, 2), (2, 3)]),
        "conv3x3 beside conv1x1": (["conv3x3", "conv1x1"], [(0, 1), (0, 2), (1, 3), (2, 3)]),
        "five convolutions": (
            ["conv1x1", "conv3x3", "conv3x3", "conv3x3", "conv1x1"],
            [(0, 1), (1, 2), (0, 3), (2, 3), (1, 4), (3, 5), (4, 5), (5, 6)],
        ),
    }
    print("networks of NAS-Bench-101 (128 to 512 channels, 9 cells), batch 64; one pair each")
    print(f"{'cell':30} {'plain s':>8} {'lumped ms':>10} {'ratio':>6}")
    ratios = []
    for name, (operations, edges) in cells.items():
        size = len(operations) + 2
        matrix = [[int((a, b) in edges) for b in range(size)] for a in range(size)]
        cell = nasbench101.checked(matrix, ["input", *(f"{kind}-bn-relu" for kind in operations), "output"])
        data = ir.to_proto(nasbench101.build(str(cell))).SerializeToString()
        options = {"batch": 64, "weights": (1e-4, 10.0), "threads": threads}
        published(data, **options)
        plain, _ = timed(lambda: published(data, lump=False, **options))  # noqa: B023
        lumped = statistics.median(timed(lambda: published(data, **options))[0] for _ in range(3))  # noqa: B023
        ratios.append(plain / lumped)
        print(f"{name:30} {plain:8.2f} {1e3 * lumped:10.1f} {ratios[-1]:6.1f}", flush=True)
    print(f"geometric mean of the ratios: {statistics.geometric_mean(ratios):.1f}\n")


# ResNet-50


def resnet50_section(threads: int) -> None:
    """Time ResNet-50 at 224x224, batch 32, and measure the memory of either side in a process of its own."""
    model = classics.resnet50()
    data = ir.to_proto(model).SerializeToString()
    published(data, batch=32, threads=threads)
    plain, _ = timed(lambda: published(data, batch=32, lump=False, threads=threads))
    lumped = statistics.median(timed(lambda: published(data, batch=32, threads=threads))[0] for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        path.write_bytes(data)
        peaks = {
            lump: alone(str(path), {"batch": 32, "lump": lump, "threads": threads})["peak"] for lump in (False, True)
        }
    above = {lump: peak - idle_bytes() for lump, peak in peaks.items()}
    print("ResNet-50, 224x224, batch 32, both constants")
    print(f"plain {plain:.2f} s, lumped {1e3 * lumped:.0f} ms: ratio {plain / lumped:.1f}")
    print(
        f"memory above an interpreter that has only started: plain {above[False] / 2**20:.0f} MiB, lumped "
        f"{above[True] / 2**20:.0f} MiB: 1/{above[False] / above[True]:.1f}\n"
    )


# Positions


def positions_section(threads: int) -> None:
    """Time image networks at two resolutions with positions merged, and with all of them apart, taking turns."""
    print("positions merged, CPU time, batch 256, grey ramp, both constants; medians of 3")
    print(f"{'network':24} {'apart ms':>9} {'merged ms':>10} {'ratio':>6} {'lower':>7} {'session':>8} {'run':>6}")
    for make in (classics.resnet50, classics.mobilenet_v2):
        for size in (224, 448):
            data = ir.to_proto(make(size=size)).SerializeToString()
            pairs = [(_cpu(data, threads, merged=False), _cpu(data, threads, merged=True)) for _ in range(4)][1:]
            apart, merged = (statistics.median(1e3 * row[0] for row in column) for column in zip(*pairs, strict=True))
            seconds = pairs[-1][1][1].seconds
            lower, session, run = (1e3 * seconds[key] for key in ("rewrite", "session", "run"))
            name = f"{make.__name__} {size}x{size}"
            print(f"{name:24} {apart:9.0f} {merged:10.0f} {apart / merged:6.1f} {lower:7.1f} {session:8.1f} {run:6.1f}")
    print()


def _cpu(data: bytes, threads: int, merged: bool) -> tuple[float, epsinas_onnx.Score]:
    """Return the CPU seconds of a score and the score, with positions merged or told apart."""
    from epsinas_onnx.scoring.feeds import Feeds

    keep = Feeds.parts
    if not merged:
        Feeds.parts = lambda self, specs: {}  # type: ignore[method-assign]
    started = time.process_time()
    try:
        result = published(data, batch=BATCH, threads=threads)
    finally:
        Feeds.parts = keep  # type: ignore[method-assign]
    return time.process_time() - started, result


# A decoder of 7 billion parameters


def llama_section(threads: int) -> None:
    """Score a Llama-like decoder of 32 layers and width 4096 from a file without weights, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llama.onnx"
        path.write_bytes(ir.to_proto(classics.llama()).SerializeToString())
        found = alone(str(path), {"batch": 4, "shapes": {"sequence": 16}, "threads": threads})
        print(f"Llama-like decoder, {found['parameters'] / 1e9:.2f} billion parameters, {path.stat().st_size:,} bytes")
    print(f"4 sequences of 16 tokens: {found['seconds']:.1f} s, {found['peak'] / 2**20:.0f} MiB at the peak")
    print(f"{found['status']}: {found['reason']}")


def alone(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Score a file in a new process, and return what that took."""
    done = subprocess.run(
        [sys.executable, __file__, "--score", path, json.dumps(options)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def idle_bytes() -> int:
    """Return the memory of an interpreter that has only started; libraries count for the score that needs them."""
    code = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    return 1024 * int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _score_alone(path: str, options: str) -> None:
    seconds, result = timed(lambda: published(path, **json.loads(options)))
    # Not getrusage, whose peak counts what the parent process held when it forked.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    record = {"status": result.status, "reason": result.reason, "parameters": result.parameters}
    print(json.dumps({**record, "seconds": seconds, "peak": 1024 * int(line.split()[1])}))


if __name__ == "__main__":
    main()
