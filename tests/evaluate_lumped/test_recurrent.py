"""Recurrent layers whose steps are taken at once are what they are step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from epsinas_onnx.evaluate_lumped import far, lstm
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.moderate import Moderate
from epsinas_onnx.evaluate_lumped.recurrent import Exact, recurrent_rule
from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.lump.graph import Node

Array = npt.NDArray[Any]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, SAMPLES, WIDTH, HIDDEN = 5, 6, 3, 4
FAR = -(2**44)


def layer(kind: str, direction: str, **attributes: Any) -> Any:
    outputs = 3 if kind == "LSTM" else 2
    node = Node(
        kind, "", (None,) * 7, (None,) * outputs, {"hidden_size": HIDDEN, "direction": direction, **attributes}, ""
    )  # type: ignore[arg-type]
    return recurrent_rule(Call(node, (), {}))


def operands(kind: str, directions: int, exponent: int, states: bool, spread: float = 0.3) -> list[Value | None]:
    rng = np.random.default_rng(len(kind) + directions)

    def held(*shape: int, exponent: int = exponent) -> Value:
        return Value(shape, Scaled(rng.uniform(0.5, 1.0, shape), 1.0, exponent), None)

    def moved(*shape: int, size: float = 1.0) -> Value:
        base, deviation = rng.normal(size=(shape[0], 1, shape[2])), spread * rng.normal(size=shape)
        deviation[:, 0] = 0
        return Value(shape, Scaled(size * base), Scaled(size * deviation))

    gates = GATES[kind]
    state = [moved(directions, SAMPLES, HIDDEN) if states else None for _ in range(2 if kind == "LSTM" else 1)]
    return [
        moved(STEPS, SAMPLES, WIDTH), held(directions, gates * HIDDEN, WIDTH), held(directions, gates * HIDDEN, HIDDEN),
        held(directions, 2 * gates * HIDDEN), None, *state,
    ]  # fmt: skip


def scaled(value: Value | None, exponent: int) -> Value:
    assert value is not None
    parts = [part and part.times(1.0, exponent) for part in (value.base, value.deviation)]
    return Value(value.shape, *parts)


def same(one: Any, other: Any, tolerance: float) -> None:
    assert one.shape == other.shape
    for mine, theirs in ((one.base, other.base), (one.deviation, other.deviation)):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            array = np.broadcast_to(mine.in_units_of(theirs), one.shape)
            wanted = np.broadcast_to(theirs.array, one.shape)
            np.testing.assert_allclose(array, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_steps_that_do_not_matter_to_each_other(
    kind: str, direction: str, states: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = operands(kind, 2 if direction == "bidirectional" else 1, FAR, states)
    if states:
        given[5:] = [scaled(state, FAR) for state in given[5:]]
    found = []
    monkeypatch.setattr(Exact, "all_steps", lambda a, steps: found.append(far.all_steps(a, steps)) or found[-1])
    at_once = layer(kind, direction)(given)
    assert None not in found
    assert len(found) == given[1].shape[0]  # type: ignore[union-attr]
    monkeypatch.setattr(Exact, "all_steps", lambda a, steps: None)
    for one, other in zip(at_once, layer(kind, direction)(given), strict=True):
        same(one, other, 1e-15)


@pytest.mark.parametrize("change", ["recurrence", "first output", "one step", "another function"])
def test_steps_that_may_matter_go_one_by_one(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands("RNN", 1, FAR, change == "first output")
    activations = {"activations": ["Relu"]} if change == "another function" else {}
    if change == "recurrence":
        given[2] = scaled(given[2], -FAR - 64)
    elif change == "one step":  # nothing comes in but what the step before gives
        given[3] = None
        assert given[0] is not None
        for part in (given[0].base, given[0].deviation):
            assert part is not None
            part.array[2] = 0.0
    found = []
    monkeypatch.setattr(Exact, "all_steps", lambda a, steps: found.append(far.all_steps(a, steps)) or found[-1])
    run = layer("RNN", "forward", **activations)
    run(given)
    assert found == [None]


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("exponent", "spread"), [(0, 0.3), (0, 30.0), (-20, 0.3), (-100, 1e-9)])
def test_an_lstm_of_moderate_numbers(
    exponent: int, spread: float, direction: str, states: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = operands("LSTM", 2 if direction == "bidirectional" else 1, exponent, states, spread)
    found = []
    deviations = lstm.deviations
    monkeypatch.setattr(lstm, "deviations", lambda *a: found.append(deviations(*a)) or found[-1])
    at_once = layer("LSTM", direction)(given)
    assert len(found) == given[1].shape[0]  # type: ignore[union-attr]
    assert None not in found
    monkeypatch.setattr(Moderate, "all_steps", lambda a, steps: None)
    by_moderate = layer("LSTM", direction)(given)
    monkeypatch.setattr("epsinas_onnx.evaluate_lumped.recurrent._moderate", lambda *_: None)
    by_exact = layer("LSTM", direction)(given)
    for one, other, third in zip(at_once, by_moderate, by_exact, strict=True):
        same(one, other, 1e-13)
        same(one, third, 1e-12)


def test_an_lstm_that_float64_holds_too_little_of_goes_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands("LSTM", 1, 0, False)
    given[3] = Value(given[3].shape, Scaled(np.full(given[3].shape, 500.0)), None)  # type: ignore[union-attr]
    found = []
    deviations = lstm.deviations
    monkeypatch.setattr(lstm, "deviations", lambda *a: found.append(deviations(*a)) or found[-1])
    layer("LSTM", "forward")(given)
    assert found == [None]
