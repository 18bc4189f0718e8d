"""Writes PyTorch modules as graphs without weights, by torch's current exporter; normalisations stay themselves."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from epsinas_exporters.frameworks import ExportError, Input, Request
from epsinas_exporters.frameworks.common import find, first_line, note, silent, without_weights

LEARNED_FROM = 16
"""Entries from which a parameter becomes a ConstantOfShape; smaller ones are stored."""
_TRACED = 2  # samples in the example minibatch: a size of 1 would be taken for a fixed one


def export_module(
    module: torch.nn.Module | Callable[[], torch.nn.Module],
    inputs: Sequence[Any] | Mapping[str, Any],
    *,
    name: str | None = None,
    dynamic_batch: bool = True,
) -> ir.Model:
    """Return a module as a graph without weights: buffers keep their values, but for running statistics.

    module: an `nn.Module`, which is left as it was, or a function that builds one. A function is called with all
    parameters on the meta device, so that a model of any size is built without its memory. inputs: what `forward`
    takes, in order or by name: tensors, `Input`s, or shapes (a sequence of sizes, float32), batch first.
    name: of the graph, for reports. dynamic_batch: whether axis 0 of every input with two axes or more stays free.

    The module is exported in evaluation mode (no dropout), and without the optimisations that fold BatchNormalization
    into convolutions. Where it cannot be traced with a free batch, the batch is fixed to 1, which scoring re-batches,
    and an ExportWarning says why.

    Raises ExportError, with the first line of what torch says, where the module cannot be exported.
    """
    traced = trace_module(module, inputs, name=name, dynamic_batch=dynamic_batch)
    return without_weights(ir.to_proto(traced), str(traced.graph.name))


def trace_module(
    module: torch.nn.Module | Callable[[], torch.nn.Module],
    inputs: Sequence[Any] | Mapping[str, Any],
    *,
    name: str | None = None,
    dynamic_batch: bool = True,
    devices: Sequence[str] = ("meta", "cpu"),
) -> ir.Model:
    """Return a module as `export_module` does, but with every tensor that is no parameter of it.

    devices: where the module is traced, tried in order: meta needs no memory for weights, cpu suits modules that make
    tensors of their own while they run.
    """
    if not isinstance(module, torch.nn.Module):
        module = _built(module, name or "the module")
    training = {one: one.training for one in module.modules()}
    module.eval()
    try:
        return _exported(module, inputs, name or type(module).__name__, dynamic_batch, devices)
    finally:
        for one, was in training.items():
            one.training = was


def _built(factory: Callable[[], torch.nn.Module], name: str) -> torch.nn.Module:
    """Call a factory with parameters on the meta device, or plainly where that leaves a buffer without data."""
    try:
        with _parameters_on_meta():
            module = factory()
        if not any(buffer.device.type == "meta" for buffer in module.buffers()):
            return module
    except Exception:  # some modules look at the weights that they have just made
        pass
    try:
        return factory()
    except Exception as error:
        raise ExportError(f"{name} cannot be built: {first_line(error)}") from error


def _exported(
    module: torch.nn.Module, inputs: Sequence[Any] | Mapping[str, Any], name: str, dynamic_batch: bool,
    devices: Sequence[str],
) -> ir.Model:  # fmt: skip
    buffers = {key: value.detach().cpu() for key, value in module.named_buffers(remove_duplicate=False)}
    failure: Exception | None = None
    for free in (True, False) if dynamic_batch else (False,):
        for device in devices:
            try:
                with _moved(module, device):
                    program = _traced(module, _examples(inputs, _TRACED if free else 1, device), free)
            except Exception as error:  # torch raises dozens of kinds
                if device == devices[-1]:  # what it says of the meta device is of no use to a person
                    failure = failure or error
                continue
            if dynamic_batch and not free:
                assert failure is not None
                note(f"{name}: the batch is fixed to 1, since with a free one {first_line(failure)}")
            parameters = {key for key, _ in module.named_parameters(remove_duplicate=False)}
            return _weightless(program.model, parameters, buffers, name)
    assert failure is not None
    raise ExportError(f"{name} cannot be exported: {first_line(failure)}") from failure


def _traced(module: torch.nn.Module, given: Sequence[torch.Tensor] | Mapping[str, torch.Tensor], free: bool) -> Any:
    tensors = given.values() if isinstance(given, Mapping) else given
    axes: Any = None
    if free:
        batch = torch.export.Dim("batch")
        shapes = [{0: batch} if tensor.dim() > 1 else None for tensor in tensors]
        axes = dict(zip(given, shapes, strict=True)) if isinstance(given, Mapping) else tuple(shapes)
        kinds = [one.kind for one in inspect.signature(module.forward).parameters.values()]
        if not isinstance(given, Mapping) and kinds == [inspect.Parameter.VAR_POSITIONAL]:
            axes = (axes,)
    args, kwargs = ((), dict(given)) if isinstance(given, Mapping) else (tuple(given), None)
    with _quiet():
        return torch.onnx.export(
            module, args, kwargs=kwargs, dynamo=True, optimize=False, dynamic_shapes=axes, verbose=False
        )


def _examples(
    inputs: Sequence[Any] | Mapping[str, Any], batch: int, device: str
) -> Sequence[torch.Tensor] | Mapping[str, torch.Tensor]:
    def empty(given: Any) -> torch.Tensor:
        if isinstance(given, Input):
            given, dtype = given.shape, _element_type(given.dtype)
        elif isinstance(given, torch.Tensor):
            given, dtype = tuple(given.shape), given.dtype
        else:
            dtype = torch.float32
        shape = (batch, *given[1:]) if len(given) > 1 else tuple(given)
        return torch.zeros(shape, dtype=dtype, device=device)

    if isinstance(inputs, Mapping):
        return {key: empty(given) for key, given in inputs.items()}
    return [empty(given) for given in inputs]


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move each parameter to the meta device as soon as it is registered, and leave buffers where they are."""
    register = torch.nn.Module.register_parameter

    def on_meta(self: torch.nn.Module, name: str, param: torch.nn.Parameter | None) -> None:
        register(self, name, param)
        if param is not None and param.device.type != "meta":
            moved = torch.nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
            self._parameters[name] = moved

    torch.nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


