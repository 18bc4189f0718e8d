"""Finds out which files hold equal networks: the fingerprint, and what it leaves out that a score may depend on."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import onnx_ir as ir

from epsinas_onnx._util.gc import collection_paused
from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.folded_norms import find_folded
from epsinas_onnx.graph.analysis.ranks import Ranks
from epsinas_onnx.graph.analysis.roles import Role, decide_roles
from epsinas_onnx.graph.fingerprint import CanonicalGraph, canonical_graph
from epsinas_onnx.graph.load import Buildable, LoadedModel, ModelSource, load_model
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from epsinas_onnx.graph.tensor_summary import find_stored
from epsinas_onnx.graph.traversal import StaticValues, all_graphs
from epsinas_onnx.scoring.limits import Limits
from epsinas_onnx.scoring.supervisor import Failure, Workers
from epsinas_onnx.store.keys import digest
from epsinas_onnx.store.sources import built_key

_LONGEST = 2**24
"""Entries of a table that stays constant, up to which it is read."""


@dataclass(frozen=True)
class Network:
    """What is found out of a model by reading it. key: equal for equal networks. nodes: as loaded, which may differ."""

    key: str
    nodes: int


class Networks:
    """Finds out what networks files hold, in a process of its own where a file could harm this one; a context manager.

    The process starts when it is first needed.
    """

    def __init__(self, *, isolated: bool, limits: Limits) -> None:
        self._isolated, self._limits = isolated, limits
        self._workers: Workers | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._workers is not None:
            self._workers.close()

    def of(self, model: ModelSource) -> Network | None:
        """Return what network a model is; None where it cannot be read, or may have a score of its own."""
        if not self._isolated:
            return network_of(model)
        self._workers = self._workers or Workers(1, self._limits)
        found = self._workers.run(network_of, (model,))
        return None if isinstance(found, Failure) else found

    def built(self, model: Buildable) -> str | None:
        """Return the key of a network that only building it tells; None where it cannot be built."""
        with contextlib.suppress(Exception):  # is said where it is scored
            return built_key(model.build())
        return None


def network_of(model: ModelSource) -> Network | None:
    """Return what network a model is, None where that cannot be told."""
    quiet_libraries()
    try:
        with collection_paused():
            loaded = load_model(model)
            key = _key(loaded)
    except (ModelError, MemoryError):
        return None
    except Exception:  # whatever a foreign file provokes is said where it is scored
        return None
    return None if key is None else Network(key, loaded.nodes)


def _key(loaded: LoadedModel) -> str | None:
    """Return the fingerprint with what it leaves out; None for tables that are drawn in the order of the nodes.

    That are float tables that are not learned, the operator set, names of inputs and outputs (results call them), which
    tensors are one, and what evidence there is, in names too, that BatchNormalization was folded.
    """
    canonical = canonical_graph(loaded, last=True)
    uses = [operand for line in canonical.lines for operand in line.operands]
    if sum(operand.role == Role.EMBEDDING for operand in uses) > 1:
        return None
    constants = _constants(loaded.model, canonical)
    if constants is None:
        return None
    model = loaded.model
    static = StaticValues.of(model)
    ranks = Ranks(lambda: infer_shapes(model))  # from here on nobody needs the shapes that the file declares
    folded = sorted(f"{one.kind} {one.epsilon}" for one in find_folded(model, static, ranks))
    named = [str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)]
    opsets = sorted(f"{domain} {version}" for domain, version in model.opset_imports.items())
    parameters = decide_roles(model, loaded.name, None, static).parameters()
    return digest(
        canonical.fingerprint, constants, *(f"opset {one}" for one in opsets), *(f"name {one}" for one in named),
        *(f"folded {one}" for one in folded), f"parameters {parameters}",
    )  # fmt: skip


def _constants(model: ir.Model, canonical: CanonicalGraph) -> bytes | None:
    """Return the digest of the float tables that keep their values, in the order of the fingerprint's lines."""
    nodes = {node.name: node for graph in all_graphs(model.graph) for node in graph}
    hashed = hashlib.sha256()
    for number, line in enumerate(canonical.lines):
        for slot, operand in enumerate(line.operands):
            value = nodes[line.node].inputs[slot]
            stored = None if operand.role or value is None else find_stored(value, ())
            if stored is None or stored.counts_by_value or stored.data is None:
                continue
            if stored.data.size > _LONGEST:
                return None
            hashed.update(f"{number} {slot} {stored.text(False)}".encode())
            hashed.update(np.ascontiguousarray(stored.data.numpy()).tobytes())
    return hashed.digest()
