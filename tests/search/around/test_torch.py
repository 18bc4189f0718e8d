"""Variants against what torch builds when its constructors get the same widths, depths, kernels and activations."""

from __future__ import annotations

from functools import cache
from typing import Any

import onnx
import pytest

from epsinas_onnx import score
from epsinas_onnx.graph.fingerprint import fingerprint
from epsinas_onnx.scoring.result import Status
from epsinas_onnx.search.around.space import Around

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from epsinas_exporters.frameworks.pytorch import export_module  # noqa: E402
from tests.search.around.networks import Encoder, MobileNetV2, ResNet  # noqa: E402

IMAGE = [(1, 3, 32, 32)]


def export(module: Any) -> onnx.ModelProto:
    import onnx_ir as ir

    tokens = [torch.zeros(2, 32, dtype=torch.long)]
    return ir.to_proto(export_module(module, tokens if isinstance(module, Encoder) else IMAGE))


@cache
def around(kind: str) -> Around:
    return Around(export({"resnet": resnet, "mobilenet": mobilenet, "encoder": Encoder}[kind]()))


def resnet(widths: Any = (16, 24, 32, 40), **options: Any) -> Any:
    return ResNet(widths, classes=10, **options)


def mobilenet(**options: Any) -> Any:
    return MobileNetV2(stages=3, classes=10, **options)


def assert_same(variant: Any, module: Any, exactly: bool = True) -> None:
    """The same graph to the last attribute, as many parameters and multiply-adds, and the same score.

    exactly: whether the graph is the same; repeated layers share the lists of sizes that torch computes for each.
    """
    expected = export(module)
    if exactly:
        assert fingerprint(variant) == fingerprint(Around(expected).build("original"))  # which computes lists ahead
    found, wanted = (score(one, batch=4, scores=["macs"]) for one in (variant, expected))
    assert (found.score, found.status) == (wanted.score, Status.OK)
    assert found.proxies["macs"].value == wanted.proxies["macs"].value
    assert found.parameters == wanted.parameters
    positions = sum(one.numel() for name, one in module.named_parameters() if name == "positions")  # a constant in ONNX
    assert wanted.parameters == sum(one.numel() for one in module.parameters()) - positions


def everywhere(space: Around, kind: str, share: float) -> str:
    template = space.template
    return ";".join(f"{kind}:{name}={int(width.size * share)}" for name, width in template.widths.items())


@pytest.mark.exhaustive  # widths follow each other below too
def test_a_resnet_of_half_the_width_is_the_one_that_torch_builds() -> None:
    space = around("resnet")
    arch = space.check(everywhere(space, "width", 0.5))
    assert_same(space.build(arch), resnet((8, 12, 16, 20)))


def test_a_sum_ties_its_branches_and_leaves_the_inner_width_alone() -> None:
    space = around("resnet")
    arch = space.check("width:conv1=20;width:layer2.0.conv1=30;width:layer2.1.conv1=30")
    assert_same(space.build(arch), resnet((20, 24, 32, 40), inner=(16, 30, 32, 40)))


@pytest.mark.parametrize(
    ("arch", "depths"),
    [
        pytest.param("depth:layer1=1", (1, 2, 2, 2), marks=pytest.mark.exhaustive),
        pytest.param("depth:layer1=4;depth:layer3.1=0", (4, 2, 1, 2), marks=pytest.mark.slow),
        pytest.param("depth:layer4.1=2", (2, 2, 2, 3), marks=pytest.mark.exhaustive),
    ],
)
def test_blocks_are_left_out_and_repeated_as_torch_does(arch: str, depths: tuple[int, ...]) -> None:
    space = around("resnet")
    assert_same(space.build(space.check(arch)), resnet(depths=depths))


@pytest.mark.exhaustive  # depthwise convolutions take other kernels below
def test_another_kernel_has_the_pads_that_torch_gives_it() -> None:
    space = around("resnet")
    assert_same(space.build(space.check("kernel:conv1=5")), resnet(kernel=5))


@pytest.mark.slow
def test_depthwise_convolutions_take_another_width_kernel_and_activation_at_once() -> None:
    space = around("mobilenet")
    kernels = ";".join(f"kernel:{name}=5" for name in space.template.kernels if name != "stem.0")
    arch = space.check(f"width:blocks.2.layers.0=96;{kernels};activation:relu6=relu")
    assert_same(space.build(arch), mobilenet(kernel=5, hidden=96, activation=torch.nn.ReLU))


@pytest.mark.exhaustive
def test_depthwise_convolutions_follow_their_width_and_take_other_kernels_and_activations() -> None:
    space = around("mobilenet")
    kernels = ";".join(f"kernel:{name}=5" for name in space.template.kernels if name != "stem.0")
    assert_same(space.build(space.check(kernels)), mobilenet(kernel=5))
    assert_same(space.build(space.check("width:blocks.2.layers.0=96")), mobilenet(hidden=96))
    assert_same(space.build(space.check("activation:relu6=relu")), mobilenet(activation=torch.nn.ReLU))


@pytest.mark.slow
def test_an_encoder_loses_heads_and_a_layer_and_has_another_activation_at_once() -> None:
    space = around("encoder")
    arch = space.check(
        "width:embedding=32;width:encoder.layers.0.self_attn=96;width:encoder.layers.0.linear1=128;"
        "depth:encoder.layers=1;activation:gelu=relu"
    )
    assert_same(space.build(arch), Encoder(width=32, heads=2, hidden=128, layers=1, activation="relu"))


@pytest.mark.exhaustive
def test_an_encoder_loses_heads_and_layers() -> None:
    space = around("encoder")
    smaller = space.check(
        "width:embedding=32;width:encoder.layers.0.self_attn=96;width:encoder.layers.0.linear1=128;"
        "width:encoder.layers.1.linear1=128"
    )
    assert_same(space.build(smaller), Encoder(width=32, heads=2, hidden=128))
    assert_same(space.build(space.check("depth:encoder.layers=1")), Encoder(layers=1))
    assert_same(space.build(space.check("depth:encoder.layers=4")), Encoder(layers=4), exactly=False)
    assert_same(space.build(space.check("activation:gelu=relu")), Encoder(activation="relu"))
