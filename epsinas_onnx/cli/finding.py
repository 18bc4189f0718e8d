"""Runs constants on networks with a bar, and finds the pair that `score --weights auto` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import typer

from epsinas_onnx.cli.common import EXIT_INTERRUPTED, say
from epsinas_onnx.cli.progress import with_bar
from epsinas_onnx.scoring.limits import Limits

if TYPE_CHECKING:
    from epsinas_onnx.constants.run import PairScores
    from epsinas_onnx.scoring.jobs import Jobs
    from epsinas_onnx.scoring.options import ScoreKeywords, ScoreOptions


def run_with_bar(
    models: Sequence[Any], constants: tuple[float, ...], options: ScoreOptions, limits: Limits
) -> tuple[Mapping[int, PairScores], bool]:
    """Return what each network gave by its position, and whether Ctrl-C ended it early."""
    from epsinas_onnx.constants.run import run_constants
    from epsinas_onnx.graph.load import source_name

    done: dict[int, PairScores] = {}
    results = run_constants(models, constants, options, isolate=True, limits=limits)
    stopped = False
    try:
        for index, network in with_bar(results, len(models), "finding weights", source_name(models[0])):
            done[index] = network
    except KeyboardInterrupt:
        stopped = True
    return {index: done[index] for index in sorted(done)}, stopped


def weights_for(
    models: Sequence[str], jobs: Jobs, limits: Limits, **options: Unpack[ScoreKeywords]
) -> tuple[float, float]:
    """Return the pair for all of these files, which is said on standard error; Ctrl-C ends the command."""
    from epsinas_onnx.constants.find import CONSTANTS, SAMPLE, check_options, drawn
    from epsinas_onnx.constants.result import found_weights
    from epsinas_onnx.report.constants import chosen
    from epsinas_onnx.scoring.options import DEFAULT_WEIGHTS

    sample = drawn(models, SAMPLE, options.get("seed", 0))
    ordered, checked = check_options(CONSTANTS, sample, jobs=jobs, **options)
    ran, stopped = run_with_bar(sample, ordered, checked, limits)
    if stopped:
        say("Interrupted while weights were found: no file was scored.")
        raise typer.Exit(EXIT_INTERRUPTED)
    found = found_weights(list(ran.values()), ordered, checked.arithmetic)
    if found.weights is None:
        first, second = DEFAULT_WEIGHTS
        say(f"weights {first:g},{second:g}, the default: {found.reason}")
        return DEFAULT_WEIGHTS
    say(chosen(found))
    return found.weights
