"""One network, one decision: however its tensors are stored, whatever command asks, and for any minibatch."""

from __future__ import annotations

import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from epsinas_onnx import Score, diff, fill, inspect, rewrite, score, strip
from epsinas_onnx.check.model import ModelUnderCheck
from epsinas_onnx.check.settings import ScoreSettings
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan
from tests.builders import build
from tests.graph.analysis.test_roles import CHAINS, OPERATORS
from tests.graph.models import run
from tests.graph.networks import affine_networks, stored_forms
from tests.graph.passes.test_constant_weights import MODELS
from tests.scoring.test_score_invariance import LARGEST_FILLED, SOURCES
from tests.tiers import ALIKE, tiered

ROOT = Path(__file__).parents[2]
NETWORKS = affine_networks()
CONSTANTS = (1e-2, 1.0)


@cache
def known() -> dict[str, Path | bytes]:
    """Return every model that the tests know, large ones last."""
    found: dict[str, Path | bytes] = {f"affine {name}": proto.SerializeToString() for name, proto in NETWORKS.items()}
    texts = [(name, graph, tensors) for name, (graph, tensors, *_) in (MODELS | OPERATORS).items()]
    texts += [
        (name, f"(float[N,3] x) => (float[N,4] y) {{ {lines}  y = MatMul(x, w) }}", tensors)
        for name, (lines, tensors, _) in CHAINS.items()
    ]
    for name, graph, tensors in texts:
        found[f"text {name}"] = build(graph, **tensors).SerializeToString()
    for path in (ROOT / "models" / "frameworks").glob("*.onnx"):
        found[path.stem] = path
    with zipfile.ZipFile(ROOT / "tests" / "data" / "same_network.zip") as files:
        found |= {name: files.read(name) for name in files.namelist() if name.endswith(".onnx")}
    return found | SOURCES


QUICK = ("affine", "text", "cnn", "mlp", "lstm-torch.", "nb201-s-s")
LONG = (
    *ALIKE, "keras-MobileNetV3Small", "light_densenet121", "light_inception_v1", "light_inception_v2", "light_resnet50",
    "light_shufflenet", "resnet50", "t5-transformers", "torch-densenet121", "torch-efficientnet_b0", "torch-nb201",
    "torch-regnet_y_400mf", "torch-resnet50",
)  # fmt: skip
"""What takes longest, and is of a kind with others."""
HEAVY = ("light_vgg19", "light_bvlc_alexnet", "light_zfnet512", "torch-vgg11")
"""Hundreds of megabytes where they are filled, of layers that others have too."""


def marked(without: tuple[str, ...] = ()) -> list[Any]:
    names = [name for name in known() if not without or not name.startswith(without)]
    return tiered(names, slow={name for name in names if not name.startswith(QUICK)}, exhaustive=LONG)


def summary(decisions: Any, restored: Any, with_shapes: bool = True) -> tuple[object, ...]:
    uses = [(use.place, str(use.role), use.shape if with_shapes else None) for use in decisions.uses]
    return sorted(uses, key=str), decisions.parameters(), restored


def described(model: Any, batch: int = 2, with_shapes: bool = True, everything: bool = True) -> tuple[object, ...]:
    """Return what is decided, with all shapes inferred or, as for a score, with as few as it takes."""
    planned = plan(load_model(model), batch, GraphOptions(), infer=everything or None)
    return summary(planned.decisions, planned.restored, with_shapes)


def runs(model: Any) -> bool:
    try:
        plan(load_model(model), 2, GraphOptions())
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", marked(without=HEAVY))
def test_how_tensors_are_stored_decides_nothing(name: str, tmp_path: Path) -> None:
    source = known()[name]
    proto = onnx.load(source) if isinstance(source, Path) else onnx.load_from_string(source)
    if proto.ByteSize() < LARGEST_FILLED:  # a stripped one has no tensors to store in other ways
        proto = fill(proto)
    if not runs(proto):
        pytest.skip("nothing is decided of it")
    expected = described(proto)
    for form, copy in stored_forms(proto, tmp_path):
        assert described(copy) == expected, form
    assert described(strip(proto))[1] == expected[1]


