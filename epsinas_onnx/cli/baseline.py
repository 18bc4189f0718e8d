"""`epsinas-onnx baseline`: writes what is expected of models into one file, and shows what differs from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epsinas_onnx._util.text import LONGEST_SENTENCE, shown
from epsinas_onnx.cli.check import (
    EXIT_FOUND,
    BaselineOption,
    ConfigOption,
    check_all,
    read_by,
    read_config,
)
from epsinas_onnx.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    JobsOption,
    MemoryOption,
    TimeoutOption,
    find_models,
    parse_jobs,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.outputs import check_outputs
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits
from epsinas_onnx.scoring.result import same_score

if TYPE_CHECKING:
    from epsinas_onnx.check.baseline import Baseline, Entry
    from epsinas_onnx.check.config import Config
    from epsinas_onnx.check.settings import ScoreSettings
    from epsinas_onnx.scoring.jobs import Jobs

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Keep scores and fingerprints of models in one small file."
)

PathsArgument = Annotated[
    list[str], typer.Argument(help="ONNX files, folders (searched through), globs, or - for a list on standard input.")
]


@app.command("write", short_help="Write the score and the fingerprint of each model.")
def write_command(
    paths: PathsArgument,
    baseline: BaselineOption = None,
    config: ConfigOption = None,
    jobs: JobsOption = "auto",
    prune: Annotated[bool, typer.Option("--prune", help="Drop models whose files are gone.")] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Write the score and the fingerprint of each model; models that are not named stay as they are."""
    prepare_workers()
    from epsinas_onnx.check.baseline import Baseline, missing_files, read_baseline, write_baseline, written_by

    chosen = read_config(config, baseline=baseline)
    path = _path(chosen)
    named = find_models(paths)
    read = read_by(dataclasses.replace(chosen, baseline=None))
    check_outputs([("--baseline", path)], inputs=read, models=named)
    before = read_baseline(path) if path.exists() else Baseline()
    entries, failed, interrupted = _entries(named, chosen, path, parse_jobs(jobs), Limits(timeout, memory))
    entries = _kept_where_equal(before, entries, chosen.score)
    # An entry that stays keeps the settings that it was written for, where the whole baseline gets others.
    kept = {
        name: entry if before.settings_of(entry) == chosen.score
        else entry.model_copy(update={"settings": before.settings_of(entry)})
        for name, entry in before.models.items()
    }  # fmt: skip
    after = Baseline(written_by=written_by(), settings=chosen.score, models=kept | entries)
    if prune:
        gone = missing_files(after, path)
        after = after.model_copy(update={"models": {n: e for n, e in after.models.items() if n not in gone}})
    try:
        write_baseline(path, after)
    except OutputError:
        for name, entry in entries.items():
            typer.echo(shown(f"{name}: {_described(entry)}", LONGEST_SENTENCE))
        raise
    changed = sum(before.models.get(name) != entry for name, entry in entries.items())
    say(f"{path}: {len(after.models)} models, {changed} of {len(entries)} new or changed")
    _leave(failed, interrupted)


@app.command("diff", short_help="Show what write would change.")
def diff_command(
    paths: PathsArgument,
    baseline: BaselineOption = None,
    config: ConfigOption = None,
    jobs: JobsOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
) -> None:
    """Show what baseline write would change, a line each; exit code 1 where that is anything."""
    prepare_workers()
    from epsinas_onnx.check.baseline import missing_files, read_baseline

    chosen = read_config(config, baseline=baseline)
    path = _path(chosen)
    before = read_baseline(path)
    named = find_models(paths)
    entries, failed, interrupted = _entries(named, chosen, path, parse_jobs(jobs), Limits(timeout, memory))
    lines = []
    for name, entry in entries.items():
        if name not in before.models:
            lines.append(f"+ {name}: {_described(entry)}")
        else:
            changes = _changes(before, before.models[name], entry, chosen.score)
            lines += [f"~ {name}: {', '.join(changes)}"] if changes else []
    gone = set(missing_files(before, path))
    lines += [f"- {name}: the file is gone" for name in before.models if name in gone]
    for line in lines:
        typer.echo(shown(line, LONGEST_SENTENCE))
    same = len(entries) - sum(not line.startswith("-") for line in lines)
    say(f"{same} of {len(entries)} models are as in {path}")
    _leave(failed, interrupted)
    if lines:
        raise typer.Exit(EXIT_FOUND)


def _path(config: Config) -> Path:
    from epsinas_onnx.check.baseline import FILE_NAME

    path = config.baseline or config.folder / FILE_NAME
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _entries(
    models: list[str], config: Config, path: Path, jobs: Jobs, limits: Limits
) -> tuple[dict[str, Entry], list[str], bool]:
    """Return the entries of the models that have one, what is wrong with the others, and whether the user broke off."""
    from epsinas_onnx.check.baseline import entry_of, key_of

    if not models:
        raise UsageError("no files were named; give files, folders or globs")
    entries, failed = {}, []
    scoring = dataclasses.replace(config.changed(select=["score-status"]), baseline=None)
    checked, interrupted = check_all(models, scoring, jobs, limits, with_score=True)
    for one in checked:
        entry = entry_of(one.facts, config.settings_for(one.model).score, config.score)
        if entry is None:
            why = one.findings[0].message if one.findings else "it has no score that could be kept"
            failed.append(f"{one.model}: {why}")
        else:
            entries[key_of(one.model, path)] = entry
    return entries, failed, interrupted


def _described(entry: Entry) -> str:
    score = str(entry.status) if entry.score is None else f"score {entry.score:.6g}"
    return f"{score}, {entry.parameters:,} parameters"


def _kept_where_equal(before: Baseline, entries: dict[str, Entry], settings: ScoreSettings) -> dict[str, Entry]:
    """Return the entries, with the old score where all that differs is how it was rounded."""
    return {
        name: entry.model_copy(update={"score": old.score})
        if old is not None and not _changes(before, old, entry, settings)
        else entry
        for name, entry in entries.items()
        for old in [before.models.get(name)]
    }


def _changes(before: Baseline, old: Entry, new: Entry, whole: ScoreSettings) -> list[str]:
    """Return in words what differs between two entries of one model."""
    changes = []
    settings = before.settings_of(old).changes(new.settings or whole)
    if settings:
        changes.append(f"options {settings}")
    if old.fingerprint != new.fingerprint:
        changes.append(f"graph {old.fingerprint[:8]} -> {new.fingerprint[:8]}")
    for what, was, now in (
        ("status", old.status, new.status), ("parameters", old.parameters, new.parameters),
        ("multiply-adds", old.multiply_adds, new.multiply_adds), ("opset", old.opset, new.opset),
    ):  # fmt: skip
        if was != now:
            changes.append(f"{what} {_text(was)} -> {_text(now)}")
    if not same_score(old.score, new.score):
        changes.append(f"score {_text(old.score)} -> {_text(new.score)}")
    return changes


def _text(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _leave(failed: list[str], interrupted: bool) -> None:
    for line in failed:
        say(f"Error: {line}")
    if interrupted:
        say("Interrupted: the other models stayed as they were.")
        raise typer.Exit(EXIT_INTERRUPTED)
    if failed:
        raise typer.Exit(EXIT_FAILED)
