"""Sums over windows of long axes are those of the matrix, whose memory they do without."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx.evaluate_lumped.kernels.long_windows import Row, window_sums


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 20), stride=st.integers(1, 4), dilation=st.integers(1, 3), front=st.integers(0, 5),
    behind=st.integers(0, 5), size=st.integers(5, 70), place=st.integers(0, 2),
)  # fmt: skip
def test_sums_over_windows(
    length: int, stride: int, dilation: int, front: int, behind: int, size: int, place: int
) -> None:
    count = (size + front + behind - dilation * (length - 1) - 1) // stride + 1
    if count < 1:
        return
    shape = [2, 3, 2]
    shape[place] = size
    x = np.random.default_rng(size).standard_normal(shape)
    wide = np.pad(np.moveaxis(x, place, -1), [(0, 0), (0, 0), (front, behind)])
    wanted = np.stack(
        [wide[..., i * stride : i * stride + dilation * (length - 1) + 1 : dilation].sum(-1) for i in range(count)], -1
    )
    made = window_sums(x, place, Row(length, stride, dilation, front, count))
    np.testing.assert_allclose(np.moveaxis(made, place, -1), wanted, atol=1e-12)
