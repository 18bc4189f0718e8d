"""Well-known networks written directly as weightless graphs: of images, of features, and of tokens."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output


def resnet50(classes: int = 1000, size: int = 224) -> ir.Model:
    """Return ResNet-50 (He et al., CVPR 2016; stride in the 3x3 convolution, as torchvision has it).

    Input `input`: float32 `[batch, 3, size, size]`. Output `output`: float32 `[batch, classes]`.
    """
    b = GraphBuilder("resnet50")
    image = tensor_input("input", ["batch", 3, size, size])
    x = _conv_bn_relu(b, image, "stem", 3, 64, 7, stride=2)
    x = b.op("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    inputs = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _bottleneck(b, x, f"stage{stage}.block{block}", inputs, width, stride)
            inputs = 4 * width
    return _image_head(b, image, x, inputs, classes)


def mobilenet_v2(classes: int = 1000, size: int = 224) -> ir.Model:
    """Return MobileNetV2 at width 1 (Sandler et al., CVPR 2018).

    Input `input`: float32 `[batch, 3, size, size]`. Output `output`: float32 `[batch, classes]`.
    """
    b = GraphBuilder("mobilenet_v2")
    image = tensor_input("input", ["batch", 3, size, size])
    x = _conv_bn_relu6(b, image, "stem", 3, 32, 3, stride=2)
    inputs, index = 32, 0
    for expansion, width, repeats, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for repeat in range(repeats):
            x = _inverted_residual(b, x, f"block{index}", inputs, width, expansion, stride if repeat == 0 else 1)
            inputs, index = width, index + 1
    x = _conv_bn_relu6(b, x, "last", inputs, 1280, 1)
    return _image_head(b, image, x, 1280, classes)


def mlp(widths: tuple[int, ...] = (784, 512, 256, 10)) -> ir.Model:
    """Return a multilayer perceptron with ReLU: input `[batch, widths[0]]`, output `[batch, widths[-1]]`, float32."""
    b = GraphBuilder("mlp")
    features = tensor_input("input", ["batch", widths[0]])
    x = features
    for layer, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        last = layer == len(widths) - 1
        x = b.linear(x, "output" if last else f"layer{layer}.linear", inputs, outputs)
        x = x if last else b.op("Relu", [x], f"layer{layer}.relu")
    return b.model([features], [typed_output(x, ["batch", widths[-1]])])


def stereo(channels: int = 16) -> ir.Model:
    """Return convolutions over two images that are added up, whose sizes must agree although nothing says so.

    Inputs `left`: float32 `[batch, 3, height, width]`, `right`: float32 `[batch, 3, right_height, right_width]`. Output
    `output`: float32 `[batch, 1]`.
    """
    b = GraphBuilder("stereo")
    left = tensor_input("left", ["batch", 3, "height", "width"])
    right = tensor_input("right", ["batch", 3, "right_height", "right_width"])
    eyes = [_conv_bn_relu(b, image, f"{image.name}_eye", 3, channels, 3) for image in (left, right)]
    x = _conv_bn_relu(b, b.op("Add", eyes, "merge"), "both", channels, channels, 3)
    pooled = b.op("Flatten", [b.op("GlobalAveragePool", [x], "pool")], "flatten")
    return b.model([left, right], [typed_output(b.linear(pooled, "output", channels, 1), ["batch", 1])])


def lstm(tokens: int = 1000, embedding: int = 64, hidden: int = 128, layers: int = 2, steps: int = 32) -> ir.Model:
    """Return an LSTM language model: input `tokens`, int64 `[batch, steps]`; output float32 `[batch, tokens]`."""
    b = GraphBuilder("lstm")
    ids = tensor_input("tokens", ["batch", steps], ir.DataType.INT64)
    x = b.op("Gather", [b.parameter("embedding.weight", [tokens, embedding]), ids], "embedding")
    x = b.op("Transpose", [x], "steps_first", perm=[1, 0, 2])
    inputs = embedding
    for layer in range(layers):
        name = f"lstm{layer}"
        kernel = b.parameter(f"{name}.W", [1, 4 * hidden, inputs])
        recurrent = b.parameter(f"{name}.R", [1, 4 * hidden, hidden])
        bias = b.parameter(f"{name}.B", [1, 8 * hidden], 0.0)
        x = b.op("Squeeze", [b.op("LSTM", [x, kernel, recurrent, bias], name, hidden_size=hidden), b.int64s([1])],
                 f"{name}.squeeze")  # fmt: skip
        inputs = hidden
    last = b.op("Gather", [x, b.int64_scalar(-1)], "last_step", axis=0)
    return b.model([ids], [typed_output(b.linear(last, "output", hidden, tokens), ["batch", tokens])])


def transformer(tokens: int = 1000, width: int = 64, heads: int = 4, layers: int = 2, steps: int = 32) -> ir.Model:
    """Return a small pre-norm transformer encoder (Vaswani et al., 2017) with a linear head over the mean token.

    Input `tokens`: int64 `[batch, steps]`; output `output`: float32 `[batch, tokens]`.
    """
    b = GraphBuilder("transformer")
    ids = tensor_input("tokens", ["batch", steps], ir.DataType.INT64)
    x = b.op("Gather", [b.parameter("embedding.weight", [tokens, width]), ids], "embedding")
    for layer in range(layers):
        name = f"layer{layer}"
        mixed = _attention(b, _layer_norm(b, x, f"{name}.norm1", width), f"{name}.attention", width, heads)
        x = b.op("Add", [x, mixed], f"{name}.add1")
        hidden = _linear3(b, _layer_norm(b, x, f"{name}.norm2", width), f"{name}.mlp1", width, 4 * width)
        hidden = _linear3(b, b.op("Relu", [hidden], f"{name}.relu"), f"{name}.mlp2", 4 * width, width)
        x = b.op("Add", [x, hidden], f"{name}.add2")
    mean = b.op("ReduceMean", [_layer_norm(b, x, "norm", width), b.int64s([1])], "mean_token", keepdims=0)
    return b.model([ids], [typed_output(b.linear(mean, "output", width, tokens), ["batch", tokens])])


def llama(
    layers: int = 32,
    width: int = 4096,
    heads: int = 32,
    hidden: int = 11008,
    vocabulary: int = 32000,
    kv_heads: int | None = None,
) -> ir.Model:
    """Return the decoder of Llama 2 (Touvron et al., 2023), by default of 7 billion parameters, as torch spells it.

    Input `input_ids`: int64 `[batch, sequence]`, both free; output `logits`: float32 `[batch, sequence, vocabulary]`.
    kv_heads: heads of keys and values, of which each serves equally many of the queries; as many as these unless given.
    """
    b = GraphBuilder("llama")
    ids = tensor_input("input_ids", ["batch", "sequence"], ir.DataType.INT64)
    length = b.op("Gather", [b.op("Shape", [ids], "shape"), b.int64_scalar(1)], "length")
    positions = b.op("Range", [b.int64_scalar(0), length, b.int64_scalar(1)], "positions")
    turns, mask = _rotary_tables(b, positions, width // heads), _causal_mask(b, positions)
    x = b.op("Gather", [b.parameter("embedding.weight", [vocabulary, width]), ids], "embedding")
    for layer in range(layers):
        name = f"l{layer}"
        mixed = _rotary_attention(b, _rms_norm(b, x, f"{name}.norm1", width), name, width, heads, kv_heads or heads,
                                  turns, mask)  # fmt: skip
        x = b.op("Add", [x, mixed], f"{name}.add1")
        y = _rms_norm(b, x, f"{name}.norm2", width)
        gate = _projection(b, y, f"{name}.gate", width, hidden)
        gate = b.op("Mul", [gate, b.op("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.silu")
        gated = b.op("Mul", [gate, _projection(b, y, f"{name}.up", width, hidden)], f"{name}.gated")
        x = b.op("Add", [x, _projection(b, gated, f"{name}.down", hidden, width)], f"{name}.add2")
    logits = _projection(b, _rms_norm(b, x, "norm", width), "logits", width, vocabulary)
    return b.model([ids], [typed_output(logits, ["batch", "sequence", vocabulary])])


def _conv_bn(
    b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> ir.Value:
    return b.batch_norm(b.conv(x, f"{name}.conv", inputs, outputs, kernel, stride, groups), f"{name}.bn", outputs)


def _conv_bn_relu(
    b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1
) -> ir.Value:
    return b.op("Relu", [_conv_bn(b, x, name, inputs, outputs, kernel, stride)], f"{name}.relu")


def _conv_bn_relu6(
    b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> ir.Value:
    x = _conv_bn(b, x, name, inputs, outputs, kernel, stride, groups)
    return b.op("Clip", [x, b.scalar(0.0, "zero"), b.scalar(6.0, "six")], f"{name}.relu6")


def _bottleneck(b: GraphBuilder, x: ir.Value, name: str, inputs: int, width: int, stride: int) -> ir.Value:
    main = _conv_bn_relu(b, x, f"{name}.a", inputs, width, 1)
    main = _conv_bn_relu(b, main, f"{name}.b", width, width, 3, stride)
    main = _conv_bn(b, main, f"{name}.c", width, 4 * width, 1)
    if stride != 1 or inputs != 4 * width:
        x = _conv_bn(b, x, f"{name}.down", inputs, 4 * width, 1, stride)
    return b.op("Relu", [b.op("Add", [main, x], f"{name}.add")], f"{name}.relu")


def _inverted_residual(
    b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int, expansion: int, stride: int
) -> ir.Value:
    width = inputs * expansion
    y = x if expansion == 1 else _conv_bn_relu6(b, x, f"{name}.expand", inputs, width, 1)
    y = _conv_bn_relu6(b, y, f"{name}.depthwise", width, width, 3, stride, groups=width)
    y = _conv_bn(b, y, f"{name}.project", width, outputs, 1)
    return b.op("Add", [x, y], f"{name}.add") if stride == 1 and inputs == outputs else y


def _image_head(b: GraphBuilder, image: ir.Value, x: ir.Value, width: int, classes: int) -> ir.Model:
    x = b.op("Flatten", [b.op("GlobalAveragePool", [x], "pool")], "flatten")
    return b.model([image], [typed_output(b.linear(x, "output", width, classes), ["batch", classes])])


def _layer_norm(b: GraphBuilder, x: ir.Value, name: str, width: int) -> ir.Value:
    scale, shift = b.parameter(f"{name}.weight", [width]), b.parameter(f"{name}.bias", [width], 0.0)
    return b.op("LayerNormalization", [x, scale, shift], name, epsilon=1e-5)


def _linear3(b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int) -> ir.Value:
    product = b.op("MatMul", [x, b.parameter(f"{name}.weight", [inputs, outputs])], f"{name}.matmul")
    return b.op("Add", [product, b.parameter(f"{name}.bias", [outputs], 0.0)], name)


def _attention(b: GraphBuilder, x: ir.Value, name: str, width: int, heads: int) -> ir.Value:
    def split(part: str, perm: list[int]) -> ir.Value:
        flat = _linear3(b, x, f"{name}.{part}", width, width)
        folded = b.op("Reshape", [flat, b.int64s([0, 0, heads, width // heads])], f"{name}.{part}.heads")
        return b.op("Transpose", [folded], f"{name}.{part}.transpose", perm=perm)

    query, key, value = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]), split("value", [0, 2, 1, 3])
    scores = b.op("Mul", [b.op("MatMul", [query, key], f"{name}.scores"),
                          b.scalar(float(np.sqrt(heads / width)), "attention_scale")], f"{name}.scaled")  # fmt: skip
    mixed = b.op("MatMul", [b.op("Softmax", [scores], f"{name}.softmax", axis=-1), value], f"{name}.mixed")
    mixed = b.op("Transpose", [mixed], f"{name}.transpose", perm=[0, 2, 1, 3])
    return _linear3(b, b.op("Reshape", [mixed, b.int64s([0, 0, width])], f"{name}.merge"), f"{name}.out", width, width)


def _projection(b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int) -> ir.Value:
    return b.op("MatMul", [x, b.parameter(f"{name}.weight", [inputs, outputs])], name)


def _rms_norm(b: GraphBuilder, x: ir.Value, name: str, width: int) -> ir.Value:
    square = b.op("Pow", [x, b.scalar(2.0, "two")], f"{name}.square")
    mean = b.op("ReduceMean", [square, b.int64s([-1])], f"{name}.mean")
    root = b.op("Sqrt", [b.op("Add", [mean, b.scalar(1e-5, "epsilon")], f"{name}.add")], f"{name}.root")
    normalised = b.op("Mul", [x, b.op("Reciprocal", [root], f"{name}.inverse")], f"{name}.unit")
    return b.op("Mul", [b.parameter(f"{name}.weight", [width]), normalised], name)


def _rotary_tables(b: GraphBuilder, positions: ir.Value, width: int) -> tuple[ir.Value, ir.Value]:
    """Return the cosines and sines of the angles, `[sequence, width]`: one half of the features as the other."""
    column = b.op("Unsqueeze", [positions, b.int64s([1])], "column")
    frequencies = b.floats(1e4 ** (-np.arange(0, width, 2) / width), "inverse_frequencies")
    angles = b.op("Mul", [b.op("Cast", [column], "column.float", to=int(ir.DataType.FLOAT)), frequencies], "angles")
    both = b.op("Concat", [angles, angles], "angles.both", axis=-1)
    return b.op("Cos", [both], "cos"), b.op("Sin", [both], "sin")


def _causal_mask(b: GraphBuilder, positions: ir.Value) -> ir.Value:
    """Return what is added to scores, `[sequence, sequence]`: float32's lowest number for keys behind their query."""
    behind = b.op("Less", [b.op("Unsqueeze", [positions, b.int64s([1])], "queries"), positions], "behind")
    lowest = b.scalar(float(np.finfo(np.float32).min), "lowest")
    return b.op("Where", [behind, lowest, b.scalar(0.0, "zero")], "mask")


