"""Draws variants of networks, runs every one with weights in ONNX Runtime, and writes the table of docs/around.md.

    python benchmarks/around.py FOLDER --variants 200 [MODEL ...]

Without models: a ResNet-18, a MobileNetV2 and a small transformer, in a few lines of torch (tests/search/around), each
exported by this package's exporter and by torch.onnx as users call it, with weights; FOLDER keeps the six files. A
variant is filled, and runs as a user would run it, with all of ONNX Runtime's optimisations; a batch of 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from epsinas_onnx import EpsinasError, fill
from epsinas_onnx.graph.fingerprint import fingerprint
from epsinas_onnx.search.around.space import Around

SIZE = 96
"""Pixels of the images' height and width: a variant then takes a fifth of the time that 224 take."""
HEAD = "| network | can be changed | variants | different graphs | runs in ONNX Runtime | drawn and refused | seconds |"


def exported(folder: Path) -> Iterator[Path]:
    """Yield the six files, written where they are missing."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import torch

    from epsinas_exporters.frameworks.pytorch import export_module
    from tests.search.around.networks import Encoder, MobileNetV2, ResNet

    image, tokens = torch.zeros(2, 3, SIZE, SIZE), torch.zeros(2, 32, dtype=torch.long)
    for name, make, example in (
        ("transformer", Encoder, tokens), ("mobilenet_v2", MobileNetV2, image), ("resnet18", ResNet, image),
    ):  # fmt: skip
        ours, theirs = folder / f"{name}.onnx", folder / f"{name}-torch.onnx"
        if not ours.exists():
            ir.save(export_module(make(), [example]), ours)
        if not theirs.exists():
            torch.manual_seed(0)
            batch = torch.export.Dim("batch")
            torch.onnx.export(make().eval(), (example,), str(theirs), dynamo=True, dynamic_shapes=({0: batch},))
        yield ours
        yield theirs


def runs(proto: onnx.ModelProto, feeds: dict[str, Any]) -> bool:
    """Whether ONNX Runtime runs a network, and every number that it gives is one."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, feeds)
    except Exception as error:
        print(f"refused: {error}", file=sys.stderr)
        return False
    return all(np.isfinite(one).all() for one in outputs if one.dtype.kind == "f")


def row(path: Path, count: int, seed: int, most_seconds: float) -> str:
    """Return the table's line of one file."""
    begun = time.perf_counter()
    try:
        space = Around(path)
        space.check("original")
    except EpsinasError as error:
        return f"| {path.name} | {error} | | | | | |"
    rng, drawn, graphs, ran = random.Random(seed), dict[str, None](), set[str](), 0
    feeds = space.feeds()
    while len(drawn) < count and time.perf_counter() - begun < most_seconds:
        before = len(drawn)
        try:
            drawn[space.draw(rng)] = None
        except EpsinasError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            break
        if len(drawn) > before:
            arch = next(reversed(drawn))
            model = space.build(arch)
            graphs.add(fingerprint(model))
            ran += runs(fill(model), feeds)
    what = space.summary().partition(": ")[2].removesuffix(" can be changed")
    seconds = time.perf_counter() - begun
    return f"| {path.name} | {what} | {len(drawn)} | {len(graphs)} | {ran} | {space.refused.total()} | {seconds:.0f} |"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--variants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="the most that one network may take")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{HEAD}\n| :- | :- | -: | -: | -: | -: | -: |", flush=True)
    for path in options.models or exported(options.folder):
        print(row(path, options.variants, options.seed, options.seconds), flush=True)


if __name__ == "__main__":
    main()
