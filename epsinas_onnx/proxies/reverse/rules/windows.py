"""Where the windows of a convolution or a pooling lie: sizes, strides and what is padded, however it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epsinas_onnx.proxies.reverse.call import Call


@dataclass(frozen=True)
class Windows:
    """The windows of `size` entries each along every axis of space.

    before, after: places in front of the first entry, and behind the last, that windows reach; `after` is negative
    where the last entries are in no window. declared: what the node says is padded behind.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    declared: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Return how many places a window spans."""
        return tuple((size - 1) * apart + 1 for size, apart in zip(self.size, self.dilations, strict=True))

    @property
    def spread(self) -> bool:
        """Whether windows start further apart than 1."""
        return any(stride > 1 for stride in self.strides)


def windows(call: Call, size: Sequence[int], inside: Sequence[int], outside: Sequence[int]) -> Windows:
    """Return the windows of a node; inside: the sizes that windows move over; outside: how many windows there are."""
    rank = len(size)
    strides = call.integers("strides") or [1] * rank
    dilations = call.integers("dilations") or [1] * rank
    pads = call.integers("pads") or [0] * (2 * rank)
    extent = [(one - 1) * apart + 1 for one, apart in zip(size, dilations, strict=True)]
    needed = [(outside[i] - 1) * strides[i] + extent[i] - inside[i] for i in range(rank)]
    match call.text("auto_pad", "NOTSET"):
        case "SAME_UPPER":
            before = [max(total, 0) // 2 for total in needed]
        case "SAME_LOWER":
            before = [(max(total, 0) + 1) // 2 for total in needed]
        case "VALID":
            before = [0] * rank
        case _:
            before = pads[:rank]
    after = [needed[i] - before[i] for i in range(rank)]
    declared = pads[rank:] if call.text("auto_pad", "NOTSET") == "NOTSET" else [max(size, 0) for size in after]
    return Windows(*(tuple(list_) for list_ in (size, strides, dilations, before, after, declared)))
