"""What inference finds, where ONNX's own is mistaken."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from tests.builders import build


@pytest.mark.parametrize(("attribute", "bins"), [("", 9), ("<onesided = 1>", 9), ("<onesided = 0>", 16)])
def test_a_transform_is_onesided_unless_it_says_otherwise(attribute: str, bins: int) -> None:
    text = f"(float[2,40,1] x) => (float[N,F,B,C] y) {{ y = STFT{attribute}(x, step, w) }}"
    model = ir.from_proto(build(text, 17, step=np.asarray(4), w=np.ones(16, np.float32)))
    infer_shapes(model)
    assert model.graph.outputs[0].shape == ir.Shape((2, 7, bins, 2))
