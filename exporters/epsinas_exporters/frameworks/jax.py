"""Writes JAX functions and Flax modules as graphs without weights, by jax2onnx."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax2onnx
import numpy as np
import onnx_ir as ir

from epsinas_exporters.frameworks import ExportError, Input, Request
from epsinas_exporters.frameworks.common import call, find, first_line, note, silent, takes_arguments, without_weights

try:
    from flax import nnx
except ImportError:  # functions of plain JAX need no flax
    nnx = None

_BATCH = "batch"


def export_function(
    function: Callable[..., Any], inputs: Sequence[Any], *, name: str | None = None, dynamic_batch: bool = True
) -> ir.Model:
    """Return a function of arrays, or a `flax.nnx.Module`, as a graph without weights.

    function: called with one array for each input; what it closes over (parameters of plain JAX, `module.apply` of
    flax.linen with its variables) are its weights. A module is exported as it is in evaluation: no dropout, and
    BatchNorm stays BatchNormalization. inputs: shapes (sequences of sizes, float32) or `Input`s, batch first.
    name: of the graph, for reports. dynamic_batch: whether axis 0 of every input with two axes or more stays free;
    where the function cannot be traced so, the batch is fixed to that of `inputs`, with an ExportWarning.

    Raises ExportError, with the first line of what JAX says, where the function cannot be exported.
    """
    label = name or str(getattr(function, "__name__", type(function).__name__))
    given = [one if isinstance(one, Input) else Input(tuple(one)) for one in inputs]
    if not given:
        raise ExportError(f"{label}: give the shape of each input, batch first")
    with _evaluation(function) as traced:
        failure: Exception | None = None
        for free in (True, False) if dynamic_batch else (False,):
            try:
                with silent():
                    proto = jax2onnx.to_onnx(traced, [_described(one, free) for one in given], model_name=label)
            except Exception as error:  # JAX, flax and jax2onnx raise dozens of kinds
                failure = failure or error
                continue
            if failure is not None:
                note(f"{label}: the batch is fixed to {given[0].shape[0]}, since with a free one {first_line(failure)}")
            return without_weights(proto, label)
    assert failure is not None
    raise ExportError(f"{label} cannot be exported: {first_line(failure)}") from failure


def export_named(request: Request) -> ir.Model:
    """Export what `package.module:attribute` names: a function of arrays, an nnx.Module, or what makes one of them."""
    found = find(request.network)
    if nnx is not None and isinstance(found, type) and issubclass(found, nnx.Module):
        network = call(lambda: found(rngs=nnx.Rngs(0)) if takes_arguments(found) else found(), request.network)
    elif (nnx is not None and isinstance(found, nnx.Module)) or (callable(found) and takes_arguments(found)):
        network = found
    elif callable(found):
        network = call(found, request.network)
    else:
        network = None
    if not callable(network):
        raise ExportError(f"{request.network} is neither a function of arrays nor a module, nor does it make one")
    if not request.inputs:
        raise ExportError(request.needs_inputs)
    return export_function(network, request.inputs, name=request.network.rpartition(":")[2])


def _described(given: Input, free: bool) -> Any:
    shape: tuple[int | str, ...] = given.shape
    if free and len(shape) > 1:
        shape = (_BATCH, *shape[1:])
    return jax.ShapeDtypeStruct(shape, np.dtype(given.dtype))


@contextlib.contextmanager
def _evaluation(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield what is traced: a module's copy in evaluation mode, made inside the trace, where its state may change."""
    if nnx is None or not isinstance(function, nnx.Module):
        yield function
        return
    module = nnx.clone(function)
    module.eval()
    draw = nnx.RngStream.__call__
    # A recurrent layer draws a key for an initial state of zeros; keys are no ONNX type, and nothing random is left.
    nnx.RngStream.__call__ = lambda self: np.zeros(2, np.uint32)
    try:
        yield lambda *arrays: _first(nnx.clone(module)(*arrays))
    finally:
        nnx.RngStream.__call__ = draw


def _first(outputs: Any) -> Any:
    """Return outputs as jax2onnx takes them."""
    return list(outputs.values()) if isinstance(outputs, Mapping) else outputs
