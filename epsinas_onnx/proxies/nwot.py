"""The score of Mellor et al.: how far apart samples lie in the signs of an untrained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from epsinas_onnx.proxies.finite import check_output
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy, UndefinedError
from epsinas_onnx.proxies.signs import signs


class Nwot(Proxy):
    """log |det K|, where K_ij counts the pre-activations that have one sign in samples i and j.

    For each activation let B be `[samples, units]`, 1 where the pre-activation is positive and 0 elsewhere. It adds
    B B' + (1 - B)(1 - B)' to K, `[samples, samples]`, of which the graph computes B B' alone, since the rest follows
    from its diagonal and the number of units. A pre-activation that two nodes are applied to counts twice, as in the
    published code, which looks at modules. Up to 2**24 units an activation the counts are exact.

    What it cannot say: networks of very different size cannot be told apart by more than size, since K grows with the
    number of units; networks without ReLU or its kin have no score; two equal samples make the determinant 0.

    Source: Mellor, Turner, Storkey, Crowley: Neural Architecture Search without Training, ICML 2021, arXiv 2006.04647.
    """

    name: ClassVar[str] = "nwot"
    summary: ClassVar[str] = "log determinant of the kernel of equal activation signs"
    source: ClassVar[str] = "Mellor et al., ICML 2021, arXiv:2006.04647"

    def ask(self, prepared: Prepared) -> Sequence[str]:
        """Append B B' of every activation."""
        prepared.check_minibatch()
        emitter, names = prepared.emitter, []
        for found in signs(prepared):
            b = found.value
            if emitter.opset >= 11:
                product = emitter.op("Gemm", [b, b], transB=1)
            else:
                product = emitter.op("MatMul", [b, emitter.op("Transpose", [b], perm=[1, 0])])
            names.append(str(product.name))
        prepared.append()
        self._names = names
        return [*names, str(prepared.output.name)]

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Return the logarithm of the determinant."""
        check_output(prepared, fetched)
        kernel = np.zeros((prepared.batch, prepared.batch))
        for name, found in zip(self._names, signs(prepared), strict=True):
            both = fetched[name].astype(np.float64)
            ones = np.diag(both)
            kernel += found.units.times * (2 * both - ones[:, None] - ones[None, :] + found.units.size)
        sign, logarithm = np.linalg.slogdet(kernel)
        if sign == 0:
            raise UndefinedError(
                f"{prepared.name}: the kernel of equal signs is singular, because signs of some samples follow from "
                f"those of others; try other inputs, or fewer of them"
            )
        return float(logarithm)
