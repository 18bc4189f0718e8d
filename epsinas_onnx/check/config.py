"""The configuration of checks: found, read and resolved for each path; what is wrong in it is said with its place."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from epsinas_onnx.check.finding import Finding, Severity
from epsinas_onnx.check.rule import Options
from epsinas_onnx.check.rules import RULES
from epsinas_onnx.check.rules.valid import UNREADABLE
from epsinas_onnx.check.settings import ScoreSettings, kebab, sentence
from epsinas_onnx.errors import UsageError

OWN_FILE, SHARED_FILE, TABLE = "epsinas-onnx.toml", "pyproject.toml", "epsinas-onnx"
OFF = "off"

_STRICT = ConfigDict(extra="forbid", frozen=True, alias_generator=kebab)
_RuleTable = Mapping[str, Any]  # by rule: a severity, "off", or a table with a severity and options


class Ignore(BaseModel):
    """Findings that do not count: of a rule, in models whose path a glob matches, at nodes that another one matches."""

    model_config = _STRICT

    rule: str
    reason: Annotated[str, Field(min_length=1)]
    path: str = "*"
    node: str | None = None

    def covers(self, path: str, finding: Finding) -> bool:
        """Whether it ignores a finding in the model at `path`."""
        at_node = self.node is None or (finding.node is not None and fnmatchcase(finding.node, self.node))
        return finding.rule == self.rule and fnmatchcase(path, self.path) and at_node


class _Path(BaseModel):
    """What is different for the models whose path a glob matches."""

    model_config = _STRICT

    pattern: str
    rules: _RuleTable = {}
    score: Mapping[str, Any] = {}


class _File(BaseModel):
    """A configuration as it is written."""

    model_config = _STRICT

    fail_on: Severity = Severity.ERROR
    baseline: str | None = None
    provider: str = "auto"
    score: Mapping[str, Any] = {}
    rules: _RuleTable = {}
    paths: tuple[_Path, ...] = ()
    ignore: tuple[Ignore, ...] = ()


@dataclass(frozen=True)
class RuleSetting:
    """How one rule is applied to one model."""

    severity: Severity
    options: Options


@dataclass(frozen=True)
class Settings:
    """What holds for one model: how it is scored, which rules look at it, in order, and what is ignored in it.

    path: as globs of the configuration see it.
    """

    path: str
    score: ScoreSettings
    rules: Mapping[str, RuleSetting]
    ignore: tuple[Ignore, ...] = ()


@dataclass(frozen=True)
class Config:
    """A configuration.

    file: where it stands, None where there is none; its folder is where globs start. fail_on: the least severity that
    fails. baseline: its file, None where there is to be none. only: the rules that look at models, None for all.
    """

    file: Path | None = None
    written: _File = field(default_factory=_File)
    fail_on: Severity = Severity.ERROR
    baseline: Path | None = None
    only: frozenset[str] | None = None

    @property
    def folder(self) -> Path:
        """Where the globs and the baseline's path start."""
        return Path() if self.file is None else self.file.parent

    @property
    def provider(self) -> str:
        """Where graphs run."""
        return self.written.provider

    def changed(
        self, *, baseline: Path | None = None, fail_on: str | None = None, select: Sequence[str] = ()
    ) -> Config:
        """Return this with what a command line says otherwise; raises UsageError for words that do not exist."""
        if fail_on is not None and fail_on not in set(Severity):
            raise UsageError(f"--fail-on takes {', '.join(Severity)}, not {fail_on!r}")
        unknown = next((name for name in select if name not in RULES), None)
        if unknown is not None:
            raise UsageError(f"there is no rule {unknown!r}; the rules are {', '.join(RULES)}")
        return dataclasses.replace(
            self,
            fail_on=self.fail_on if fail_on is None else Severity(fail_on),
            baseline=baseline or self.baseline,
            only=frozenset({UNREADABLE.name, *select}) if select else None,
        )

    @property
    def score(self) -> ScoreSettings:
        """How models are scored that no pattern of `paths` matches."""
        return self._score(())

    def settings_for(self, model: str) -> Settings:
        """Return what holds for the model at a path; later patterns of `paths` win over earlier ones."""
        path = Path(os.path.relpath(Path(model).absolute(), self.folder.absolute())).as_posix()
        matching = [one for one in self.written.paths if fnmatchcase(path, one.pattern)]
        tables = [self.written.rules, *(one.rules for one in matching)]
        looking = [name for name in RULES if self.only is None or name in self.only]
        rules = {name: setting for name in looking if (setting := self._rule(name, tables)) is not None}
        ignore = tuple(one for one in self.written.ignore if fnmatchcase(path, one.path))
        return Settings(path, self._score(matching), rules, ignore)

    def _score(self, matching: Sequence[_Path]) -> ScoreSettings:
        merged = dict(self.written.score)
        for one in matching:
            merged |= one.score
        try:
            settings = ScoreSettings.model_validate(merged)
            settings.options("cpu")  # looks at what no type can say
        except ValidationError as error:
            raise UsageError(f"{self.file}: score.{sentence(error)}") from None
        except UsageError as error:
            raise UsageError(f"{self.file}: score: {error}") from None
        return settings

    def _rule(self, name: str, tables: list[_RuleTable]) -> RuleSetting | None:
        rule = RULES[name]
        severity: Any = rule.severity
        options: dict[str, Any] = {}
        for table in tables:
            given = table.get(name, {})
            given = {"severity": given} if isinstance(given, str) else given
            if not isinstance(given, dict):
                raise UsageError(f"{self.file}: rules.{name} takes a severity, or a table, not {given!r}")
            options |= given
            severity = options.pop("severity", severity)
        if severity != OFF and severity not in set(Severity):
            raise UsageError(
                f"{self.file}: rules.{name} has the severity {severity!r}; choose {', '.join(Severity)} or {OFF}"
            )
        try:
            parsed = rule.options.model_validate(options)
        except ValidationError as error:
            known = ", ".join(["severity", *(one.alias or key for key, one in rule.options.model_fields.items())])
            raise UsageError(f"{self.file}: rules.{name}.{sentence(error)}; it takes {known}") from None
        return None if severity == OFF else RuleSetting(Severity(severity), parsed)


