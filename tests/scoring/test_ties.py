"""Entries within rounding of an output's minimum: when they decide a score, it says so, whichever way they fell."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from epsinas_onnx import Score, Status, score
from epsinas_onnx.scoring.exact_reruns import ExactReruns
from epsinas_onnx.scoring.metric import normalised_dispersion
from epsinas_onnx.scoring.reruns import Reruns
from epsinas_onnx.scoring.result import ABSOLUTE, RELATIVE, same_score
from epsinas_onnx.scoring.verdict import Verdict
from tests.scoring.test_verdict import FakeRunner, verdict_on

Array = npt.NDArray[np.float32]

MODELS = Path(__file__).parents[2] / "models"
EXPORTS = Path(__file__).parents[1] / "data" / "folded_exports.zip"
ULP = np.spacing(np.float32(-12.7))
"""Step between float32 numbers at the minimum of the detector below."""


def detector(share: float = 0.2, size: int = 5000) -> tuple[Array, Array]:
    """Return outputs of a detector: two levels for one constant; for the other a share of all at -12.7, below 478."""
    rng = np.random.default_rng(7)
    first = np.where(rng.random(size) < 0.3, 0.5, 0.0).astype(np.float32)
    second = rng.uniform(0, 478, size).astype(np.float32)
    second[rng.permutation(size)[: int(share * size)]] = -12.7
    second[np.argmax(second)] = 478
    return first, second


def rounded(output: Array, seed: int, steps: int = 4) -> Array:
    """Return what another order of operations would give: every entry at the minimum a few steps off."""
    moved = output.copy()
    lowest = output == output.min()
    moved[lowest] += np.random.default_rng(seed).integers(0, steps, int(lowest.sum())) * ULP
    return moved


def judged(first: Array, second: Array, again: Callable[[float], Array] | None = None) -> tuple[Verdict, list[str]]:
    """Judge outputs whose repetition moves the second by a few steps more."""
    runner = FakeRunner(again=again or (lambda c: first if c < 1 else rounded(second, 99)))
    return verdict_on(first, second, runner), runner.asked


def interval(text: str | None) -> tuple[float, float]:
    found = re.search(r"between ([\d.e+-]+) and ([\d.e+-]+)", str(text))
    assert found, text
    return float(found[1]), float(found[2])


def within(value: float | None, ends: tuple[float, float]) -> bool:
    assert value is not None
    low, high = ends
    slack = max(ABSOLUTE, RELATIVE * high)
    return low - slack <= value <= high + slack


@pytest.mark.parametrize("one", range(4))
def test_score_that_rounding_decides_carries_an_interval_that_holds_those_of_other_roundings(one: int) -> None:
    first, exact = detector()
    verdict, _ = judged(first, rounded(exact, one))
    assert verdict.status is Status.OK
    ends = interval(verdict.note)
    others = [
        normalised_dispersion(first, rounded(exact, seed, steps)) for seed in range(10, 20) for steps in (1, 2, 9)
    ]
    assert not same_score(min(others), max(others))
    assert all(within(other, ends) for other in [*others, verdict.raw_score])
    assert "20% of the output's entries lie within rounding" in str(verdict.note)
    assert "with weights 1," in str(verdict.note)
    assert "1e-07" not in str(verdict.note)


def test_entries_that_are_exactly_the_minimum_are_no_doubt_and_cost_nothing() -> None:
    verdict, asked = judged(*detector())
    assert (verdict.status, verdict.note, asked) == (Status.OK, None, [])


def test_a_minimum_that_does_not_move_is_one_by_structure() -> None:
    """A saturated function, and entries a rounding away: these may be skipped too, the others are skipped anyway."""
    first, second = detector()
    lowest = np.flatnonzero(second == second.min())
    second[lowest] = -1.0
    second[lowest[:400]] = np.nextafter(np.float32(-1), np.float32(0))
    verdict, _ = judged(first, second, again=lambda c: first if c < 1 else second)
    moves, _ = judged(first, second, again=lambda c: first if c < 1 else second - 4 * np.spacing(np.float32(1)))
    low, high = interval(verdict.note)
    ends = (normalised_dispersion(first, np.where(second < 0, np.float32(-1), second)), verdict.raw_score)
    assert (low, high) == pytest.approx(sorted(ends), rel=RELATIVE)
    assert interval(moves.note)[1] > high * (1 + RELATIVE)


def test_small_entries_beside_a_minimum_of_0_are_no_ties() -> None:
    """A share of 1e-9 of the maximum lies below its last bit, and float32 resolves it all the same."""
    first, second = detector()
    lowest = np.flatnonzero(second == second.min())
    second[lowest] = np.where(np.arange(lowest.size) % 2, np.float32(0), np.float32(5e-7))
    verdict, asked = judged(first, second)
    assert (verdict.status, verdict.note, asked) == (Status.OK, None, [])


def test_entries_a_hundred_roundings_apart_are_no_ties() -> None:
    first, second = detector()
    lowest = np.flatnonzero(second == second.min())
    second[lowest[::2]] += 100 * ULP
    verdict, _ = judged(first, second, again=lambda c: first if c < 1 else rounded(second, 3))
    assert (verdict.status, verdict.note) == (Status.OK, None)


def test_few_ties_change_nothing_and_are_not_mentioned() -> None:
    first, exact = detector(share=0.0008)
    verdict, asked = judged(first, rounded(exact, 1))
    assert (verdict.status, verdict.note, asked) == (Status.OK, None, [])


def test_interval_that_spans_more_than_the_resolution_is_noise() -> None:
    first, exact = detector(share=0.9)
    first[:] = np.where(exact == exact.min(), np.float32(400), exact)  # apart where tied, alike elsewhere
    verdict, _ = judged(first, rounded(exact, 1))
    low, high = interval(verdict.reason)
    assert verdict.status is Status.NOISE
    assert high > 4 * low
    assert within(verdict.raw_score, (low, high))


def test_nothing_left_beside_the_ties_is_noise_that_says_so() -> None:
    first, exact = detector(share=0.9)
    first[:] = np.where(exact == exact.min(), first + np.float32(1), np.float32(0))
    verdict, _ = judged(first, rounded(exact, 1))
    assert verdict.status is Status.NOISE
    assert verdict.raw_score is not None
    assert "nothing is left to compare" in str(verdict.reason)


# Whole models.


def scored(model: str | bytes | Path, **options: object) -> Score:
    given = {"batch": 16, "providers": "cpu", "threads": 1, "arithmetic": "float32", **options}
    return score(model, **given)  # type: ignore[arg-type]


def ends_of(result: Score) -> tuple[float, float]:
    """Return the interval that a score carries; one without is all of it."""
    assert result.score is not None
    notes = [note for note in result.warnings if note.startswith("the score lies between")]
    return interval(notes[0]) if notes else (result.score, result.score)


def test_saturated_outputs_agree_lumped_and_plain_within_what_they_say() -> None:
    """Half the samples saturate every tanh, so -64 is the least sum; in one order one of them comes out lower."""
    path = MODELS / "frameworks" / "mlp-sklearn.onnx"
    lumped, plain = (scored(path, batch=256, lump=lump) for lump in (True, False))
    assert not same_score(lumped.score, plain.score)
    first, second = ends_of(lumped), ends_of(plain)
    assert max(first[0], second[0]) <= min(first[1], second[1]) * (1 + RELATIVE)
    assert scored(path, batch=256).warnings == lumped.warnings  # twice the same


@pytest.mark.parametrize("inputs", ["auto", "normal"])
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mlp-sklearn", (1e-7, 1.0)),
        ("cnn-torchscript", (1e-7, 1.0)),
        ("torch-yolo.old", (1e-7, 1.0)),
        ("torch-unet.old", (1e-3, 0.5)),
    ],
    ids=str,
)
def test_lumped_and_plain_intervals_overlap(name: str, inputs: str, weights: tuple[float, float]) -> None:
    with zipfile.ZipFile(EXPORTS) as files:
        stored = f"{name}.onnx" in files.namelist()
        model = files.read(f"{name}.onnx") if stored else MODELS / "frameworks" / f"{name}.onnx"
    lumped, plain = (scored(model, lump=lump, inputs=inputs, weights=weights) for lump in (True, False))
    assert lumped.status == plain.status
    if lumped.score is not None:
        (low, high), (other_low, other_high) = ends_of(lumped), ends_of(plain)
        assert max(low, other_low) <= min(high, other_high) * (1 + RELATIVE) + ABSOLUTE


@pytest.mark.parametrize("path", sorted(MODELS.glob("nb201-*s-c3-*.onnx")), ids=lambda path: path.stem)
def test_looking_for_ties_runs_no_benchmark_network_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for runs in (Reruns, ExactReruns):
        monkeypatch.setattr(runs, "rerun_perturbed", None)
    found = scored(path, batch=256, arithmetic="auto")
    assert found.status is found.float32_status is Status.OK
