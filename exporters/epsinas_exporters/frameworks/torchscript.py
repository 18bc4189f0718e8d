"""Writes TorchScript files as graphs without weights, by torch's older exporter, the one that reads TorchScript."""

from __future__ import annotations

import contextlib
import copy
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from epsinas_exporters.frameworks import ExportError, Input, Request
from epsinas_exporters.frameworks.common import first_line, note, silent, without_weights

_OPSET = 18
_NORMALISE = "aten::batch_norm"


def export_script(
    script: torch.jit.ScriptModule | str | os.PathLike[str],
    inputs: Sequence[Any],
    *,
    name: str | None = None,
    dynamic_batch: bool = True,
) -> ir.Model:
    """Return a TorchScript module as a graph without weights.

    script: a module that `torch.jit.script` or `torch.jit.trace` made, or a file that `torch.jit.save` wrote. inputs:
    shapes (sequences of sizes, float32) or `Input`s, batch first, in the order of `forward`; TorchScript does not
    know them. name: of the graph, for reports. dynamic_batch: whether axis 0 of every input with two axes or more
    stays free.

    Dropout is off where the module can be put into evaluation mode; BatchNorm stays BatchNormalization, with
    `training_mode` 1 where it has no running statistics (ONNX BatchNormalization-15: the minibatch's own are used).

    What torch.jit.freeze folded is not put back: an ExportWarning says that the module was frozen.

    Raises ExportError where the file is no TorchScript, or torch cannot export the module.
    """
    if isinstance(script, torch.jit.ScriptModule):
        script = copy.deepcopy(script)
    else:
        script, name = _loaded(Path(script)), name or Path(script).stem
    label = name or script.original_name
    given = [one if isinstance(one, Input) else Input(tuple(one)) for one in inputs]
    with contextlib.suppress(RuntimeError, AttributeError):  # a frozen module has no mode left
        script.eval()
    _fill(script)
    try:
        proto = convert(script, given, dynamic_batch)
    except Exception as error:  # torch raises dozens of kinds
        raise ExportError(f"{label} cannot be exported: {first_line(error)}") from error
    if not any(True for _ in script.parameters()):
        note(
            f"{label}: no parameters, as torch.jit.freeze leaves it, which folds BatchNorm into convolutions without a "
            "trace; export the module as it was before, or name what was folded: score --restore-batchnorm PATTERN"
        )
    return without_weights(proto, label)


def export_named(request: Request) -> ir.Model:
    """Export a file that torch.jit.save wrote."""
    if not request.inputs:
        raise ExportError(request.needs_inputs)
    return export_script(request.network, request.inputs)


def _loaded(path: Path) -> torch.jit.ScriptModule:
    if not path.is_file():
        raise ExportError(f"{path} does not exist")
    try:
        with silent():
            return torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError, EOFError) as error:
        raise ExportError(
            f"{path} is no TorchScript, which torch.jit.save writes ({first_line(error)}); a file of torch.save holds "
            "weights without a graph: use export torch with the module's factory"
        ) from error


def _fill(script: torch.jit.ScriptModule) -> None:
    """Give parameters different values: the exporter stores equal ones once, and layers would share them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in script.parameters():
            if parameter.is_floating_point():
                parameter.uniform_(0.5, 1.5, generator=generator)


def convert(script: torch.jit.ScriptModule, given: Sequence[Input], dynamic_batch: bool = True) -> onnx.ModelProto:
    """Return a TorchScript module as ONNX with its weights; torch raises dozens of kinds where it cannot."""
    arrays = tuple(_example(one) for one in given)
    names = [one.name or f"input_{index}" for index, one in enumerate(given)]
    free = {name: {0: "batch"} for name, one in zip(names, given, strict=True) if len(one.shape) > 1}
    written = io.BytesIO()
    with _batch_norm_symbolic(), silent():
        torch.onnx.export(
            script, arrays, written, dynamo=False, opset_version=_OPSET, input_names=names,
            dynamic_axes=free if dynamic_batch else None, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # in EVAL mode normalisations are folded into convolutions
        )  # fmt: skip
    return onnx.load_from_string(written.getvalue())


def _example(given: Input) -> torch.Tensor:
    dtype = getattr(torch, given.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ExportError(f"torch has no element type {given.dtype!r}; use float32, int64 or another of its own")
    return torch.zeros(given.shape, dtype=dtype)


@contextlib.contextmanager
def _batch_norm_symbolic() -> Iterator[None]:
    """Export batch normalisation by our own rule while this lasts: the exporter's refuses it without statistics."""
    torch.onnx.register_custom_op_symbolic(_NORMALISE, _batch_norm, _OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(_NORMALISE, _OPSET)


def _batch_norm(
    g: Any, x: Any, scale: Any, offset: Any, mean: Any, variance: Any, training: Any, momentum: Any, epsilon: Any,
    cudnn: Any,
) -> Any:  # fmt: skip
    """Write `aten::batch_norm` as BatchNormalization; what is missing of its vectors is made as long as x has channels.

    Without running statistics it is always the minibatch's own that are used, which `training_mode` 1 says.
    """
    own = _is_none(mean) or _is_none(variance)
    # Unused statistics differ from scale and offset: ONNX Runtime keeps equal constants once, and overwrites these.
    vectors = ((scale, 1.0), (offset, 0.0), (mean, 0.5), (variance, 2.0))
    made = [_filled(g, x, value) if _is_none(vector) else vector for vector, value in vectors]
    eps = torch.onnx.symbolic_helper._maybe_get_const(epsilon, "f")
    if not own:
        normalised = g.op("BatchNormalization", x, *made, epsilon_f=eps)
        normalised.setType(x.type())
        return normalised
    normalised, *statistics = g.op("BatchNormalization", x, *made, epsilon_f=eps, training_mode_i=1, outputs=3)
    normalised.setType(x.type())
    for unused, vector in zip(statistics, made[2:], strict=True):
        unused.setType(vector.type())
    return normalised


def _is_none(value: Any) -> bool:
    return value is None or bool(value.node().mustBeNone())


def _filled(g: Any, x: Any, value: float) -> Any:
    """Return a vector of one constant, as long as x has channels."""
    channels = g.op("Shape", x, start_i=1, end_i=2)
    return g.op("ConstantOfShape", channels, value_t=torch.tensor([value]))
