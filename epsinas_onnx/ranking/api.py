"""Ranks a set of models in Python: `rank`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

from epsinas_onnx.errors import UsageError
from epsinas_onnx.graph.load import ModelSource
from epsinas_onnx.proxies.registry import proxy_names
from epsinas_onnx.ranking.members import DEFAULT, measured, parse_members
from epsinas_onnx.ranking.result import RankedSet, rank_records
from epsinas_onnx.scoring.api import score_many
from epsinas_onnx.scoring.jobs import Jobs
from epsinas_onnx.scoring.options import ScoreKeywords


def rank(
    models: Iterable[ModelSource],
    *,
    by: str | Sequence[str] = DEFAULT,
    jobs: Jobs = 1,
    isolate: bool = False,
    timeout: float = 0.0,
    memory: float = 0.0,
    **options: Unpack[ScoreKeywords],
) -> RankedSet:
    """Rank a set of models by several training-free scores together.

    Each score ranks the set, the worst with 1 and equal ones with the mean of their ranks; a model's number is the sum
    over scores of log(rank / n), and the largest comes first.

    Args:
        models: what `score` takes, at least two, of one task.
        by: names of scores, or of combinations of docs/ranking.md; one text may name several with commas between.
        jobs: worker processes, as for `score_many`; 1 scores in this process.
        isolate: whether one job scores in a worker process all the same.
        timeout: seconds that one model may take, 0 for no limit.
        memory: GB that one worker process may hold, 0 for no limit.
        **options: how each is scored: `weights`, `inputs`, `batch`, `shapes`, `outputs`, `roles`, `norm_stats`, `lump`,
            `providers`, `seed`, `dtype`, `threads`, `restore_batchnorm`, `arithmetic`, `proxy_batch` and
            `device_memory`, each the keyword argument that `score` has; `scores` is decided by `by`.

    Returns:
        A RankedSet: what has a place, what has none and why, and how far the scores agree.

    Raises:
        UsageError: an argument is wrong, a score does not exist, or there are fewer than two models.

    Source:
        The sum of logarithms of ranks: J. Lee and B. Ham, AZ-NAS, CVPR 2024.

    Examples:
        >>> models = ["models/mlp.onnx", "models/resnet50.onnx", "models/mobilenet_v2.onnx"]
        >>> for one in rank(models, by="macs", batch=16).placed:
        ...     print(one.place, one.model)
        1 models/resnet50.onnx
        2 models/mobilenet_v2.onnx
        3 models/mlp.onnx
    """
    if "scores" in options:
        raise UsageError("the scores that rank are named with by; scores is an argument of score")
    members = parse_members(by if isinstance(by, str) else ",".join(by), proxy_names())
    options["scores"] = measured(members)
    found = score_many(models, jobs=jobs, isolate=isolate, timeout=timeout, memory=memory, **options)
    return rank_records([one.to_dict() for one in found], members)
