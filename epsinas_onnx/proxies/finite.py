"""Refuses a number for networks whose output is none: signs and derivatives of what is not a number look like any."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, UndefinedError


def check_output(prepared: Prepared, fetched: Mapping[str, Array]) -> None:
    """Raise UndefinedError where the output of the network with drawn weights, which was fetched, holds a NaN."""
    if np.isnan(fetched[str(prepared.output.name)]).any():
        raise UndefinedError(
            f"{prepared.name}: with drawn weights the output is not a number, as behind the logarithm or the root of a "
            f"negative one, so that signs and derivatives say nothing"
        )
