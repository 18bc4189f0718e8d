"""What is scored before a search, and kept in its study: the sample that ranks are taken among, and the warm-up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from epsinas_onnx.errors import UsageError
from epsinas_onnx.evaluation.families import records_of
from epsinas_onnx.ranking.members import EPSINAS, found
from epsinas_onnx.search.evolution import best_first
from epsinas_onnx.search.measuring import PARAMS, Meter
from epsinas_onnx.search.quantities import Objective, Quantity
from epsinas_onnx.search.reference import Reference

if TYPE_CHECKING:
    import optuna

    from epsinas_exporters.spaces import SearchSpace
    from epsinas_onnx.search.strategy import Strategy

Record = Mapping[str, Any]
Progress = Iterator[tuple[str, int, int]]
_CHUNK = 50
"""Networks of a warm-up that are kept at once, and lost when the search is killed at them."""


def scored(
    archs: Sequence[str], members: Sequence[str], space: SearchSpace, meter: Meter, known: MutableMapping[str, Record]
) -> Iterator[None]:
    """Add to `known` the record of each architecture that it lacks one of, with all members; yield with each."""
    missing = [arch for arch in dict.fromkeys(archs) if lacks(known.get(arch), members)]
    networks = [space.network(arch) for arch in missing]
    by_name = {network.name: arch for network, arch in zip(networks, missing, strict=True)}
    options = {**meter.options, "scores": tuple(name for name in members if name not in (EPSINAS, PARAMS))}
    for record in records_of(networks, (), {network.name: network for network in networks}, options):
        known[by_name[record["model"]]] = record
        yield


def lacks(record: Record | None, members: Sequence[str]) -> bool:
    """Whether a record is missing, or was written without one of the scores; parameters every record has."""
    return record is None or any(found(record, name).status == "missing" for name in members if name != PARAMS)


class References:
    """Gives the meter the sample that each rank is taken among: drawn with the seed, and scored once a study."""

    def __init__(
        self,
        space: SearchSpace,
        strategy: Strategy,
        meter: Meter,
        known: MutableMapping[str, Record],
        study: optuna.Study,
    ) -> None:
        self._space, self._strategy, self._meter, self._known, self._study = space, strategy, meter, known, study

    def make(self, quantity: Quantity) -> Progress:
        """Score the sample of a rank, unless the study has it; yield how far that is."""
        if quantity.name in self._meter.references:
            return
        key = f"reference:{quantity.name}"
        kept = self._study.user_attrs.get(key)
        if kept is not None:
            self._meter.references[quantity.name] = Reference(quantity.members, kept)
            return
        archs = drawn(self._space, self._strategy.reference, self._strategy.seed)
        for done, _ in enumerate(scored(archs, quantity.members, self._space, self._meter, self._known), start=1):
            yield f"the sample for {quantity.name}", done, len(archs)
        records = [self._meter.seen(self._known[arch]) for arch in archs]
        reference = Reference.of_records(quantity.members, records)
        self._meter.references[quantity.name] = reference
        self._study.set_user_attr(key, reference.to_dict())


class Warmup:
    """Draws architectures before a search and orders them by a training-free score, the guide; None makes nothing."""

    def __init__(
        self, space: SearchSpace, strategy: Strategy, meter: Meter, known: MutableMapping[str, Record],
        study: optuna.Study, guide: Objective | None,
    ) -> None:  # fmt: skip
        self._space, self._strategy, self._meter, self._known = space, strategy, meter, known
        self._study, self._guide = study, guide
        self._found: dict[str, float | None] = {}

    def make(self) -> Progress:
        """Score the warm-up, but for what the study has; yield how far that is."""
        if not self._strategy.warmup or self._guide is None:
            return
        archs = drawn(self._space, self._strategy.warmup, self._strategy.seed + 1)
        for start in range(0, len(archs), _CHUNK):
            chunk, key = archs[start : start + _CHUNK], f"warmup:{start}"
            kept = self._study.user_attrs.get(key)
            if kept is None:
                members = self._guide.quantity.members
                for done, _ in enumerate(scored(chunk, members, self._space, self._meter, self._known), start=1):
                    yield "the warm-up", start + done, len(archs)
                kept = [self._of_record(arch) for arch in chunk]
                self._study.set_user_attr(key, kept)
            self._found.update(zip(chunk, kept, strict=True))
        if all(value is None for value in self._found.values()):
            raise UsageError(
                f"none of the {len(archs)} networks of the warm-up has a number of {self._guide.quantity.name}; take "
                "another --guide, or --arithmetic auto"
            )

    def best(self) -> list[str]:
        """Return the architectures of the warm-up that have a score, the best first."""
        known = [arch for arch, value in self._found.items() if value is not None]
        return best_first(known, lambda archs: [self._found[arch] for arch in archs])

    def scores(self, archs: Sequence[str]) -> list[float | None]:
        """Return the guide of architectures, larger for the better; None where there is none."""
        assert self._guide is not None
        missing = [arch for arch in archs if arch not in self._found]
        for _ in scored(missing, self._guide.quantity.members, self._space, self._meter, self._known):
            pass
        self._found.update((arch, self._of_record(arch)) for arch in missing)
        return [self._found[arch] for arch in archs]

    def _of_record(self, arch: str) -> float | None:
        assert self._guide is not None
        value = self._meter.value(self._guide.quantity, self._known[arch]).value
        return None if value is None else self._guide.worth(value)


def drawn(space: SearchSpace, count: int, seed: int) -> list[str]:
    """Return so many architectures of a space, all where it holds no more; raises UsageError where it gives fewer."""
    try:
        return space.sample(count if space.size is None else min(count, space.size), seed)
    except ValueError as error:
        raise UsageError(str(error)) from None
