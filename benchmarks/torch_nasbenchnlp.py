"""NAS-Bench-NLP language models in PyTorch: an independent implementation that takes parameters by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

_ELEMENTWISE: dict[str, Callable[..., torch.Tensor]] = {
    "activation_tanh": torch.tanh,
    "activation_sigm": torch.sigmoid,
    "activation_leaky_relu": torch.nn.LeakyReLU(0.01),
    "elementwise_prod": torch.mul,
    "elementwise_sum": torch.add,
    "blend": lambda gate, first, second: gate * first + (1 - gate) * second,
}


def run(
    recipe: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, torch.Tensor], tokens: np.ndarray, layers: int
) -> torch.Tensor:
    """Return feature 0 of the last layer, `[batch, steps]`, for int64 tokens `[batch, steps]`.

    parameters: `embedding.weight`, and for every layer `layer0.NODE.weight0` `[inputs, outputs]`, `layer0.NODE.bias`
    and `layer0.h_0_0` `[1, outputs]`; their element type is that of the arithmetic.
    """
    sequence = parameters["embedding.weight"][torch.from_numpy(tokens)].transpose(0, 1)
    states = sum(name.startswith("h_new_") for name in recipe)
    for layer in range(layers):
        hidden = [parameters[f"layer{layer}.h_0_{index}"].expand(tokens.shape[0], -1) for index in range(states)]
        outputs = []
        for x in sequence:
            hidden = _step(recipe, parameters, f"layer{layer}", x, hidden)
            outputs.append(hidden[0])
        sequence = torch.stack(outputs)
    return sequence[..., 0].T


def _step(
    recipe: Mapping[str, Mapping[str, Any]],
    parameters: Mapping[str, torch.Tensor],
    layer: str,
    x: torch.Tensor,
    hidden: list[torch.Tensor],
) -> list[torch.Tensor]:
    known = {"x": x, **{f"h_prev_{index}": state for index, state in enumerate(hidden)}}

    def value(name: str) -> torch.Tensor:
        if name not in known:
            node = recipe[name]
            operands = [value(operand) for operand in node["input"]]
            if node["op"] == "linear":
                known[name] = _linear(parameters, f"{layer}.{name}", operands)
            else:
                known[name] = _ELEMENTWISE[node["op"]](*operands)
        return known[name]

    return [value(f"h_new_{index}") for index in range(len(hidden))]


def _linear(parameters: Mapping[str, torch.Tensor], name: str, operands: list[torch.Tensor]) -> torch.Tensor:
    """Return the sum of products; the bias goes into the first of them, as in the published code's arithmetic."""
    total = torch.addmm(parameters[f"{name}.bias"], operands[0], parameters[f"{name}.weight0"])
    for slot, operand in enumerate(operands[1:], start=1):
        total = total + operand @ parameters[f"{name}.weight{slot}"]
    return total
