"""How the samples of a minibatch go through a model: together, as many as the file fixes, or one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx.errors import RunError, ShapeError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import fixed_batch_size
from epsinas_onnx.graph.load import LoadedModel
from epsinas_onnx.graph.passes.rebatch import fixed_batch
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.scoring.executors import ExecutionConfig, single_executor
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.metric import varies
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan

Array = npt.NDArray[Any]

_TRACED_SAMPLES = 4
_CHECKED_SAMPLES = 2
_CHECK_CONSTANTS = (0.05, 0.3, 1.0)  # the first keeps most networks without normalisation in range


@dataclass(frozen=True)
class Batching:
    """How the samples of a minibatch go through a model.

    samples: how many there are. fixed_batch_size: how many the file fixes, None where it fixes one or leaves it open.
    per_sample: whether they are run one by one. options: what the graph is planned with; where the file fixes a batch
    of 1 that can be loosened, `options.loosen` says so. note: what a reader of the score should know, None for nothing.
    """

    samples: int
    fixed_batch_size: int | None
    per_sample: bool
    options: GraphOptions
    note: str | None = None

    @property
    def planned(self) -> int:
        """For how many samples the graph is planned."""
        return 1 if self.per_sample else self.samples

    @property
    def traced(self) -> int:
        """How many samples are looked at where every value is."""
        return self.fixed_batch_size or min(self.samples, _TRACED_SAMPLES)


def decide_batching(
    loaded: LoadedModel,
    specs: Sequence[InputSpec],
    minibatch: Minibatch,
    wanted: int,
    options: GraphOptions,
    config: ExecutionConfig,
) -> Batching:
    """Decide how `wanted` samples, or those that `minibatch` was given, go through a model with inputs `specs`.

    A batch that the file fixes to 1 is loosened, and the loosened graph is run beside the original; where they disagree
    samples are run one by one. Raises ShapeError where no input has a batch axis.
    """
    fixed = fixed_batch_size(specs)
    samples = fixed or minibatch.size(specs, wanted)
    if not fixed_batch(specs):
        if all(spec.batch_axis is None for spec in specs):
            raise ShapeError(
                f"{loaded.name}: no input has a batch axis of its own (axis 0 of two axes or more), so samples "
                f"cannot be told apart; export the model with a dynamic batch"
            )
        note = f"the file fixes the batch to {fixed}, so that is how many samples were run" if fixed else None
        return Batching(samples, fixed, False, options, note)
    loosened = dataclasses.replace(options, loosen=True)
    if _loosening_holds(loaded, minibatch, options, config):
        note = f"the file fixes the batch to 1; it was re-batched to {samples}"
        return Batching(samples, fixed, False, loosened, note)
    note = (
        "the file fixes the batch to 1 and cannot be re-batched, so it was run sample by sample: batch statistics are "
        "those of single samples"
    )
    return Batching(samples, fixed, True, options, note)


def _loosening_holds(loaded: LoadedModel, minibatch: Minibatch, options: GraphOptions, config: ExecutionConfig) -> bool:
    """Whether the re-batched graph gives two samples at a time what the original gives each of them.

    Batch statistics would couple the samples, so both are compared with mean 0 and variance 1.
    """
    apart = dataclasses.replace(options, norm_stats="reset")
    try:
        both = plan(loaded, _CHECKED_SAMPLES, dataclasses.replace(apart, loosen=True))
        alone = plan(loaded, 1, apart)
        feeds = minibatch.made(both.specs, both.demands)
        # Away from 0, so that the first sample of the grey ramp is no all-zero one that hides a mistake.
        feeds = {k: v + np.float32(0.25) if v.dtype == np.float32 else v for k, v in feeds.items()}
        axes = {spec.name: spec.batch_axis for spec in both.specs if spec.batch_axis is not None}
        given = Feeds.of(feeds, axes)
        together, single = (single_executor(planned, config, given) for planned in (both, alone))
        for constant in _CHECK_CONSTANTS:
            ours = together.run([constant], feeds, None)[0].output
            theirs = single.run([constant], feeds, axes)[0].output
            if not _same_entries(ours, theirs):
                return False
            if np.isfinite(theirs).all() and varies(theirs):
                break  # an output that says nothing is no evidence, so another constant is tried
    except (RunError, ShapeError):
        return False
    return True


def _same_entries(together: Array, single: Array) -> bool:
    """Whether two outputs hold the same entries up to rounding; the samples may lie along any axis of the first."""
    if together.size != single.size:
        return False
    scale = float(np.abs(single[np.isfinite(single)]).max(initial=0))
    ours, theirs = np.sort(together, axis=None), np.sort(single, axis=None)
    return bool(np.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * scale, equal_nan=True))