def _rotary(b: GraphBuilder, x: ir.Value, name: str, width: int, turns: tuple[ir.Value, ir.Value]) -> ir.Value:
    """Return x * cos + (-second half, first half) * sin."""
    first = b.op("Slice", [x, b.int64s([0]), b.int64s([width // 2]), b.int64s([-1])], f"{name}.first")
    second = b.op("Slice", [x, b.int64s([width // 2]), b.int64s([width]), b.int64s([-1])], f"{name}.second")
    swapped = b.op("Concat", [b.op("Neg", [second], f"{name}.neg"), first], f"{name}.swapped", axis=-1)
    cosine = b.op("Mul", [x, turns[0]], f"{name}.cos")
    return b.op("Add", [cosine, b.op("Mul", [swapped, turns[1]], f"{name}.sin")], f"{name}.rotary")


def _rotary_attention(
    b: GraphBuilder, x: ir.Value, name: str, width: int, heads: int, kv_heads: int, turns: tuple[ir.Value, ir.Value],
    mask: ir.Value,
) -> ir.Value:  # fmt: skip
    each = width // heads

    def split(part: str, count: int) -> ir.Value:
        flat = _projection(b, x, f"{name}.{part}", width, count * each)
        folded = b.op("Reshape", [flat, b.int64s([0, 0, count, each])], f"{name}.{part}.heads")
        return b.op("Transpose", [folded], f"{name}.{part}.t", perm=[0, 2, 1, 3])

    def repeated(value: ir.Value, part: str) -> ir.Value:
        if kv_heads == heads:
            return value
        value = b.op("Unsqueeze", [value, b.int64s([2])], f"{name}.{part}.unsqueeze")
        value = b.op("Expand", [value, b.int64s([1, 1, heads // kv_heads, 1, 1])], f"{name}.{part}.expand")
        return b.op("Reshape", [value, b.int64s([0, heads, -1, each])], f"{name}.{part}.repeated")

    query = _rotary(b, split("q", heads), f"{name}.q", each, turns)
    key = repeated(_rotary(b, split("k", kv_heads), f"{name}.k", each, turns), "k")
    value = repeated(split("v", kv_heads), "v")
    turned = b.op("Transpose", [key], f"{name}.k.columns", perm=[0, 1, 3, 2])
    scores = b.op("Mul", [b.op("MatMul", [query, turned], f"{name}.scores"), b.scalar(each**-0.5, "scale")],
                  f"{name}.scaled")  # fmt: skip
    shares = b.op("Softmax", [b.op("Add", [scores, mask], f"{name}.masked")], f"{name}.softmax", axis=-1)
    mixed = b.op(
        "Transpose", [b.op("MatMul", [shares, value], f"{name}.mixed")], f"{name}.transpose", perm=[0, 2, 1, 3]
    )
    return _projection(
        b, b.op("Reshape", [mixed, b.int64s([0, 0, width])], f"{name}.merge"), f"{name}.out", width, width
    )
