"""Training-free scores of a table's architectures, as a guide of searches for its accuracies."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from epsinas_onnx.search.measuring import Meter
from epsinas_onnx.search.quantities import Kind, parse_guide
from epsinas_onnx.search.reference import Reference
from epsinas_onnx.search.samples import lacks, scored

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.search.strategy import Strategy

Record = Mapping[str, Any]


def score_table(
    space: SearchSpace, archs: Sequence[str], guides: Sequence[str], options: Mapping[str, Any], arithmetic: str,
    records: MutableMapping[str, Record],
) -> Iterator[int]:  # fmt: skip
    """Score all architectures for the guides into `records`; yield how many are done."""
    quantities = [parse_guide(name).quantity for name in guides]
    meter = Meter(quantities, arithmetic=arithmetic, **options)
    for done, _ in enumerate(scored(archs, meter.members, space, meter, records), start=1):
        yield done


def guide_scores(
    name: str,
    space: SearchSpace,
    archs: Sequence[str],
    records: Mapping[str, Record],
    arithmetic: str,
    strategy: Strategy,
) -> dict[str, float | None]:
    """Return the score of each architecture that has a result with it, larger for the better, None for no number.

    A combination ranks among a sample of those, as large as the warm-up, or as `reference` where that is larger. Raises
    UsageError for what is no training-free score.
    """
    guide = parse_guide(name)
    members = guide.quantity.members
    meter = Meter([guide.quantity], arithmetic=arithmetic)
    known = [arch for arch in archs if not lacks(records.get(arch), members)]
    if guide.quantity.kind is Kind.RANK and known:
        count = min(len(known), max(strategy.reference, strategy.warmup))
        chosen = random.Random(f"{strategy.seed}:reference").sample(known, count)
        reference = Reference.of_records(members, [meter.seen(records[arch]) for arch in chosen])
        meter.references[guide.quantity.name] = reference
    values = {arch: meter.value(guide.quantity, records[arch]).value for arch in known}
    return {arch: None if value is None else guide.worth(value) for arch, value in values.items()}
