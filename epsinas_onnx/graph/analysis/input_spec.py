"""What is known of one input: what the file declares, and what will be fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

IMAGE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class InputSpec:
    """One input of the graph: what the file declares, and what will be fed.

    declared: a size, a free dimension's name, or None, per axis. shape: the concrete sizes.
    batch_axis: the axis along which samples lie; None when all samples share this input. cache: whether it holds what
    a decoder computed from earlier tokens, as many as there happen to be.
    """

    name: str
    dtype: ir.DataType
    declared: tuple[int | str | None, ...]
    shape: tuple[int, ...]
    batch_axis: int | None
    cache: bool = False

    @property
    def layout(self) -> str | None:
        """`NCHW` or `NHWC` where the input looks like images, else None (the batch axis must come first)."""
        if self.cache or self.batch_axis not in (0, None):
            return None
        return image_layout(self.declared, self.dtype)

    def with_batch(self, batch: int) -> InputSpec:
        """Return the same input for `batch` samples; a file that fixes more than one has that many."""
        if self.batch_axis is None or _fixes_several(self.declared[self.batch_axis]):
            return self
        shape = list(self.shape)
        shape[self.batch_axis] = batch
        return replace(self, shape=tuple(shape))


def image_layout(declared: Sequence[int | str | None], dtype: ir.DataType) -> str | None:
    """Return `NCHW` or `NHWC` for a rank-4 input of 1, 3 or 4 channels, else None.

    Where every axis behind the batch is free, NCHW is assumed: it is what most exporters write.
    """
    if len(declared) != 4 or not (dtype.is_floating_point() or dtype == ir.DataType.UINT8):
        return None
    for channels in ((3,), IMAGE_CHANNELS):  # colour first: a height or width of 1 or 4 is no channel axis beside it
        if declared[1] in channels:
            return "NCHW"
        if declared[3] in channels:
            return "NHWC"
    return "NCHW" if not any(isinstance(dim, int) for dim in declared[1:]) else None


def _fixes_several(dim: int | str | None) -> bool:
    """Whether a file fixes the size of its batch axis to more than one sample."""
    return isinstance(dim, int) and dim > 1
