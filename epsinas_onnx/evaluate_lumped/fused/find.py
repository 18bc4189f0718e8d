"""Finds chains among the nodes of a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from epsinas_onnx.evaluate_lumped.call import Call, Unsupported
from epsinas_onnx.evaluate_lumped.fused.chain import Chain
from epsinas_onnx.evaluate_lumped.fused.compiled import machine
from epsinas_onnx.evaluate_lumped.fused.installed import is_installed
from epsinas_onnx.evaluate_lumped.fused.layout import Link
from epsinas_onnx.evaluate_lumped.fused.recognise import Code, Operation, reading_through, recognise
from epsinas_onnx.lump.graph import Node, reads
from epsinas_onnx.lump.value import Tensor

_FEWEST = 12
"""A chain of fewer nodes takes no longer in NumPy than it takes to lay its values out."""
_MOST = 2**23
"""Entries of the values that a chain holds at once, each in as much memory as the largest takes."""


class Found(NamedTuple):
    """A chain, and which nodes of the program it has."""

    chain: Chain
    first: int
    last: int


def find_chains(
    nodes: Sequence[Node], outputs: Collection[Tensor], zeros: Collection[Node], call_of: Callable[[Node], Call],
    first: int = 0,
) -> list[Found]:  # fmt: skip
    """Return the chains that are long enough, in order.

    outputs: what is read behind all nodes. zeros: nodes that give 0. call_of: what a rule is given for a node.
    first: the node with which a chain may begin; those in front of it run once for all constants.
    """
    if len(nodes) < _FEWEST or not is_installed():
        return []
    operations = [
        None if index < first or node in zeros else _operation(node, call_of) for index, node in enumerate(nodes)
    ]
    read = set(outputs)
    found: list[Found] = []
    links: list[Link] = []
    behind: frozenset[Tensor] = frozenset()
    for index in range(len(nodes) - 1, -1, -1):
        node, operation = nodes[index], operations[index]
        if operation is None:
            _close(found, links, index + 1, behind)
            links = []
            read.update(reads(node))
            continue
        if not links:
            behind = frozenset(read)
        link = Link.of(node, operation, read)
        links.append(link)
        read.update(link.values)
    _close(found, links, 0, behind)
    return found[::-1]


def _close(found: list[Found], links: Sequence[Link], first: int, behind: Collection[Tensor]) -> None:
    """Append the chain of links, the last of them first, if it is one. behind: what is read behind it."""
    if len(links) < _FEWEST:
        return
    links = _copying_less(links[::-1], behind)
    made = {link.output for link in links}
    read = dict.fromkeys(value for link in links for value in link.values)
    operands = [tensor for tensor in read if tensor not in made]
    if len({tensor.dims[0] for tensor in (*operands, *made)}) > 1 or machine() is None:
        return
    chain = Chain(links, operands, [tensor for tensor in made if tensor in behind])
    if chain.rows * links[0].output.dims[0] <= _MOST:
        found.append(Found(chain, first, first + len(links)))


def _copying_less(links: Sequence[Link], behind: Collection[Tensor]) -> list[Link]:
    """Return links of which those that read a copy of rows alone read what was copied; the copy is not made then."""
    readers = Counter(value for link in links for value in link.values)
    made = list(links)
    copies: dict[Tensor, int] = {}
    fewer = False
    for index, link in enumerate(links):
        if link.operation.code not in (Code.LINEAR, Code.LARGEST):
            continue
        place = copies.get(link.values[0])
        if place is not None:
            copy = made[place]
            rows = copy.operation.parts[0]
            assert rows is not None
            link = link._replace(operation=reading_through(link.operation, rows), values=copy.values)
            made[index], made[place], fewer = link, copy._replace(values=()), True
        alone = readers[link.output] == 1 and link.output not in behind
        if alone and link.operation.code is Code.LINEAR and link.operation.flag:
            copies[link.output] = index
    return _released(made, behind) if fewer else made


def _released(links: list[Link], behind: Collection[Tensor]) -> list[Link]:
    """Return links that say anew which values nobody reads afterwards."""
    needed = set(behind)
    for index in range(len(links) - 1, -1, -1):
        link = links[index]
        done = [tensor for tensor in dict.fromkeys(link.values) if tensor not in needed]
        if done != link.done:
            links[index] = link._replace(done=done)
        needed.update(link.values)
    return links


def _operation(node: Node, call_of: Callable[[Node], Call]) -> Operation | None:
    """Return what a node is to a chain, None where it is no part of one."""
    kind = node.kind
    if kind is not None and "fused" in kind.made:
        known: Operation | None = kind.made["fused"]
        return known
    try:
        operation = recognise(call_of(node))
    except (Unsupported, ValueError, TypeError, LookupError):
        operation = None  # its rule says what is wrong with it
    if kind is not None:
        kind.made["fused"] = operation
    return operation
