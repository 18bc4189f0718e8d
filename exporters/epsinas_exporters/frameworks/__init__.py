"""Writes the networks of training frameworks as graphs without weights; each module needs its framework installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class ExportError(ValueError):
    """A network that its framework's exporter does not take; the message is a sentence for a person."""


class ExportWarning(UserWarning):
    """Something about a finished export that its user should know, such as a batch that had to be fixed."""


@dataclass(frozen=True)
class Input:
    """An input of a network: its shape with the batch in front, its element type as NumPy names it, and its name.

    name: empty where inputs are given in order.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str = ""


@dataclass(frozen=True)
class Request:
    """What a user asks of an exporter.

    network: a file, a name, or `package.module:factory`. inputs: as far as the network does not tell them itself.
    sizes: numbers of its configuration to change. python: the interpreter that has the framework, where this one
    has not.
    """

    network: str
    inputs: Sequence[Input] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    python: str | None = None

    @property
    def needs_inputs(self) -> str:
        """Return the sentence for a request without inputs."""
        return f"{self.network}: give the shapes of its inputs, batch first, such as --input 1,3,32,32"


@dataclass(frozen=True)
class Kind:
    """A framework. module: of this package, with `export_named(Request)`; networks: what it can be asked for."""

    module: str
    networks: str
    extra: str


KINDS: Mapping[str, Kind] = {
    "torch": Kind("pytorch", "package.module:factory, timm:NAME or torchvision:NAME", "torch"),
    "torchscript": Kind("torchscript", "a file that torch.jit.save wrote", "torch"),
    "transformers": Kind("huggingface", "a model type such as bert, or a config.json", "transformers"),
    "keras": Kind("keras", "a .keras or .h5 file, or package.module:factory", "keras"),
    "tensorflow": Kind("tensorflow", "the folder of a SavedModel, or package.module:factory", "tensorflow"),
    "jax": Kind("jax", "package.module:factory", "jax"),
    "sklearn": Kind("sklearn", "a file that joblib or pickle wrote, or package.module:factory", "sklearn"),
    "paddle": Kind("paddle", "package.module:factory, or an inference model's .json or .pdmodel", "paddle"),
}
"""The frameworks that networks can be exported from, by the name that the command line knows."""
