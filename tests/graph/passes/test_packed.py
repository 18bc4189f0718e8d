"""Packed weights and experts: they score as floats of the same shapes, and nothing of them is left by `strip`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from epsinas_onnx import ModelError, fill, inspect, score, strip

MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(11)


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Make a node; an input called `_` is left out."""
    domain = attributes.pop(
        "domain", MICROSOFT if op_type not in ("MatMul", "Tanh", "Gather", "Add", "Sigmoid") else ""
    )
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op_type, names, [output], name=f"{op_type}.{output}", domain=domain, **attributes)


def network(nodes: list[onnx.NodeProto], tokens: bool = False, opset: int = 21, **tensors: Any) -> onnx.ModelProto:
    shape = ["N", 6] if tokens else ["N", 64]
    given = helper.make_tensor_value_info("x", onnx.TensorProto.INT64 if tokens else onnx.TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    graph = helper.make_graph(nodes, "g", [given], [made], stored)
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def bytes_(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


TANH = node("Tanh", "h", "y")
NBITS = {"K": 64, "N": 32, "block_size": 32}
PACKED = {
    "MatMulNBits": network(
        [node("MatMulNBits", "x P S Z _ b", "h", bits=4, **NBITS), TANH],
        P=bytes_(32, 2, 16), S=floats(32, 2), Z=bytes_(32, 1), b=floats(32),
    ),
    "MatMulNBits of 8 bits": network(
        [node("MatMulNBits", "x P S", "h", bits=8, **NBITS), TANH], P=bytes_(32, 2, 32), S=floats(32, 2)
    ),
    "MatMulBnb4": network(
        [node("MatMulBnb4", "x P S", "h", quant_type=1, **NBITS), TANH], P=bytes_(64 * 32 // 2), S=floats(64)
    ),
}  # fmt: skip
PRODUCT = network([node("MatMul", "x W", "h"), TANH], W=floats(64, 32))
BIASED = network([node("MatMul", "x W", "a"), node("Add", "a b", "h"), TANH], W=floats(64, 32), b=floats(32))


def found(model: Any) -> tuple[Any, ...]:
    """Return what a score says."""
    result = score(model, weights=(1e-3, 0.1), batch=8, providers="cpu")
    return result.status, result.raw_score, result.parameters


def ran(proto: onnx.ModelProto) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    tokens = proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT64
    x = RNG.integers(0, 9, (3, 6)) if tokens else floats(3, 64)
    return np.asarray(session.run(None, {"x": x})[0])


def assert_nothing_is_left(proto: onnx.ModelProto) -> None:
    """Strip a model: what it stored of 16 entries or more is gone, the score stays, and it runs when it is filled."""
    for anonymise in (False, True):
        light = strip(proto, anonymise=anonymise)
        data = light.SerializeToString()
        for tensor in proto.graph.initializer:
            if np.prod(tensor.dims) >= 16 and tensor.data_type != onnx.TensorProto.INT64:
                assert tensor.raw_data not in data, tensor.name
        assert found(light) == found(proto)
    filled = fill(strip(proto))
    assert found(filled) == found(proto)
    output = ran(filled)
    assert np.isfinite(output).all()
    assert output.std() > 1e-3


@pytest.mark.parametrize("name", PACKED)
def test_a_product_with_packed_weights_is_a_product(name: str) -> None:
    proto = PACKED[name]
    plain = BIASED if "b" in [tensor.name for tensor in proto.graph.initializer] else PRODUCT
    assert found(proto) == found(plain)
    assert found(proto)[1]
    assert_nothing_is_left(proto)


@pytest.mark.parametrize(("bits", "dtype"), [(4, np.uint8), (8, np.uint8)])
def test_a_packed_table_is_an_embedding(bits: int, dtype: Any) -> None:
    per_byte = 8 // bits
    head = [node("MatMul", "e W", "h"), node("Sigmoid", "h", "y")]
    gather = node("GatherBlockQuantized", "T x S Z", "e", bits=bits, block_size=16, quantize_axis=1, gather_axis=0)
    packed = network(
        [gather, *head], tokens=True, T=bytes_(50, 32 // per_byte).astype(dtype), S=floats(50, 2),
        Z=bytes_(50, 2 // per_byte), W=floats(32, 5),
    )  # fmt: skip
    plain = network([node("Gather", "T x", "e"), *head], tokens=True, T=floats(50, 32), W=floats(32, 5))
    assert found(packed) == found(plain)
    assert_nothing_is_left(packed)


def router(seed: int, experts: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"R": rng.standard_normal((64, experts)).astype(np.float32)}


def test_two_trainings_of_experts_have_one_score() -> None:
    def trained(seed: int) -> onnx.ModelProto:
        rng = np.random.default_rng(seed)
        first, second = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 32, 64), (4, 64, 32)))
        bias = rng.standard_normal((4, 32)).astype(np.float32)
        moe = node("MoE", "x p F B G", "h", k=2, activation_type="silu")
        return network([node("MatMul", "x R", "p"), moe, TANH], F=first, B=bias, G=second, **router(seed))

    assert found(trained(0)) == found(trained(1))
    assert found(trained(0))[2] == 64 * 4 + 2 * 4 * 32 * 64 + 4 * 32
    assert_nothing_is_left(trained(0))


def test_packed_experts_are_experts() -> None:
    def network_of(moe: onnx.NodeProto, **tensors: Any) -> onnx.ModelProto:
        return network([node("MatMul", "x R", "p"), moe, TANH], **router(0), **tensors)

    packed = network_of(
        node("QMoE", "x p F S _ G T", "h", k=2, activation_type="silu", expert_weight_bits=4),
        F=bytes_(4, 32, 32), S=floats(4, 32), G=bytes_(4, 64, 16), T=floats(4, 64),
    )  # fmt: skip
    plain = network_of(
        node("MoE", "x p F _ G", "h", k=2, activation_type="silu"), F=floats(4, 32, 64), G=floats(4, 64, 32)
    )  # fmt: skip
    assert found(packed) == found(plain)
    assert_nothing_is_left(packed)


def test_scales_of_a_channel_go_with_the_integers() -> None:
    weight = RNG.integers(-128, 128, (64, 32)).astype(np.int8)
    dequantise = node("DequantizeLinear", "P S Z", "w", domain="", axis=1)
    proto = network(
        [dequantise, node("MatMul", "x w", "h"), TANH], P=weight, S=np.abs(floats(32)), Z=np.zeros(32, np.int8)
    )
    assert found(proto) == found(PRODUCT)
    assert_nothing_is_left(proto)


def test_a_weight_that_is_rounded_when_it_is_used_is_a_weight() -> None:
    rounding = [
        node("QuantizeLinear", "W s z", "q", domain=""),
        node("DequantizeLinear", "q s z", "w", domain=""),
    ]
    scale = {"s": np.float32(0.1), "z": np.int8(0)}
    proto = network([*rounding, node("MatMul", "x w", "h"), TANH], W=floats(64, 32), **scale)
    assert found(proto) == found(PRODUCT)
    assert_nothing_is_left(proto)


def test_what_activations_are_quantised_by_stays() -> None:
    scale = np.abs(floats(64)) + 0.1
    nodes = [
        node("QuantizeLinear", "x S Z", "q", domain="", axis=1),
        node("DequantizeLinear", "q S Z", "d", domain="", axis=1),
        node("DequantizeLinear", "P S Z", "w", domain="", axis=0),
        node("MatMul", "d w", "h"),
        TANH,
    ]
    weight = RNG.integers(0, 256, (64, 32)).astype(np.uint8)
    proto = network(nodes, S=scale, Z=np.full(64, 128, np.uint8), P=weight)
    left = {tensor.name for tensor in strip(proto).graph.initializer}
    assert {"S", "Z"} <= left
    assert "P" not in left
    assert found(strip(proto)) == found(proto)


def test_packed_weights_have_no_values_to_keep() -> None:
    proto = PACKED["MatMulNBits"]
    with pytest.raises(ModelError, match="stands for packed weights"):
        score(proto, roles={"MatMulNBits.h:1": "constant"}, batch=4)


def test_packed_weights_that_cannot_be_scored_go_too() -> None:
    tensors = {name: bytes_(32, 2, 16) for name in "WAB"} | {name: floats(32, 2) for name in "STU"}
    proto = network([node("MatMulNBitsQLoRA", "x W S A T B U", "h", **NBITS), TANH], **tensors)
    with pytest.raises(ModelError, match="computes with integers"):
        score(proto, batch=4)
    left = strip(proto)
    assert [tensor.name for tensor in left.graph.initializer if not tensor.name.startswith("epsinas.")] == []


def test_a_table_of_positions_is_an_embedding() -> None:
    bias = node("RelativePositionBias", "T n n", "b", max_distance=128)
    attend = node("MultiHeadAttention", "x x x _ _ b", "y", num_heads=4)
    proto = network([bias, attend], T=floats(32, 4), n=np.array([8]))
    proto.graph.input[0].type.tensor_type.CopyFrom(
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 8, 16]).type.tensor_type
    )
    uses = {use.tensor: use.role for use in inspect(proto).uses}
    assert uses["T"] == "embedding"
