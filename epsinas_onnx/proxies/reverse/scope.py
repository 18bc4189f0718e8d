"""What the rules of one graph or body share: where nodes go, what is known ahead, and whose model it is."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.proxies.reverse.constants import Constants
from epsinas_onnx.proxies.reverse.writer import Writer


@dataclass(frozen=True)
class Scope:
    """One graph or body that is differentiated.

    write: where its nodes go. constants: what values hold that are known before a run. name: of the model, for errors.
    """

    write: Writer
    constants: Constants
    name: str

    def refuse(self, node: ir.Node, why: str) -> UnsupportedError:
        """Return the error that says why a node has no derivative here."""
        where = f"{self.name}: " if self.name else ""
        return UnsupportedError(f"{where}node {node.name!r} ({node.op_type}): {why}")
