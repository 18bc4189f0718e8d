"""The baseline: scores and fingerprints of models in one small file, which is read, written and compared here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from epsinas_onnx._util.names import escaped, unescaped
from epsinas_onnx.check.settings import STRICT, ScoreSettings, sentence
from epsinas_onnx.errors import UsageError
from epsinas_onnx.output.files import write_output
from epsinas_onnx.scoring.facts import Facts
from epsinas_onnx.scoring.result import Status
from epsinas_onnx.versions import versions

FILE_NAME = "epsinas-baseline.json"
_DIGITS = 9  # what tells one float32 from the next


class Entry(BaseModel):
    """What is expected of one model. settings: of the score, where they are not those of the whole baseline."""

    model_config = STRICT

    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
    status: Status
    score: float | None = None
    parameters: int
    multiply_adds: int | None = None
    opset: int | None = None
    settings: ScoreSettings | None = None


class Baseline(BaseModel):
    """What is expected of many models. written_by: versions, since a newer one may score differently.

    models: by path, relative to the baseline's folder, with slashes; see `key_of`.
    """

    model_config = STRICT

    version: Literal[1] = 1
    written_by: str = ""
    settings: ScoreSettings = ScoreSettings()
    models: Mapping[str, Entry] = {}

    def settings_of(self, entry: Entry) -> ScoreSettings:
        """Return what the score of an entry was computed with."""
        return entry.settings or self.settings


def read_baseline(path: Path) -> Baseline:
    """Return the baseline in a file; raises UsageError where it cannot be read, or is none."""
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(
            f"there is no baseline {path}; make it with epsinas-onnx baseline write and the paths of the models"
        ) from None
    except OSError as error:
        raise UsageError(f"the baseline {path} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        raise UsageError(f"{path} is no baseline: {sentence(error)}; write it again") from None


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline, sorted by path, with a line for each fact; a reader never sees half of it.

    Raises OutputError where it cannot be written.
    """
    record = baseline.model_dump(mode="json", by_alias=True, exclude_none=True)
    record["models"] = dict(sorted(record["models"].items()))
    write_output(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def written_by() -> str:
    """Return the versions that decide a score."""
    known = versions()
    return ", ".join(f"{package} {known[package]}" for package in ("epsinas-onnx", "onnxruntime") if package in known)


def key_of(model: str, baseline: Path) -> str:
    """Return how a baseline calls a model: its path from the baseline's folder, with slashes, `escaped`."""
    return escaped(Path(os.path.relpath(Path(model).resolve(), baseline.resolve().parent)).as_posix())


def entry_of(facts: Facts, settings: ScoreSettings, whole: ScoreSettings) -> Entry | None:
    """Return what a baseline keeps of a model, None of one that could not be read or scored."""
    if facts.fingerprint is None or facts.parameters is None or facts.status in (None, Status.ERROR):
        return None
    score = None if facts.score is None else float(f"{facts.score:.{_DIGITS}g}")
    own = None if settings == whole else settings
    return Entry(
        fingerprint=facts.fingerprint, status=facts.status, score=score, parameters=facts.parameters,
        multiply_adds=facts.multiply_adds, opset=facts.opset, settings=own,
    )  # fmt: skip


def missing_files(baseline: Baseline, path: Path) -> list[str]:
    """Return the models of a baseline whose files are gone."""
    return [name for name in baseline.models if not (path.parent / unescaped(name)).exists()]
