"""What a score in a check is computed with, as the configuration and the baseline write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from epsinas_onnx.scoring.options import (
    DEFAULT_BATCH,
    DEFAULT_WEIGHTS,
    Arithmetic,
    ProviderName,
    ScoreKeywords,
    ScoreOptions,
    score_options,
)


def kebab(name: str) -> str:
    """Return a field's name as TOML writes it."""
    return name.replace("_", "-")


def sentence(error: ValidationError) -> str:
    """Return the first thing that is wrong with a record, with its place."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"].removesuffix(".")
    return f"{place}: {message}{more}" if place else f"{message}{more}"


STRICT = ConfigDict(extra="forbid", frozen=True, alias_generator=kebab, populate_by_name=True)
"""How records are read: what is not known is an error."""


class ScoreSettings(BaseModel):
    """The options of `score` that change the number; see there."""

    model_config = STRICT

    weights: tuple[float, float] = DEFAULT_WEIGHTS
    batch: Annotated[int, Field(ge=2)] = DEFAULT_BATCH
    input: str = "auto"
    shapes: Mapping[str, int | tuple[int, ...]] = {}
    outputs: tuple[str, ...] = ()
    roles: Mapping[str, str] = {}
    restore_batchnorm: str = "auto"
    seed: int = 0
    arithmetic: Arithmetic = "auto"

    def keywords(self) -> ScoreKeywords:
        """Return them as the keyword arguments of `score`."""
        return {
            "weights": self.weights, "batch": self.batch, "inputs": self.input, "shapes": dict(self.shapes),
            "outputs": self.outputs, "roles": dict(self.roles), "restore_batchnorm": self.restore_batchnorm,
            "seed": self.seed, "arithmetic": self.arithmetic,
        }  # fmt: skip

    def options(self, provider: str) -> ScoreOptions:
        """Return them as the scorer takes them; raises UsageError where they contradict it."""
        keywords = self.keywords() | {"providers": cast("ProviderName", provider), "threads": 1}
        return score_options(**keywords)

    def changes(self, other: ScoreSettings) -> str:
        """Return in words what differs between these and others, empty where nothing does."""
        mine, theirs = self.model_dump(by_alias=True), other.model_dump(by_alias=True)
        return ", ".join(f"{key} {mine[key]} against {theirs[key]}" for key in mine if mine[key] != theirs[key])
