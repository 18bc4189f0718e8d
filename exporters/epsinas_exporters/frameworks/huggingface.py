"""Writes Hugging Face transformers as graphs without weights, from a configuration alone: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import transformers

from epsinas_exporters.frameworks import ExportError, Input, Request
from epsinas_exporters.frameworks.common import first_line, silent
from epsinas_exporters.frameworks.pytorch import export_module

_TOKENS, _SAMPLES, _FRAMES = 64, 16_000, 3_000
_OUTPUTS = ("logits", "last_hidden_state")


def export_config(
    config: transformers.PretrainedConfig,
    *,
    auto_class: str | None = None,
    inputs: Sequence[Input] = (),
    name: str | None = None,
    dynamic_batch: bool = True,
) -> ir.Model:
    """Return the model of a configuration as a graph without weights; its output is `logits` or `last_hidden_state`.

    config: of transformers; no weights are read or drawn, so a model of billions of parameters needs no memory.
    auto_class: such as AutoModelForSequenceClassification; by default the architecture that the configuration names,
    or AutoModel. inputs: with the names of `forward`'s arguments; by default what the model's main input is
    (64 tokens, an image of the configured size, a second of sound), for the decoder too. name: of the graph.
    dynamic_batch: whether the batch stays free.

    Attention is written as matrix products, and nothing is cached.

    Raises ExportError where transformers has no such class, cannot build the model, or torch cannot export it.
    """
    label = name or config.model_type
    build = _builder(config, auto_class, label)
    try:
        with torch.device("meta"), silent():
            known = build()
    except Exception as error:  # a configuration's own checks raise anything
        raise ExportError(f"{label} cannot be built: {first_line(error)}") from error
    given = list(inputs) or _inputs(known, label)
    if not all(one.name for one in given):
        raise ExportError(f"{label}: name its inputs, such as --input {known.main_input_name}=1,64:int64")
    names = [one.name for one in given]
    model = export_module(lambda: _Plain(build(), names), given, name=label, dynamic_batch=dynamic_batch)
    for value, input_name in zip(model.graph.inputs, names, strict=True):
        value.name = input_name
    return model


def export_named(request: Request) -> ir.Model:
    """Export a model type, or a file or folder that holds a config.json, with `:CLASS` behind it where one is meant."""
    text, _, auto_class = request.network.partition(":")
    config = _config(text, request.sizes)
    label = Path(text).stem if Path(text).stem != "config" else Path(text).absolute().parent.name
    return export_config(config, auto_class=auto_class or None, inputs=request.inputs, name=label)


class _Plain(torch.nn.Module):  # type: ignore[misc]
    """A model of transformers as a function of tensors with one tensor as its result."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names
        self.options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}

    def forward(self, *tensors: Any) -> Any:
        given = dict(zip(self.names, tensors, strict=True))
        outputs = self.model(**given, **self.options, return_dict=True)
        for key in _OUTPUTS:
            if isinstance(outputs.get(key), torch.Tensor):
                return outputs[key]
        return next(value for value in outputs.values() if isinstance(value, torch.Tensor))


def _config(text: str, sizes: Mapping[str, int]) -> transformers.PretrainedConfig:
    def read(**changed: int) -> transformers.PretrainedConfig:
        if Path(text).exists():
            return transformers.AutoConfig.from_pretrained(text, local_files_only=True, **changed)
        return transformers.AutoConfig.for_model(text, **changed)

    try:
        config = read()
    except Exception as error:  # a configuration checks itself, with errors of its own
        hint = "" if Path(text).exists() else "; write a model type such as bert or llama, or the path of a config.json"
        raise ExportError(f"{text}: {first_line(error)[:200]}{hint}") from error
    for key in sizes:
        if not isinstance(getattr(config, key, None), int):
            counts = sorted(one for one, held in config.to_dict().items() if type(held) is int)
            raise ExportError(f"{config.model_type} has no size {key!r}; it has {', '.join(counts)}")
    try:
        return read(**sizes) if sizes else config
    except Exception as error:
        raise ExportError(f"{text}: {first_line(error)[:200]}") from error


def _builder(config: transformers.PretrainedConfig, auto_class: str | None, label: str) -> Any:
    if auto_class is None and config.architectures:
        found = getattr(transformers, config.architectures[0], None)
        if found is not None:
            return lambda: found._from_config(config, attn_implementation="eager")
    found = getattr(transformers, auto_class or "AutoModel", None)
    if found is None:
        raise ExportError(f"{label}: transformers has no class {auto_class!r}")
    if not hasattr(found, "from_config"):
        return lambda: found._from_config(config, attn_implementation="eager")
    return lambda: found.from_config(config, attn_implementation="eager")


def _inputs(model: Any, label: str) -> list[Input]:
    """Return what a model's main input looks like, and its decoder's where that has its own."""
    config, main = model.config, model.main_input_name
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or _TOKENS
    tokens = (1, min(_TOKENS, longest))
    match main:
        case "input_ids":
            found = [Input(tokens, "int64", main)]
        case "pixel_values":
            seen = getattr(config, "vision_config", config)
            size = getattr(seen, "image_size", None) or 224
            sides = (size, size) if isinstance(size, int) else tuple(size)
            found = [Input((1, getattr(seen, "num_channels", 3), *sides), name=main)]
        case "input_values":
            found = [Input((1, _SAMPLES), name=main)]
        case "input_features":
            found = [Input((1, getattr(config, "num_mel_bins", 80), _FRAMES), name=main)]
        case _:
            raise ExportError(f"{label}: give the shapes of its inputs, such as --input {main}=1,64:int64")
    if config.is_encoder_decoder:
        found.append(Input(tokens, "int64", "decoder_input_ids"))
    return found
