"""Training-free scores of PyTorch modules, as zero-cost-nas and the papers compute them: hooks and autograd.

An independent implementation to compare and to time against: it shares no code with `epsinas_onnx.proxies`. Every
function takes a module and a minibatch, float32 `[samples, channels, height, width]`, and returns a number. Modules run
in training mode, so that batch statistics are the minibatch's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

ACTIVATED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish)


def initialised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw weights: Kaiming normal by fan out for layers, 1 and 0 for what normalises, biases of 0."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module.train()


def params(module: nn.Module, batch: torch.Tensor) -> float:
    """Return how many parameters there are."""
    return float(sum(parameter.numel() for parameter in module.parameters()))


def macs(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the multiply-adds of convolutions and linear layers for one sample, counted while it runs."""
    total = 0

    def count(part: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(part, nn.Conv2d):
            total += part.weight[0].numel() * output[0].numel()
        else:
            total += part.weight.numel()

    with hooked(module, (nn.Conv2d, nn.Linear), count), torch.no_grad():
        module(batch[:2])
    return float(total)


@contextmanager
def hooked(module: nn.Module, kinds: tuple[type, ...], hook: Callable[..., None]) -> Iterator[None]:
    """Have a function called behind every part of some kinds."""
    handles = [part.register_forward_hook(hook) for part in module.modules() if isinstance(part, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def relus(seen: list[torch.Tensor]) -> Iterator[None]:
    """Collect what `torch.relu` is given, which the benchmarks' modules call as a function."""
    original = torch.relu

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return original(x)

    torch.relu = watched
    try:
        yield
    finally:
        torch.relu = original


def preactivations(module: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    """Return what goes into every ReLU, in order."""
    seen: list[torch.Tensor] = []
    with relus(seen), torch.no_grad():
        module(batch)
    return seen


def nwot(module: nn.Module, batch: torch.Tensor) -> float:
    """Return log det K, K the number of equal signs of two samples (Mellor et al. 2021)."""
    kernel = np.zeros((len(batch), len(batch)))
    for x in preactivations(module, batch):
        signs = (x.reshape(len(batch), -1) > 0).float()
        kernel += (signs @ signs.T + (1 - signs) @ (1 - signs.T)).numpy()
    return float(np.linalg.slogdet(kernel)[1])


def swap(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the number of different sign vectors over the samples (Peng et al. 2024)."""
    signs = torch.cat([(x > 0).reshape(len(batch), -1) for x in preactivations(module, batch)], 1)
    return float(len(torch.unique(signs.T, dim=0)))


def jacov(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the score of the correlation of derivatives by the input (Mellor et al. 2020)."""
    inputs = batch.clone().requires_grad_()
    output = module(inputs)
    output.backward(torch.ones_like(output))
    assert inputs.grad is not None
    values = np.linalg.eigvalsh(np.corrcoef(inputs.grad.reshape(len(batch), -1).numpy()))
    return float(-np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5)))


def synflow(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the sum of w dR/dw for absolute weights, normalisations left out (Tanaka et al. 2020)."""
    kept = [(part, part.forward) for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    for part, _ in kept:
        part.forward = lambda x: x  # type: ignore[method-assign]
    try:
        module.zero_grad()
        module(torch.ones_like(batch[:1], dtype=torch.float64)).sum().backward()
        layers = (part.weight for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear))
        return float(sum((w.detach() * w.grad).sum() for w in layers if w.grad is not None))
    finally:
        for part, forward in kept:
            part.forward = forward  # type: ignore[method-assign]
        module.float()


def features(module: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    """Return what each cell gives: for a module of `stages`, what is at the end of each of them."""
    seen: list[torch.Tensor] = []
    cells = [cell for stage in module.stages for cell in stage]
    handles = [cell.register_forward_hook(lambda part, x, y: seen.append(y.detach())) for cell in cells]
    with torch.no_grad():
        module(batch)
    for handle in handles:
        handle.remove()
    return seen


def expressivity(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the sum of entropies of the features' covariance spectra (Lee and Ham 2024)."""
    return float(sum(entropies(module, batch)))


def progressivity(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the smallest increase of these entropies."""
    return float(np.diff(entropies(module, batch)).min())


def entropies(module: nn.Module, batch: torch.Tensor) -> list[float]:
    """Return the entropy of the spectrum of the channels' covariance, cell by cell."""
    found = []
    for x in features(module, batch):
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        values = torch.linalg.eigvalsh(torch.cov(rows.T)).clamp(min=0)
        share = values / values.sum()
        found.append(float(-(share * torch.log(share + 1e-12)).sum()))
    return found


def meco(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the sum over layers of the smallest eigenvalue of the channels' correlation (Jiang et al. 2023).

    It is that of the first sample of the minibatch, as in `epsinas_onnx.proxies.meco`, whose statistics normalise.
    """
    total = 0.0

    def add(part: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        matrix = torch.corrcoef(output[0].detach().reshape(output.shape[1], -1)).nan_to_num(0.0, 0.0, 0.0)
        total += float(torch.linalg.eigvalsh(matrix).min())

    with hooked(module, (nn.Conv2d, nn.BatchNorm2d), add), torch.no_grad():
        module(batch)
    return total


def meco_of_one(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the same of one random sample that is fed alone, as the published code does."""
    return meco(module, torch.randn_like(batch[:1]))


def built(module: nn.Module, batch: torch.Tensor) -> float:
    """Return nothing of a module: what building and drawing it takes."""
    return 0.0


def zen(module: nn.Module, batch: torch.Tensor) -> float:
    """Return the log of the change of features under noise, plus the logs of deviations (Lin et al. 2021)."""
    noise, logs = torch.randn_like(batch), 0.0

    def add(part: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal logs
        logs += math.log(float(inputs[0].var((0, 2, 3), unbiased=False).mean().sqrt() + 1e-10))

    classifier = module.classifier
    module.classifier = nn.Identity()
    try:
        with torch.no_grad():
            moved = module(batch + 0.01 * noise)
            with hooked(module, (nn.BatchNorm2d,), add):
                plain = module(batch)
        return math.log(float((plain - moved).abs().mean()) + 1e-10) + logs
    finally:
        module.classifier = classifier


SCORES: dict[str, Callable[[nn.Module, torch.Tensor], float]] = {
    "params": params, "macs": macs, "nwot": nwot, "swap": swap, "meco": meco, "zen": zen, "jacov": jacov,
    "synflow": synflow, "expressivity": expressivity, "progressivity": progressivity,
}  # fmt: skip
