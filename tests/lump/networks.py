"""Random small networks: branches, joins, grouped convolutions, residuals, gates, attention, normalisations."""

from __future__ import annotations

import random

import numpy as np
import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output

SIZE = 8


def random_network(seed: int) -> ir.Model:
    """Return a network of images `[batch, 3, 8, 8]` to `[batch, outputs]`; the same seed gives the same one."""
    return _Network(seed).model()


class _Network:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.b = GraphBuilder("random")
        self.count = 0

    def model(self) -> ir.Model:
        image = tensor_input("input", ["batch", 3, SIZE, SIZE])
        width = self.draw.choice([4, 8, 16])
        x = self.layer(image, 3, width)
        for _ in range(self.draw.randint(2, 5)):
            block = self.draw.choice(
                [self.residual, self.branches, self.gate, self.depthwise, self.attention, self.plain]
            )
            x, width = block(x, width)
        outputs = self.draw.choice([1, 5])
        x = self.op("Flatten", [self.op("GlobalAveragePool", [x])])
        x = self.b.linear(x, "output", width, outputs)
        return self.b.model([image], [typed_output(x, ["batch", outputs])])

    def name(self, label: str) -> str:
        self.count += 1
        return f"{label.lower()}{self.count}"

    def op(self, op_type: str, inputs: list[ir.Value], **attributes: object) -> ir.Value:
        return self.b.op(op_type, inputs, self.name(op_type), **attributes)

    def layer(self, x: ir.Value, inputs: int, outputs: int, groups: int = 1, kernel: int | None = None) -> ir.Value:
        """Append a convolution, perhaps a normalisation and an activation, in either order."""
        kernel = kernel or self.draw.choice([1, 3])
        x = self.b.conv(x, self.name("conv"), inputs, outputs, kernel, groups=groups)
        x = self.normalise(x, outputs)
        return self.activate(x)

    def normalise(self, x: ir.Value, width: int) -> ir.Value:
        kind = self.draw.choice(["batch", "batch", "batch", "instance", "group", "none"])
        name = self.name("norm")
        if kind == "batch":
            return self.b.batch_norm(x, name, width)
        if kind == "none":
            return x
        groups = self.draw.choice([1, 2, width])
        scale, shift = self.b.parameter(f"{name}.weight", [width]), self.b.parameter(f"{name}.bias", [width], 0.0)
        if kind == "instance" or groups == width:
            return self.b.op("InstanceNormalization", [x, scale, shift], name)
        cut = self.op("Reshape", [x, self.b.int64s([0, groups, -1])])
        ones, zeros = (self.b.parameter(self.name("one"), [groups], value) for value in (1.0, 0.0))
        flat = self.b.op("InstanceNormalization", [cut, ones, zeros], name)
        whole = self.op("Reshape", [flat, self.b.int64s([-1, width, SIZE, SIZE])])
        columns = (self.op("Reshape", [value, self.b.int64s([width, 1, 1])]) for value in (scale, shift))
        scaled = self.op("Mul", [whole, next(columns)])
        return self.op("Add", [scaled, next(columns)])

    def activate(self, x: ir.Value) -> ir.Value:
        kind = self.draw.choice(["Relu", "Relu", "Relu", "Sigmoid", "HardSwish", "Tanh", "LeakyRelu", "Swish"])
        return self.op("Mul", [x, self.op("Sigmoid", [x])]) if kind == "Swish" else self.op(kind, [x])

    def plain(self, x: ir.Value, width: int) -> tuple[ir.Value, int]:
        wider = self.draw.choice([width, 2 * width])
        groups = self.draw.choice([1, *(count for count in (2, 4) if width % count == 0)])
        return self.layer(x, width, wider, groups), wider

    def residual(self, x: ir.Value, width: int) -> tuple[ir.Value, int]:
        return self.op("Add", [x, self.layer(self.layer(x, width, width), width, width)]), width

    def branches(self, x: ir.Value, width: int) -> tuple[ir.Value, int]:
        """Append a concatenation of branches of different widths, shuffled perhaps, and split perhaps."""
        widths = [self.draw.choice([1, 2, 4]) for _ in range(self.draw.randint(2, 3))]
        parts = [self.layer(x, width, one) for one in widths]
        if self.draw.random() < 0.5:
            parts.append(x)
            widths.append(width)
        joined, total = self.op("Concat", parts, axis=1), sum(widths)
        if total % 2 == 0 and self.draw.random() < 0.5:  # the channel shuffle of ShuffleNet
            cut = self.op("Reshape", [joined, self.b.int64s([-1, 2, total // 2, SIZE, SIZE])])
            turned = self.op("Transpose", [cut], perm=[0, 2, 1, 3, 4])
            joined = self.op("Reshape", [turned, self.b.int64s([-1, total, SIZE, SIZE])])
        if total % 2 == 0 and self.draw.random() < 0.5:
            return self.layer(joined, total, 4, 2), 4
        return joined, total

    def gate(self, x: ir.Value, width: int) -> tuple[ir.Value, int]:
        """Append a squeeze-and-excitation gate."""
        small = max(1, width // 2)
        pooled = self.op("GlobalAveragePool", [x])
        hidden = self.op("Relu", [self.b.conv(pooled, self.name("conv"), width, small, 1)])
        gate = self.op("Sigmoid", [self.b.conv(hidden, self.name("conv"), small, width, 1)])
        return self.op("Mul", [x, gate]), width

    def depthwise(self, x: ir.Value, width: int) -> tuple[ir.Value, int]:
        x = self.layer(x, width, width, groups=width, kernel=3)
        return self.layer(x, width, 2 * width, kernel=1), 2 * width

    def attention(self, x: ir.Value, width: int) -> tuple[ir.Value, int]:
        """Append self-attention over positions, with a residual around it."""
        heads = 2 if width % 2 == 0 else 1
        flat = self.op("Reshape", [x, self.b.int64s([0, width, SIZE * SIZE])])
        tokens = self.op("Transpose", [flat], perm=[0, 2, 1])

        def project(label: str, order: list[int]) -> ir.Value:
            y = self.op("MatMul", [tokens, self.b.parameter(self.name(label), [width, width])])
            cut = self.op("Reshape", [y, self.b.int64s([0, SIZE * SIZE, heads, width // heads])])
            return self.op("Transpose", [cut], perm=order)

        query, key, value = (project(n, o) for n, o in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])))
        scores = self.op("MatMul", [query, key])
        scaled = self.op("Div", [scores, self.b.scalar(float(np.sqrt(width // heads)), f"root{width // heads}")])
        mixed = self.op("MatMul", [self.op("Softmax", [scaled], axis=-1), value])
        joined = self.op(
            "Reshape", [self.op("Transpose", [mixed], perm=[0, 2, 1, 3]), self.b.int64s([0, SIZE * SIZE, width])]
        )
        back = self.op(
            "Reshape", [self.op("Transpose", [joined], perm=[0, 2, 1]), self.b.int64s([0, width, SIZE, SIZE])]
        )
        return self.op("Add", [x, back]), width
