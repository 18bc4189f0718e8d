"""The score's formula on two draws of weights instead of two constants: what the paper compares constants with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epsinas_onnx._util.gc import collection_paused
from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx.graph.load import Buildable
from epsinas_onnx.proxies.drawn import Draw
from epsinas_onnx.proxies.prepared import Array, Prepared, prepare
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.metric import normalised_dispersion, varies
from epsinas_onnx.scoring.single import or_error
from epsinas_onnx.scoring.supervisor import Failure
from epsinas_onnx.scoring.workers import work_in_processes

NAMES: Mapping[str, Draw] = {
    "normal": Draw.GAUSSIAN, "uniform": Draw.UNIFORM, "kaiming": Draw.KAIMING, "xavier": Draw.XAVIER,
    "orthogonal": Draw.ORTHOGONAL,
}  # fmt: skip
"""How weights of layers are drawn: standard normal, uniform between 0 and 1, and what `Draw` says."""


@dataclass(frozen=True)
class DrawnScores:
    """The scores of one network by the name of the scheme, None where the formula gives no number.

    reason: why the network could not be run, None where it could.
    """

    model: str
    scores: Mapping[str, float | None]
    reason: str | None = None


def drawn_scores(
    networks: Sequence[Buildable],
    schemes: Sequence[str],
    *,
    batch: int,
    inputs: Any,
    seed: int,
    jobs: int,
    limits: Limits,
) -> Iterator[tuple[int, DrawnScores]]:
    """Yield the position and the scores of each network as they come, computed by `jobs` processes.

    Both draws of a scheme see one minibatch. Biases are 0 and scales of normalisations 1, which take the statistics of
    the minibatch, as with constants. Nothing can be lumped where channels differ, so the plain graph is run.
    """
    options = {"batch": batch, "inputs": inputs, "seed": seed, "threads": 1, "providers": "cpu"}
    tasks = ((network.name, (network, tuple(schemes), options)) for network in networks)
    yield from work_in_processes(_scores, tasks, jobs, _failed, limits)


def _scores(network: Buildable, schemes: Sequence[str], options: Mapping[str, Any]) -> DrawnScores:
    quiet_libraries()

    def work() -> DrawnScores:
        with collection_paused():
            prepared = prepare(network, **options)
            return DrawnScores(network.name, {name: _score(prepared, NAMES[name]) for name in schemes})

    return or_error(network.name, work, lambda reason, _: DrawnScores(network.name, {}, reason))


def _failed(name: str, failure: Failure) -> DrawnScores:
    return DrawnScores(name, {}, f"{name}: {failure.cause}")


def _score(prepared: Prepared, draw: Draw) -> float | None:
    first, second = (_output(prepared, draw, seed) for seed in (prepared.seed, prepared.seed + 1))
    if not (varies(first) and varies(second)):
        return None
    found = normalised_dispersion(first, second)
    return found if math.isfinite(found) else None


def _output(prepared: Prepared, draw: Draw, seed: int) -> Array:
    made = dataclasses.replace(prepared.with_seed(seed), draw=draw, minibatch=prepared.minibatch)
    name = str(made.output.name)
    return made.run([name])[name]
