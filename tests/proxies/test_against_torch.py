"""Every score against a few lines of PyTorch on the same weights and inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

from epsinas_onnx.proxies.drawn import Draw  # noqa: E402
from epsinas_onnx.proxies.measure import measure_prepared  # noqa: E402
from epsinas_onnx.proxies.prepared import Prepared  # noqa: E402
from epsinas_onnx.proxies.registry import find_proxy  # noqa: E402
from epsinas_onnx.proxies.zen import moved_inputs  # noqa: E402
from tests.proxies.networks import Block, Plus, residual, seen, with_drawn  # noqa: E402

BENT = (nn.ReLU, nn.LeakyReLU, nn.SiLU)


def value(prepared: Prepared, name: str) -> float:
    (found,) = measure_prepared(prepared, [find_proxy(name)])
    assert found.value is not None, found.reason
    return found.value


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Prepared]:
    return residual(batch=8)


def image(prepared: Prepared) -> Any:
    (array,) = prepared.feeds.values()
    return array


def test_the_output_is_that_of_torch_in_training_mode(pair: tuple[Any, Prepared]) -> None:
    module, prepared = pair
    name = str(prepared.output.name)
    expected = module(torch.tensor(image(prepared))).detach().numpy()
    np.testing.assert_allclose(prepared.run([name])[name], expected, rtol=1e-4, atol=1e-5)


def test_weights_have_the_variance_of_kaiming_by_fan_out(pair: tuple[Any, Prepared]) -> None:
    weight = pair[0].second.conv2.weight
    assert weight.std().item() == pytest.approx((2 / (12 * 9)) ** 0.5, rel=0.05)


def test_nwot(pair: tuple[Any, Prepared]) -> None:
    module, prepared = pair
    kernel = 0
    for _, x, _ in seen(module, image(prepared), BENT):
        on = (x.flatten(1) > 0).double()
        kernel = kernel + on @ on.T + (1 - on) @ (1 - on).T
    assert value(prepared, "nwot") == pytest.approx(torch.linalg.slogdet(kernel)[1].item(), rel=1e-6)


@pytest.mark.parametrize("batch", [2, 8, 30, 60])
def test_swap(pair: tuple[Any, Prepared], batch: int) -> None:
    module, prepared = pair if batch == 8 else residual(batch=batch)
    patterns = torch.cat([(x.flatten(1) > 0).float() for _, x, _ in seen(module, image(prepared), BENT)], 1)
    assert value(prepared, "swap") == torch.unique(patterns.T, dim=0).shape[0]


def test_meco(pair: tuple[Any, Prepared]) -> None:
    module, prepared = pair
    total = 0.0
    for _, _, out in seen(module, image(prepared), (nn.Conv2d, *BENT, nn.MaxPool2d, Plus)):
        correlation = torch.corrcoef(out[0].double().flatten(1))
        correlation[torch.isnan(correlation)] = 0
        total += torch.linalg.eigvals(correlation).real.min().item()
    assert value(prepared, "meco") == pytest.approx(total, rel=1e-4)


def test_zen(pair: tuple[Any, Prepared]) -> None:
    prepared = pair[1]
    gaussian = with_drawn(residual(batch=8)[0], prepared.with_draw(Draw.GAUSSIAN))
    assert gaussian.second.conv2.weight.std().item() == pytest.approx(1, rel=0.05)
    x, (moved,) = image(prepared), moved_inputs(prepared).values()
    assert np.std(moved - x) == pytest.approx(0.01, rel=0.05)
    features = [seen(gaussian, array, Block)[-1][2] for array in (x, moved)]
    change = (features[0] - features[1]).abs().sum(dim=(1, 2, 3)).mean().log().item()
    for _, before, _ in seen(gaussian, x, nn.BatchNorm2d):
        change += before.var(dim=(0, 2, 3), unbiased=False).mean().sqrt().log().item()
    assert value(prepared, "zen") == pytest.approx(change, rel=1e-4)


def entropies(module: Any, x: Any) -> list[float]:
    found = []
    for _, _, out in seen(module, x, (nn.MaxPool2d, Block)):
        rows = out.double().permute(0, 2, 3, 1).flatten(0, 2)
        spectrum = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0))
        shares = spectrum / spectrum.sum()
        found.append(-(shares * (shares + 1e-8).log()).sum().item())
    return found


def test_expressivity_and_progressivity(pair: tuple[Any, Prepared]) -> None:
    module, prepared = pair
    expected = entropies(module, image(prepared))
    assert len(expected) == 3
    assert value(prepared, "expressivity") == pytest.approx(sum(expected), rel=1e-5)
    assert value(prepared, "progressivity") == pytest.approx(min(np.diff(expected)), rel=1e-4)


def test_counts(pair: tuple[Any, Prepared]) -> None:
    module, prepared = pair
    assert value(prepared, "params") == sum(weight.numel() for weight in module.parameters())
    products = sum(
        out[0].numel() * m.weight[0].numel() for m, _, out in seen(module, image(prepared), (nn.Conv2d, nn.Linear))
    )
    assert value(prepared, "macs") == products
    assert value(prepared, "depth") == 6  # stem, two in each block, head: the convolution of the shortcut lies beside
    assert value(prepared, "relu_units") == sum(x[0].numel() for _, x, _ in seen(module, image(prepared), BENT))
