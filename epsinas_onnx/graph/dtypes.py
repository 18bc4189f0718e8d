"""Which element types count as floats, and which of them are narrowed or widened to float32."""

from __future__ import annotations

import onnx_ir as ir

NARROWED = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
FLOATS = NARROWED | {ir.DataType.FLOAT}