@pytest.mark.parametrize("name", marked())
def test_whether_shapes_were_inferred_decides_nothing(name: str) -> None:
    source = known()[name]
    if not runs(source):
        pytest.skip("nothing is decided of it")
    expected = described(source)
    assert described(source, everything=False) == expected
    for batch in (1, 8):
        assert described(source, batch, with_shapes=False) == described(source, with_shapes=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_the_same_bit_for_bit(name: str, tmp_path: Path) -> None:
    proto = NETWORKS[name]
    expected = scored(proto)
    assert expected[0] == "ok"
    for form, copy in [*stored_forms(proto, tmp_path), ("stripped", strip(proto))]:
        assert scored(copy) == expected, form
    assert scored(proto, outputs="y") == expected


@pytest.mark.parametrize(("name", "expected", "parameters"), [("table", 0.235005, 912), ("dense", 0.562175, 224)])
def test_a_network_with_its_normalisation_put_back_has_this_score(name: str, expected: float, parameters: int) -> None:
    assert scored(NETWORKS[name]) == ("ok", pytest.approx(expected, rel=1e-5), parameters, 1)


def scored(model: Any, **options: Any) -> tuple[object, ...]:
    found = score(model, weights=CONSTANTS, batch=8, providers="cpu", arithmetic="float32", **options)
    assert isinstance(found, Score)
    restored = [note for note in found.warnings if note.startswith("1 BatchNorm restored")]
    return str(found.status), found.raw_score, found.parameters, len(restored)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_command_decides_alike(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(NETWORKS[name].SerializeToString())
    ours = score(path, weights=CONSTANTS, batch=8, providers="cpu")
    assert any("1 BatchNorm restored" in note for note in ours.warnings)
    shown, checked = inspect(path), ModelUnderCheck(str(path), ScoreSettings(), "cpu")
    compared = diff(path, path, with_score=False).before
    found = [shown.parameters, checked.parameters, compared.facts.parameters]
    assert found == [ours.parameters] * 3
    assert shown.warnings == compared.notes == ours.warnings
    assert len(checked.restored.layers) == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_lumped_plain_and_written_graphs_agree(name: str) -> None:
    proto = NETWORKS[name]
    lumped, plain = (scored(proto, lump=lump) for lump in (True, False))
    assert lumped[0] == plain[0] == "ok"
    assert lumped[1] == pytest.approx(plain[1], rel=1e-5)
    declared = proto.graph.input[0].type.tensor_type
    sizes = [8, *(dim.dim_value for dim in declared.shape.dim[1:])]
    x = np.random.default_rng(0).integers(0, 50, sizes).astype(onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type))
    feeds = {proto.graph.input[0].name: x}
    assert np.isfinite(run(rewrite(proto, 0.5), feeds)[0]).all()


def test_a_normalisation_in_its_own_form_scores_as_the_operator() -> None:
    """The affine operators behind a layer over steps are the normalisation of its last axis."""
    operator = build(
        "(float[N,6,7] x) => (float[N,6,5] y) { h = MatMul(x, v)  a = Transpose <perm = [0, 2, 1]> (h)"
        "  n = BatchNormalization(a, s, t, m, u)  c = Transpose <perm = [0, 2, 1]> (n)  d = Relu(c)  o = MatMul(d, w)"
        "  y = Sigmoid(o) }",
        v=(7, 16), s=(16,), t=(16,), m=(16,), u=(16,), w=(16, 5),
    )  # fmt: skip
    assert scored(NETWORKS["dense over steps, nothing between"])[1] == pytest.approx(scored(operator)[1], rel=1e-6)


BRANCHES = build(
    """(bool flag, float[N,3] x) => (float[N,4] y) {
        [choose] y = If (flag) <
            then_branch = t () => (float[N,4] p) { [dense] p = MatMul(x, U) },
            else_branch = e () => (float[N,4] q) { [dense] k = MatMul(x, W)  [last] q = Tanh(k) }
        >
    }""",
    U=(3, 4), W=(3, 4),
)  # fmt: skip


def test_every_place_can_be_named_alone() -> None:
    def roles(**given: str) -> dict[str, str]:
        found = inspect(BRANCHES, **given)
        assert not [note for note in found.warnings if "matches nothing" in note]
        return {use.place: use.role for use in found.uses}

    places = ["choose/then_branch/dense:1", "choose/else_branch/dense:1"]
    assert list(roles()) == places
    for place in places:
        assert roles(roles={place: "constant"}) == {one: "constant" if one == place else "weight" for one in places}


def test_nodes_of_one_name_in_one_graph_are_told_apart() -> None:
    proto = build(
        "(float[N,3] x) => (float[N,3] y) { [a] h = MatMul(x, U)  [a_1] k = MatMul(h, V)  [a] y = MatMul(k, W) }",
        U=(3, 3), V=(3, 3), W=(3, 3),
    )  # fmt: skip
    assert [use.place for use in inspect(proto).uses] == ["a:1", "a_1:1", "a_2:1"]


def test_a_tensor_is_not_stripped_because_another_branch_learns_one_of_its_name() -> None:
    values = ",".join(map(str, range(16)))
    proto = build(
        f"""(bool flag, float[N,4] x) => (float[N,4] y) {{
            y = If (flag) <
                then_branch = t () => (float[N,4] p) <float[4,4] U = {{{values}}}> {{ p = MatMul(x, U) }},
                else_branch = e () => (float[N,4] q) <float[4,4] U = {{{values}}}> {{
                    k = ReduceMax(U, ax)  q = Pow(x, k)
                }}
            >
        }}""",
        ax=np.array([0]),
    )  # fmt: skip
    feeds = {"flag": np.asarray(False), "x": np.full((2, 4), 2, np.float32)}
    np.testing.assert_array_equal(run(strip(proto), feeds)[0], run(proto, feeds)[0])
