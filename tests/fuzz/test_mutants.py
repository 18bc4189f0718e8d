"""Mutants of sound files through every command: each ends with a result or a sentence, and opens nothing outside."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from epsinas_onnx.errors import EpsinasError
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.supervisor import Failure, Workers
from tests.fuzz.harness import REPORT, Outcomes, run_mutant, watched

FEW = 100
"""How many mutants CI has time for: each file has one."""

COUNT = int(os.environ.get("EPSINAS_FUZZ", "300"))
"""How many the exhaustive tier has; docs/releasing.md asks for 5,000, which take two cores half an hour."""

FIRST = int(os.environ.get("EPSINAS_FUZZ_FIRST", "0"))
"""The first seed, so that another run sees other mutants."""

LOG = logging.getLogger(__name__)
LIMITS = Limits(timeout=60, memory=4)
MODELS = Path(__file__).parents[2] / "models"


def originals() -> list[str]:
    """Return models/ twice, and what the onnx package brings along, but for networks of 50 million weights and more."""
    real = Path(onnx.__file__).parent / "backend" / "test" / "data"
    large = ("light_bvlc_alexnet", "light_vgg19", "light_zfnet512")
    light = [path for path in (real / "light").glob("*.onnx") if path.stem not in large]
    layers = [path for path in (real / "pytorch-converted").glob("*/model.onnx") if path.stat().st_size > 600]
    assert len(light) + len(layers) >= 10
    return sorted(str(path) for path in [*MODELS.rglob("*.onnx"), *MODELS.rglob("*.onnx"), *light, *layers])


def outcomes(folder: Path, places: tuple[str, ...], seeds: range) -> Iterator[tuple[int, str, Outcomes | Failure]]:
    """Run every command over the mutant of every seed, two at a time."""
    files = originals()
    tasks = [(files[seed % len(files)], seed, places, str(folder)) for seed in seeds]
    with Workers(2, LIMITS) as workers:
        for index, result in workers.results(run_mutant, tasks):
            yield seeds[index], tasks[index][0], result


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(FEW), id="few", marks=pytest.mark.slow),
        pytest.param(range(FIRST, FIRST + COUNT), id="all", marks=pytest.mark.exhaustive),
    ],
)
def test_every_mutant_ends_with_a_result_or_a_sentence_in_every_command(tmp_path: Path, seeds: range) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    secret = outside / "secret.bin"
    secret.write_bytes(bytes(4096))
    (outside / "folder").mkdir()
    os.mkfifo(outside / "fifo")
    places = (
        "../../outside/secret.bin", str(secret), "../../outside/folder", "../../outside/fifo", str(outside / "fifo"),
        "mutant.onnx", ".", "", "missing.bin", "/dev/zero", "a/../../../outside/secret.bin",
    )  # fmt: skip
    seen: Counter[int] = Counter()
    said: Counter[str] = Counter()
    unexpected: list[str] = []
    with watched(outside) as opened:
        for seed, path, result in outcomes(inside, places, seeds):
            seen[seed] += 1
            if isinstance(result, Failure):
                said["stopped"] += 1
                if "died" in result.cause and "SIGKILL" not in result.cause:
                    said["died"] += 1
                LOG.info("seed %d of %s: %s", seed, path, result.cause)
                continue
            for command, text in result.items():
                said["ok" if text == "ok" else "refused"] += 1
                if text.startswith("unexpected") or REPORT in text:
                    unexpected.append(f"{command}, seed {seed} of {path}: {text[:500]}")
                elif text != "ok":
                    assert text == str(EpsinasError(text)), f"{command}, seed {seed} of {path}: more than one line"
    LOG.info("%s", dict(said))
    assert seen == Counter(seeds)
    assert not opened
    assert said["ok"] > 0.1 * 7 * len(seeds)  # else the mutants are so broken that nothing is tried
    assert said["refused"] > 0.1 * 7 * len(seeds)
    assert len(unexpected) * 1000 < 7 * len(seeds), "\n".join(unexpected)
    assert said["stopped"] * 200 < len(seeds)
