"""Writes Keras models as graphs without weights, on Keras' PyTorch or TensorFlow backend."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from epsinas_exporters.frameworks import ExportError, Input, Request
from epsinas_exporters.frameworks.common import call, find, first_line, silent, without_weights

_BACKENDS = ("tensorflow", "torch")


def _import_keras() -> Any:
    """Import Keras on the backend that is set, or, where that is not installed, on one that is."""
    config = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"), "keras.json")
    if "KERAS_BACKEND" not in os.environ and "keras" not in sys.modules:
        chosen = "tensorflow"
        with contextlib.suppress(OSError, ValueError, AttributeError):
            chosen = json.loads(config.read_text(encoding="utf-8")).get("backend", chosen)
        installed = [one for one in _BACKENDS if importlib.util.find_spec(one)]
        if chosen not in installed and installed:
            os.environ["KERAS_BACKEND"] = installed[0]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return importlib.import_module("keras")


keras = _import_keras()

_FILES = (".keras", ".h5", ".hdf5")


def export_model(
    model: Any, inputs: Sequence[Any] | None = None, *, name: str | None = None, dynamic_batch: bool = True
) -> ir.Model:
    """Return a `keras.Model` as a graph without weights, by the exporter of the backend that Keras runs on.

    inputs: shapes (sequences of sizes, batch first) or `Input`s; needed only where the model does not know them
    (a subclassed model that was not built). A size that the model leaves free, other than the batch, must be given.
    name: of the graph, for reports. dynamic_batch: whether the batch stays free.

    Dropout is off, and BatchNormalization stays BatchNormalization, epsilon included.

    Raises ExportError where the shapes are not known, the backend cannot export the model, or it is another one.
    """
    label = name or model.name
    given = _inputs(model, label) if inputs is None else [_input(one) for one in inputs]
    backend = keras.backend.backend()
    if not model.built:
        call(lambda: model(*[keras.ops.zeros(one.shape, one.dtype) for one in given]), label)
    flat = _Flat(model)
    if backend == "torch":
        from epsinas_exporters.frameworks import pytorch

        # Keras takes a tensor of the meta device for one that it must make itself
        with _batch_norms_of_torch():
            traced = pytorch.trace_module(
                _as_torch(flat), given, name=label, dynamic_batch=dynamic_batch, devices=["cpu"]
            )
        for value, one in zip(traced.graph.inputs, given, strict=True):
            value.name = one.name or value.name
        _name_variables(traced, model)
        return without_weights(ir.to_proto(traced), label)  # Keras' variables are no parameters to torch
    if backend == "tensorflow":
        from epsinas_exporters.frameworks import tensorflow

        return tensorflow.export_function(flat, given, name=label, dynamic_batch=dynamic_batch)
    raise ExportError(
        f"{label}: Keras runs on {backend}, where it writes normalisations and gates as arithmetic; set KERAS_BACKEND "
        "to torch or tensorflow, since a .keras file loads on any of them"
    )


def export_named(request: Request) -> ir.Model:
    """Export a `.keras` or `.h5` file, or what `package.module:attribute` names or makes."""
    path = Path(request.network)
    if path.suffix in _FILES:
        model, name = _loaded(path), path.stem
    else:
        found = find(request.network)
        model = found if isinstance(found, keras.Model) or not callable(found) else call(found, request.network)
        name = request.network.rpartition(":")[2]
    if not isinstance(model, keras.Model):
        raise ExportError(f"{request.network} is no Keras model, but a {type(model).__name__}")
    return export_model(model, request.inputs or None, name=name)


class _Flat:
    """A model as a function of tensors, one for each input, in evaluation."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.__name__ = model.name

    def __call__(self, *tensors: Any) -> Any:
        structure = getattr(self.model, "_inputs_struct", None)
        if structure is not None:
            packed = keras.tree.pack_sequence_as(structure, tensors)
        else:
            packed = tensors[0] if len(tensors) == 1 else list(tensors)
        outputs = keras.tree.flatten(self.model(packed, training=False))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _as_torch(flat: _Flat) -> Any:
    """Return a module of PyTorch that calls a model, which is a module itself on that backend."""
    import torch

    class Called(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = flat.model

        def forward(self, *tensors: Any) -> Any:
            return flat(*tensors)

    return Called()


def _name_variables(traced: ir.Model, model: Any) -> None:
    """Give the weights that torch found in a trace the names that Keras has for them."""
    import torch

    paths = {variable.value.data_ptr(): variable.path for variable in model.variables}
    for value in list(traced.graph.initializers.values()):
        raw: Any = getattr(value.const_value, "raw", None)
        if isinstance(raw, torch.Tensor) and raw.data_ptr() in paths:
            value.name = paths.pop(raw.data_ptr())


@contextlib.contextmanager
def _batch_norms_of_torch() -> Iterator[None]:
    """Let BatchNormalization call torch's own operation while this lasts; Keras would write it as arithmetic."""
    import torch

    def call_torch(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        learned = [None if one is None else one.value for one in (self.gamma, self.beta)]
        statistics = (self.moving_mean.value, self.moving_variance.value)
        moved = inputs.movedim(self.axis, 1)
        normalised = torch.nn.functional.batch_norm(moved, *statistics, *learned, False, 0.0, self.epsilon)
        return normalised.movedim(1, self.axis)

    layer = keras.layers.BatchNormalization
    before, layer.call = layer.call, call_torch
    try:
        yield
    finally:
        layer.call = before


def _inputs(model: Any, label: str) -> list[Input]:
    try:
        known = keras.tree.flatten(model.inputs)
    except (AttributeError, ValueError, TypeError):
        known = []
    if not known:
        raise ExportError(
            f"{label} does not know its inputs; give their shapes, batch first, such as --input 1,32,32,3"
        )
    for one in known:
        if None in one.shape[1:]:
            shape = ",".join("?" if size is None else str(size) for size in (1, *one.shape[1:]))
            raise ExportError(f"{label}: the input {one.name!r} has free sizes, {shape}; give them by --input")
    return [Input((1, *one.shape[1:]), str(one.dtype), one.name) for one in known]


def _input(given: Any) -> Input:
    return given if isinstance(given, Input) else Input(tuple(given))


def _loaded(path: Path) -> Any:
    if not path.is_file():
        raise ExportError(f"{path} does not exist")
    try:
        with silent():
            return keras.saving.load_model(path, compile=False)
    except Exception as error:  # layers of the user's own, other versions, broken files
        raise ExportError(f"{path} cannot be loaded: {first_line(error)}") from error