@contextlib.contextmanager
def _moved(module: torch.nn.Module, device: str) -> Iterator[None]:
    """Replace the tensors of a module that are elsewhere by ones on `device`, and put them back afterwards."""
    kept: list[tuple[dict[str, Any], str, Any]] = []
    moved: dict[int, torch.Tensor] = {}
    for one in module.modules():
        for held in (one._parameters, one._buffers):
            for key, tensor in held.items():
                if tensor is None or tensor.device.type == device:
                    continue
                if id(tensor) not in moved:  # tied weights stay tied
                    is_empty = tensor.device.type == "meta"
                    empty = torch.empty_like(tensor, device=device) if is_empty else tensor.detach().to(device)
                    moved[id(tensor)] = torch.nn.Parameter(empty, False) if held is one._parameters else empty
                kept.append((held, key, tensor))
    for held, key, tensor in kept:
        held[key] = moved[id(tensor)]
    try:
        yield
    finally:
        for held, key, tensor in kept:
            held[key] = tensor


def _weightless(model: ir.Model, parameters: set[str], buffers: Mapping[str, torch.Tensor], name: str) -> ir.Model:
    graph = model.graph
    graph.name = name
    first = next(iter(graph))
    for key, value in list(graph.initializers.items()):
        if key in buffers:
            array = buffers[key].numpy() if buffers[key].dtype != torch.bfloat16 else buffers[key].float().numpy()
            value.const_value = ir.tensor(array, name=key)
        elif key in parameters:
            _fill(graph, first, value)
    for node in graph.all_nodes():
        node.metadata_props.clear()  # stack traces, by the megabyte; nothing was folded that they could tell of
    return model


def _fill(graph: ir.Graph, first: ir.Node, value: ir.Value) -> None:
    dims = [int(dim) for dim in value.shape or ()]  # type: ignore[arg-type]
    dtype = value.dtype or ir.DataType.FLOAT
    if int(np.prod(dims, dtype=np.int64)) < LEARNED_FROM:
        value.const_value = ir.tensor(np.ones(dims, dtype.numpy()), name=value.name)
        return
    shape_name = f"shape_{'x'.join(map(str, dims))}"
    if shape_name not in graph.initializers:
        sizes = ir.tensor(np.asarray(dims, np.int64), name=shape_name)
        graph.register_initializer(
            ir.Value(
                name=shape_name, shape=ir.Shape([len(dims)]), type=ir.TensorType(ir.DataType.INT64), const_value=sizes
            )
        )
    one = ir.tensor(np.ones(1, dtype.numpy()), name="value")
    node = ir.node("ConstantOfShape", [graph.initializers[shape_name]], {"value": one}, name=f"{value.name}.fill")
    made = node.outputs[0]
    key = str(value.name)
    del graph.initializers[key]
    value.replace_all_uses_with(made, replace_graph_outputs=True)
    made.name, made.type, made.shape = key, ir.TensorType(dtype), value.shape
    graph.insert_before(first, node)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with silent():
            yield
    finally:
        logger.setLevel(level)


def _element_type(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ExportError(f"torch has no element type {name!r}; use float32, int64 or another of its own")
    return found


def export_named(request: Request) -> ir.Model:
    """Export what `package.module:attribute`, `timm:NAME` or `torchvision:NAME` names."""
    factory = find_factory(request.network)
    if not request.inputs:
        raise ExportError(request.needs_inputs)
    named = {one.name: one for one in request.inputs if one.name}
    inputs = named if len(named) == len(request.inputs) else request.inputs
    return export_module(factory, inputs, name=request.network.rpartition(":")[2])


def find_factory(text: str) -> Callable[[], torch.nn.Module]:
    """Return what builds the module that `text` names: `package.module:factory`, `timm:NAME` or `torchvision:NAME`.

    Raises ExportError where there is no such thing.
    """
    source, _, name = text.partition(":")
    if source in ("timm", "torchvision") and name:
        try:
            library = importlib.import_module({"timm": "timm", "torchvision": "torchvision.models"}[source])
        except ImportError as error:
            raise ExportError(f"{text}: {error}; install it: pip install {error.name or source}") from None
        except Exception as error:  # a torchvision that was built for another torch
            raise ExportError(
                f"{text}: {source} cannot be imported: {first_line(error)}; torchvision must be of the release that "
                "belongs to the installed torch"
            ) from error
        if source == "timm":
            return lambda: library.create_model(name, pretrained=False)
        return lambda: library.get_model(name, weights=None)
    found = find(text)
    if isinstance(found, torch.nn.Module):
        return lambda: found
    if not callable(found) or (inspect.isclass(found) and not issubclass(found, torch.nn.Module)):
        raise ExportError(f"{text} is neither a module nor a function or class that makes one")
    return found  # type: ignore[no-any-return]
