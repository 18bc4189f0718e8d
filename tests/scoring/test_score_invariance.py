"""One property over many models: copies that are the same network get the same score.

`EPSINAS_MODELS=FOLDER` adds every .onnx file below a folder, such as the one that benchmarks/real_models.py keeps.
"""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, version_converter

from epsinas_onnx import EpsinasError, Score, Status, fill, score, strip
from epsinas_onnx.edit.anonymise import anonymise
from tests.tiers import ALIKE, tiered

ROOT = Path(__file__).parents[2]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
EXPORTS = Path(__file__).parents[1] / "data" / "folded_exports.zip"
FURTHER = os.environ.get("EPSINAS_MODELS")
LARGEST_FILLED = 8_000_000
"""Bytes of a weightless model's weights up to which they are put in, so that there is something to move or halve."""
HALF = 2e-2
"""Relative tolerance of copies in float16: what stays constant is rounded to 11 bits."""
SCALARS = 16


def sources() -> dict[str, Path | bytes]:
    """Return every model: a path, or the bytes of a member of the archive (one form of each network)."""
    found: dict[str, Path | bytes] = {}
    for path in sorted([*(ROOT / "models").glob("*.onnx"), *LIGHT.glob("*.onnx")]):
        found[path.stem] = path
    with zipfile.ZipFile(EXPORTS) as files:
        for name in files.namelist():
            if name.startswith(("torch", "keras-MobileNetV3Small")):  # the others add minutes and nothing new
                found.setdefault(name.split(".")[0], files.read(name))
    if FURTHER:
        folder = Path(FURTHER)
        found |= {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.onnx"))}
    return found


SOURCES = sources()


def result(model: Any, **options: Any) -> Score | str:
    """Return the score, or the sentence that says why there is none, without the model's name and value names."""
    chosen = {"weights": (1e-3, 0.5), "batch": 2, "providers": "cpu", **options}
    try:
        return score(model, **chosen)
    except EpsinasError as error:
        return type(error).__name__


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from graphs(body)


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    return made


def reordered(proto: onnx.ModelProto, seed: int = 3) -> onnx.ModelProto:
    """Put the nodes of every graph into another valid order, chosen at random."""
    made = copied(proto)
    rng = random.Random(seed)
    for graph in graphs(made.graph):
        nodes = list(graph.node)
        makers = {output: index for index, node in enumerate(nodes) for output in node.output if output}
        missing = [{makers[name] for name in needs(node) if name in makers} for node in nodes]
        users: dict[int, list[int]] = {}
        for index, makers_of in enumerate(missing):
            for maker in makers_of:
                users.setdefault(maker, []).append(index)
        ready = [index for index, makers_of in enumerate(missing) if not makers_of]
        order = []
        while ready:
            index = ready.pop(rng.randrange(len(ready)))
            order.append(nodes[index])
            for user in users.get(index, []):
                missing[user].remove(index)
                if not missing[user]:
                    ready.append(user)
        assert len(order) == len(nodes)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
        graph.ClearField("node")
        graph.node.extend(copies)
    return made


def needs(node: onnx.NodeProto) -> set[str]:
    """Return what a node reads, what its bodies capture included."""
    names = set(node.input)
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            names.update(*(needs(inner) for inner in body.node))
            names.update(value.name for value in body.output)
    return names


def other_opset(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Convert to the next operator set that onnx's converter reaches; None where it gives up."""
    opset = next((entry.version for entry in proto.opset_import if entry.domain == ""), 0)
    if proto.functions or any(len(graph.node) and graph is not proto.graph for graph in graphs(proto.graph)):
        return None  # the converter leaves bodies and functions as they are
    for target in (opset + 1, opset + 2, 13, 21):
        if target <= opset:
            continue
        try:
            made = version_converter.convert_version(copied(proto), target)
            onnx.checker.check_model(made, full_check=True)
        except Exception:
            continue
        return made
    return None


def halved(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Store and compute every float32 in float16; None where an operator does not take it."""
    made = copied(proto)
    if any(node.op_type in ("Resize", "Upsample", "DequantizeLinear", "QuantizeLinear") for graph in graphs(made.graph)
           for node in graph.node):  # fmt: skip
        return None
    for graph in graphs(made.graph):
        tensors = [*graph.initializer]
        for node in graph.node:
            tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        for tensor in tensors:
            if tensor.data_type == TensorProto.FLOAT:
                array = onnx.numpy_helper.to_array(tensor)
                with np.errstate(all="ignore"):
                    small = array.astype(np.float16)
                    moved = np.abs(small - array) > np.abs(array) / 1000
                if (array.size <= SCALARS and moved.any()) or not np.array_equal(
                    np.isfinite(array), np.isfinite(small)
                ):
                    return None  # an epsilon of 1e-12 becomes 0, one of 1e-6 loses 5 %, a mask of -1e9 is infinite
                tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), tensor.name))
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
        graph.ClearField("value_info")
    try:
        onnx.checker.check_model(made, full_check=True)
    except Exception:
        return None
    return made


def renamed(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = copied(proto)
    anonymise(made)
    return made


def beside(proto: onnx.ModelProto, folder: Path) -> Path:
    """Save with all weights in a file of their own."""
    path = folder / "beside.onnx"
    onnx.save_model(copied(proto), path, save_as_external_data=True, location="beside.data", size_threshold=0)
    return path


def assert_same(copy: Any, original: Score | str, what: str, rel: float = 1e-4, **options: Any) -> None:
    found = result(copy, **options)
    if isinstance(original, str) or isinstance(found, str):
        assert found == original, what
        return
    assert (found.status, found.parameters) == (original.status, original.parameters), (what, found, original)
    if original.status is Status.OK and original.raw_score is not None and found.raw_score is not None:
        assert found.raw_score == pytest.approx(original.raw_score, rel=rel, abs=1e-5), what


LARGE = {"light_resnet50", "light_shufflenet"}
LONG = {
    *ALIKE, "keras-MobileNetV3Small", "light_bvlc_alexnet", "light_densenet121", "light_inception_v1",
    "light_inception_v2", "light_vgg19", "light_zfnet512", "torch-densenet121", "torch-efficientnet_b0",
    "torch-regnet_y_400mf",
}  # fmt: skip
"""What takes longest, and is of a kind with others."""


@pytest.mark.parametrize("name", tiered(SOURCES, slow=LARGE, exhaustive=LONG))
def test_copies_of_a_model_get_its_score(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    original = result(source)
    for anonymous in (False, True):
        stripped = strip(source, anonymise=anonymous)
        bare = result(stripped)
        if isinstance(original, str) or isinstance(bare, str):
            assert bare == original
        else:
            ours, theirs = ((one.status, one.raw_score, one.parameters) for one in (bare, original))
            assert ours == theirs
    proto = onnx.load(source) if isinstance(source, Path) else onnx.load_from_string(source)
    weights = 4 * (original.parameters or 0) if isinstance(original, Score) else 0
    if weights <= LARGEST_FILLED:
        proto = fill(proto)
    assert_same(reordered(proto), original, "reordered")
    assert_same(beside(proto, tmp_path), original, "external data")
    half = halved(proto)
    if half is not None:
        assert_same(half, original, "float16", HALF)
    # Names and metadata, which the converter drops, are evidence for folded BatchNorm and for nothing else; strip
    # writes down what they told.
    unrestored = result(source, restore_batchnorm="none")
    assert_same(renamed(proto), unrestored, "renamed", restore_batchnorm="none")
    converted = other_opset(proto)
    if converted is not None:
        assert_same(converted, unrestored, "other opset", restore_batchnorm="none")


def test_most_models_can_be_copied_in_every_way() -> None:
    ways = {"other opset": 0, "float16": 0}
    small = [path for path in (ROOT / "models").glob("*.onnx") if path.stem != "resnet50"]
    for path in small:
        proto = fill(path)
        ways["other opset"] += other_opset(proto) is not None
        ways["float16"] += halved(proto) is not None
    assert min(ways.values()) > 0.9 * len(small), ways


def test_a_copy_that_is_another_network_is_told_apart() -> None:
    name = "nb201-c3-c3-p-s-c3-s"
    proto = onnx.load(ROOT / "models" / f"{name}.onnx")
    changed = copied(proto)
    relu = next(node for node in changed.graph.node if node.op_type == "Relu")
    relu.CopyFrom(helper.make_node("Identity", list(relu.input), list(relu.output), name=relu.name))
    ours, theirs = result(proto, batch=8), result(changed, batch=8)
    assert isinstance(ours, Score)
    assert isinstance(theirs, Score)
    assert ours.raw_score != pytest.approx(theirs.raw_score, rel=1e-3)
