"""Scores networks that compute the same once, and gives each of them a record of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from epsinas_onnx.graph.load import Buildable
from epsinas_onnx.scoring.result import SAME, Status, same_as


class Counts(Protocol):
    """What a network has of its own whatever it computes."""

    @property
    def parameters(self) -> int:
        """Elements of its learned tensors."""

    @property
    def nodes(self) -> int:
        """Nodes of its graph."""


@runtime_checkable
class Related(Buildable, Protocol):
    """A network that knows which others compute the same, such as an architecture of a search space."""

    @property
    def family(self) -> str:
        """Equal for networks whose outputs are equal, but for rounding, while all weights are one constant."""

    def counts(self) -> Counts | None:
        """What tells it from them, None where only building it tells."""


@runtime_checkable
class Reducible(Related, Protocol):
    """One that can be run with less."""

    def live(self) -> Buildable:
        """The same, by the same name, without what its output does not depend on, or has twice."""


def records_of(
    networks: Sequence[Buildable], known: Iterable[Mapping[str, Any]], named: Mapping[str, Buildable],
    options: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the record of each network as it comes; one network of each family is run.

    known: records that there are. named: the networks that they belong to, by name. options: keyword arguments of
    `score_many`. Only a score is shared: a reason why there is none names nodes of the network that was run, so those
    of its family are run too. Nothing is shared where other scores are asked for, which tell such networks apart.
    What a network's output does not depend on, or has twice, is left out, unless a store is to know what was run, roles
    name nodes, or float32 is asked for, in which many networks have no score.
    """
    from epsinas_onnx.scoring.api import score_as_done

    if options.get("scores"):
        yield from (score.to_dict() for _, score in score_as_done(networks, **options))
        return
    shared = {_family(named[record["model"]]): record for record in known if record["model"] in named}
    waiting: dict[Any, list[Buildable]] = {}
    for network in networks:
        family = _family(network)
        derived = _derived(network, shared.get(family))
        if derived is not None:
            yield derived
        else:
            waiting.setdefault(family, []).append(network)
    families = list(waiting.values())
    as_they_are = options.get("store") or options.get("roles") or options.get("arithmetic") == "float32"
    whole: list[Buildable] = []
    while families:
        run = [first if as_they_are else _live(first) for first, *_ in families]
        again: list[list[Buildable]] = []
        for index, score in score_as_done(run, alike=False, **options):
            first, *others = families[index]
            found = score.to_dict() if as_they_are else _own(first, score.to_dict())
            if found is None:
                whole.append(first)
            else:
                yield found
            for network in others:
                derived = _derived(network, found)
                if derived is None:
                    again.append([network])
                else:
                    yield derived
        families = again
    yield from (score.to_dict() for _, score in score_as_done(whole, alike=False, **options))


def _family(network: Buildable) -> Any:
    """Return what networks of one family have in common; a network without one, or a bad one, is a family alone."""
    try:
        return ("family", network.family) if isinstance(network, Related) else network.name
    except ValueError:
        return network.name


def _live(network: Buildable) -> Buildable:
    """Return what is run for a family; a network of which nobody knows the size is run as it is."""
    return network.live() if isinstance(network, Reducible) and _counts(network) is not None else network


def _own(network: Buildable, record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of the network for which a live one was run, None where it must be run itself."""
    counts = _counts(network)
    if counts is None:
        return record
    if record.get("status") not in (Status.OK, Status.CONSTANT):  # another reason may name a node that is left out
        return None
    return {**record, "parameters": counts.parameters, "nodes": counts.nodes}


def _counts(network: Buildable) -> Counts | None:
    try:
        return network.counts() if isinstance(network, Related) else None
    except ValueError:  # a bad network, which is run for the sentence that says so
        return None


def _derived(network: Buildable, record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the record of a network of the same family as that of `record`, None where it must be run itself."""
    if record is None or record.get("status") != Status.OK or not isinstance(network, Related):
        return None
    counts = network.counts()
    if counts is None:
        return None
    others = [warning for warning in record.get("warnings") or [] if not warning.startswith(SAME)]
    return {
        **record, "model": network.name, "parameters": counts.parameters, "nodes": counts.nodes,
        "seconds": {"total": 0.0}, "warnings": [*others, same_as(record["model"])], "proxies": {}, "proxy_batch": None,
    }  # fmt: skip
