"""The reverse pass on networks as PyTorch exports them, beside autograd on the module itself."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import onnx_ir as ir
import pytest

from epsinas_onnx.proxies.jacov import correlation
from epsinas_onnx.proxies.reverse import append_gradient
from tests.tiers import tiered

from .reversing import run, weighed

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn
F = nn.functional


class Squeeze(nn.Module):
    def __init__(self, width, gate):
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width // 2, width, 1), gate

    def forward(self, x):
        return x * self.gate(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Inverted(nn.Module):
    def __init__(self, width, made, kernel, stride, act, gate):
        super().__init__()
        self.skips = stride == 1 and width == made
        hidden = 3 * width
        self.body = nn.Sequential(
            nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act(),
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False), nn.BatchNorm2d(hidden),
            act(), Squeeze(hidden, gate()), nn.Conv2d(hidden, made, 1, bias=False), nn.BatchNorm2d(made),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x) if self.skips else self.body(x)


def mobile(act, gate):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), act(), Inverted(8, 8, 3, 1, act, gate),
        Inverted(8, 12, 5, 2, act, gate), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.n1, self.n2, self.head = nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, 2, 1)
        x = F.relu(x + self.n2(self.b(F.relu(self.n1(self.a(x))))))
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(6, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.up, self.d, self.e = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 6, 3, 1, 1), nn.Conv2d(12, 2, 1)
        self.n = nn.InstanceNorm2d(6, affine=True)

    def forward(self, x):
        a = F.leaky_relu(self.n(self.a(x)))
        b = F.silu(self.b(F.max_pool2d(a, 2)))
        c = F.elu(self.c(F.avg_pool2d(b, 2)))
        d = F.relu(self.d(torch.cat([self.up(c), b], 1)))
        d = F.interpolate(d, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.e(F.pad(torch.cat([d, a], 1), [1, 1, 1, 1], mode="reflect")))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 8, 8)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 17, 12))
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attend = nn.MultiheadAttention(12, 3, batch_first=True)
        self.mlp, self.head = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12)), nn.Linear(12, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        y = self.norm1(x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class Bert(nn.Module):
    """A post-norm encoder on what an embedding gives, with masked attention."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(7, 12))
        self.qkv, self.out, self.norm1, self.norm2 = (
            nn.Linear(12, 36),
            nn.Linear(12, 12),
            nn.LayerNorm(12),
            nn.LayerNorm(12),
        )
        self.up, self.down, self.pool = nn.Linear(12, 24), nn.Linear(24, 12), nn.Linear(12, 12)

    def forward(self, x):
        x = self.norm1(x + self.place)
        q, k, v = self.qkv(x).view(x.shape[0], 7, 3, 3, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape[0], 7, 12)
        x = self.norm1(x + self.out(y))
        x = self.norm2(x + self.down(F.gelu(self.up(x), approximate="tanh")))
        return torch.tanh(self.pool(x[:, 0]))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.gru, self.head = (
            nn.LSTM(12, 6, 2, batch_first=True),
            nn.GRU(6, 5, batch_first=True),
            nn.Linear(5, 3),
        )

    def forward(self, x):
        return self.head(self.gru(self.cell(x)[0])[0][:, -1])


NETWORKS = {
    "resnet": (Residual, (3, 32, 32), False), "resnet in training": (Residual, (3, 32, 32), True),
    "mobilenet v3": (lambda: mobile(nn.Hardswish, nn.Hardsigmoid), (3, 32, 32), False),
    "efficientnet in training": (lambda: mobile(nn.SiLU, nn.Sigmoid), (3, 32, 32), True),
    "mobilenet v2": (lambda: mobile(nn.ReLU6, nn.Sigmoid), (3, 32, 32), False),
    "u-net": (UNet, (3, 16, 16), False), "vit": (ViT, (3, 32, 32), False), "bert": (Bert, (7, 12), False),
    "lstm": (Recurrent, (7, 12), False),
}  # fmt: skip


@pytest.mark.parametrize("name", tiered(NETWORKS, slow=NETWORKS, exhaustive={"resnet"}))
def test_exported_networks(name: str) -> None:
    make, shape, training = NETWORKS[name]
    torch.manual_seed(0)
    module, x = make().train(training), torch.randn(6, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            copy.deepcopy(module).eval(), (x,), dynamo=True, verbose=False, optimize=False,
        )  # fmt: skip
    model = ir.from_proto(program.model_proto)
    from onnx_ir.passes.common import InlinePass

    InlinePass()(model)
    model.graph.outputs[:] = model.graph.outputs[:1]
    for node in model.graph if training else ():
        if node.op_type == "BatchNormalization":  # which the exporter writes in inference form all the same
            node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
            node.resize_outputs(3)
            for output in node.outputs[1:]:
                output.name = f"{node.outputs[0].name}.{output.index()}"
    model = weighed(ir.to_proto(model))
    given, weight = model.graph.inputs[0], model.graph.initializers["weight0"].const_value.numpy()
    outputs = [*model.graph.outputs, *append_gradient(model, list(model.graph.outputs), [given])]
    model.graph.outputs[:] = outputs
    # ONNX Runtime's optimizer folds a BatchNormalization into a Conv in training mode too.
    forward, ours = run(ir.to_proto(model), {str(given.name): x.numpy()}, optimized=not training)
    leaf = x.double().requires_grad_()
    made = module.double()(leaf) * torch.from_numpy(weight).double()
    np.testing.assert_allclose(forward, made.detach().numpy(), rtol=1e-3, atol=1e-4)
    (expected,) = torch.autograd.grad(made.sum(), leaf)
    assert float(expected.abs().max()) > 0
    largest = float(expected.abs().max())
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-3, atol=1e-4 * largest)
    matrix = correlation([ours.reshape(6, -1)], "net")
    np.testing.assert_allclose(matrix, np.corrcoef(expected.numpy().reshape(6, -1)), atol=1e-3)