def find_config(start: Path) -> Config:
    """Return the nearest configuration in `start` or a folder above it, an empty one where there is none.

    In each folder `epsinas-onnx.toml` comes before the table `[tool.epsinas-onnx]` of `pyproject.toml`. Raises
    UsageError where a file is found that is wrong.
    """
    for folder in (start.absolute(), *start.absolute().parents):
        for name in (OWN_FILE, SHARED_FILE):
            if (folder / name).is_file():
                config = _read(folder / name)
                if config is not None:
                    return config
    return Config()


def load_config(path: Path) -> Config:
    """Return the configuration in a file; raises UsageError where it is missing or wrong, or holds none."""
    config = _read(path)
    if config is None:
        raise UsageError(f"{path} has no table [tool.{TABLE}]; add it, or give another --config")
    return config


def _read(path: Path) -> Config | None:
    """Return what a TOML file configures, None of a pyproject.toml without our table."""
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the configuration {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from None
    if path.name == SHARED_FILE:
        table = table.get("tool", {}).get(TABLE)
        if table is None:
            return None
    try:
        written = _File.model_validate(table)
    except ValidationError as error:
        raise UsageError(f"{path}: {sentence(error)}") from None
    baseline = None if written.baseline is None else path.parent / written.baseline
    config = Config(path, written, written.fail_on, baseline)
    _check_names(config)
    return config


def _check_names(config: Config) -> None:
    """Raise UsageError for a rule that does not exist, and for options and settings that are wrong in any place."""
    written = config.written
    named = [*written.rules, *(name for one in written.paths for name in one.rules)]
    named += [one.rule for one in written.ignore]
    for name in named:
        if name not in RULES:
            raise UsageError(f"{config.file}: there is no rule {name!r}; the rules are {', '.join(RULES)}")
    for matching in ([], *([one] for one in written.paths)):
        config._score(matching)
        for name in RULES:
            config._rule(name, [written.rules, *(one.rules for one in matching)])
