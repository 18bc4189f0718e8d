"""The NAS-Bench-201 graphs: strings and their errors, names, and the network against an independent torch module."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_exporters import nasbench201

ALL_OPERATIONS = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"

cells = st.tuples(*[st.sampled_from(nasbench201.OPERATIONS)] * 6).map(nasbench201.Cell)


@given(cells)
def test_a_string_is_parsed_back_into_its_cell(cell: nasbench201.Cell) -> None:
    assert nasbench201.parse(str(cell)) == cell


def test_there_are_15625_different_architectures() -> None:
    everything = nasbench201.architectures()
    assert len(set(everything)) == len(everything) == 15_625


def test_file_names_differ_for_every_architecture() -> None:
    everything = nasbench201.architectures()
    assert len({nasbench201.file_name(arch) for arch in everything}) == len(everything)


def test_a_sample_is_repeatable_and_without_repetition() -> None:
    first = nasbench201.sample(50, seed=3)
    assert first == nasbench201.sample(50, seed=3)
    assert len(set(first)) == 50
    assert first != nasbench201.sample(50, seed=4)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("", ["1 nodes"]),
        ("|none~0|+|none~0|none~1|", ["2 nodes"]),
        ("|none~0|+|none~0|+|none~0|none~1|none~2|", ["node 2", "2 edge"]),
        ("|none~0|+|none~0|conv_9x9~1|+|none~0|none~1|none~2|", ["edge 1->2", "conv_9x9", "nor_conv_1x1"]),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", ["edge 1->2", "node 0", "node 1"]),
        ("|none~0|+|none~0|none|+|none~0|none~1|none~2|", ["edge 1->2", "OPERATION~1"]),
        ("none~0+none~0|none~1+none~0|none~1|none~2", ["node 1", "'|'"]),
    ],
)
def test_a_bad_string_is_refused_with_the_edge_that_is_wrong(arch: str, words: list[str]) -> None:
    with pytest.raises(nasbench201.ArchitectureError) as caught:
        nasbench201.parse(arch)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["channels", "cells", "classes"])
def test_sizes_below_one_are_refused(size: str) -> None:
    with pytest.raises(ValueError, match=f"{size} is 0"):
        nasbench201.build(ALL_OPERATIONS, **{size: 0})


def test_the_file_is_sound_small_and_holds_no_weight_bytes() -> None:
    proto = ir.to_proto(nasbench201.build(ALL_OPERATIONS))
    onnx.checker.check_model(proto, full_check=True)
    assert len(proto.SerializeToString()) < 80_000
    assert max(len(tensor.raw_data) for tensor in proto.graph.initializer) <= 4 * 8  # a shape of rank 4


def test_names_show_the_stage_the_cell_and_the_edge() -> None:
    names = {node.name for node in nasbench201.build(ALL_OPERATIONS, cells=2).graph}
    assert {"stem.conv", "stage0.cell1.edge0-1.conv", "stage2.cell0.edge1-3.none", "reduce1.down.conv"} <= names


@settings(max_examples=5, deadline=None)
@given(cells, st.integers(1, 3), st.integers(1, 2), st.integers(1, 4))
def test_sizes_are_those_asked_for(cell: nasbench201.Cell, channels: int, count: int, classes: int) -> None:
    model = nasbench201.build(str(cell), channels=channels, cells=count, classes=classes)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    assert session.run(None, {"input": np.zeros((2, 3, 32, 32), np.float32)})[0].shape == (2, classes)


ARCHITECTURES = [ALL_OPERATIONS, *nasbench201.sample(3, seed=1)]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_onnxruntime_and_torch_agree_on_random_weights(arch: str) -> None:
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs the torch extra")
    from torch_nasbench201 import Network

    torch.manual_seed(0)
    network = Network(arch, channels=4, cells=2, classes=3, tracking=True).eval()
    arrays = {}
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1 and "num_batches" not in name:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
        arrays[name] = tensor
    # The exporter shares running statistics by width; so does the module here.
    for kind in ("running_mean", "running_var"):
        for width in (4, 8, 16):
            same = [t for n, t in arrays.items() if n.endswith(kind) and t.shape == (width,)]
            for tensor in same[1:]:
                tensor.copy_(same[0])
    proto = ir.to_proto(nasbench201.build(arch, channels=4, cells=2, classes=3))
    _fill(proto, {_graph_name(name): tensor.numpy() for name, tensor in arrays.items()})
    image = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    ours = session.run(None, {"input": image})[0]
    with torch.no_grad():
        theirs = network(torch.from_numpy(image)).numpy()
    assert np.ptp(theirs) > 0
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4 * np.abs(theirs).max())


def _graph_name(name: str) -> str:
    """Translate a parameter's name in the torch module to the exporter's."""
    if "running_" in name or "num_batches" in name:
        return name
    parts = name.split(".")
    if parts[0] == "stages":
        source = nasbench201.EDGES[int(parts[4])]
        return f"stage{parts[1]}.cell{parts[2]}.edge{source[0]}-{source[1]}.{'.'.join(parts[5:])}"
    if parts[0] == "reductions":
        return f"reduce{int(parts[1]) + 1}.{'.'.join(parts[2:])}".replace("down_", "down.")
    return name.replace("classifier", "output").replace("stem_", "stem.").replace("head_", "head.")


def _fill(proto: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    """Replace every ConstantOfShape by the array of its name; statistics are found by kind and width."""
    kept = []
    for node in proto.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        name = node.output[0]
        if name.startswith("running_"):
            kind, _, width = name.rpartition("_")
            array = next(a for n, a in arrays.items() if n.endswith(kind) and a.shape == (int(width),))
        else:
            array = arrays[name]
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
