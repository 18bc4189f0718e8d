"""`epsinas-onnx check`: a gate for exported models; exit code 1 where a rule fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from epsinas_onnx.cli.common import (
    EXIT_INTERRUPTED,
    JobsOption,
    MemoryOption,
    TimeoutOption,
    find_models,
    parse_jobs,
    prepare_workers,
    say,
)
from epsinas_onnx.cli.outputs import check_outputs, given_files
from epsinas_onnx.cli.progress import with_bar
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.output.files import write_output
from epsinas_onnx.report.findings import ENDINGS, Format
from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits

if TYPE_CHECKING:
    from epsinas_onnx.check.config import Config
    from epsinas_onnx.check.finding import CheckedModel, CheckReport
    from epsinas_onnx.scoring.jobs import Jobs

EXIT_FOUND = 1
"""A rule at or above the chosen severity failed."""

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="A TOML file, or a pyproject.toml with the table tool.epsinas-onnx; the nearest epsinas-onnx.toml or "
        "pyproject.toml at or above the current folder otherwise.",
    ),
]
BaselineOption = Annotated[
    Path | None, typer.Option("--baseline", "-b", help="The baseline's file; otherwise the one of the configuration.")
]


def check_command(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="ONNX files, folders (searched through), globs, or - for a list on standard input."),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="What is printed.")] = Format.TEXT,
    report: Annotated[
        list[str] | None,
        typer.Option(
            "--report",
            "-r",
            metavar="FILE",
            help="Also write this file, such as check.sarif, junit.xml, check.json or check.md; FORMAT=FILE where the "
            "ending does not say it.",
        ),
    ] = None,
    config: ConfigOption = None,
    baseline: BaselineOption = None,
    fail_on: Annotated[str | None, typer.Option(help="The least severity that fails: error, warning or note.")] = None,
    select: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Only this rule; may be repeated.")] = None,
    jobs: JobsOption = "auto",
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    memory: MemoryOption = 0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show ignored findings, and models without any.")
    ] = False,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules, and leave.")] = False,
    explain: Annotated[str | None, typer.Option(help="Say what a rule is about, and leave.")] = None,
) -> None:
    """Check exported models by rules: valid, not folded, batch free, scored, and as the baseline has them.

    Exit codes: 0 nothing as bad as --fail-on; 1 something is; 2 the command or the configuration is wrong; 4 a report
    could not be written; 130 Ctrl-C.
    """
    if rules or explain is not None:
        _explain(explain)
        return
    prepare_workers()
    from epsinas_onnx.check.finding import CheckReport

    chosen = read_config(config, baseline=baseline, fail_on=fail_on, select=select or [])
    reports = [_report(text) for text in report or []]
    models = find_models(paths or [])
    if not models:
        raise UsageError("no files were named; give files, folders or globs to check")
    check_outputs([("--report", path) for _, path in reports], inputs=read_by(chosen), models=models)
    started = time.perf_counter()
    checked, interrupted = check_all(models, chosen, parse_jobs(jobs), Limits(timeout, memory))
    done = CheckReport(tuple(checked), chosen.fail_on, time.perf_counter() - started)
    written = _write(done, format, reports, verbose)
    if interrupted:
        say(f"Interrupted: {len(models) - len(checked)} files were not checked.")
        raise typer.Exit(EXIT_INTERRUPTED)
    if not written:
        raise typer.Exit(OutputError.exit_code)
    if done.failed:
        raise typer.Exit(EXIT_FOUND)


def read_config(
    path: Path | None, *, baseline: Path | None = None, fail_on: str | None = None, select: Sequence[str] = ()
) -> Config:
    """Return the configuration of a command, with what its options change."""
    from epsinas_onnx.check.config import find_config, load_config

    config = load_config(path) if path is not None else find_config(Path())
    return config.changed(baseline=baseline, fail_on=fail_on, select=select)


def read_by(config: Config) -> Iterator[Path]:
    """Yield the files that a configuration is read from, and those that it names."""
    yield from (path for path in (config.file, config.baseline) if path is not None)
    for table in (config.written.score, *(one.score for one in config.written.paths)):
        yield from given_files(table.get("input", "auto"))


def check_all(
    models: Sequence[str], config: Config, jobs: Jobs, limits: Limits, *, with_score: bool = False
) -> tuple[list[CheckedModel], bool]:
    """Check models with a bar; return what was checked, and whether the user interrupted it."""
    from epsinas_onnx.check.runner import check_as_done

    done: dict[int, CheckedModel] = {}
    interrupted = False
    try:
        results = check_as_done(models, config, jobs=jobs, with_score=with_score, limits=limits)
        for index, one in with_bar(results, len(models), "checking", models[0]):
            done[index] = one
    except KeyboardInterrupt:
        interrupted = True
    return [done[index] for index in sorted(done)], interrupted


def _report(text: str) -> tuple[Format, Path]:
    name, equals, file = text.partition("=")
    if equals and name in set(Format):
        return Format(name), Path(file)
    path = Path(text)
    if not path.suffix:
        return Format.TEXT, path
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"--report {text}: the ending says no format; write FORMAT=FILE with one of {', '.join(Format)}"
        )
    return ENDINGS[path.suffix.lower()], path


def _write(report: CheckReport, format: Format, files: Sequence[tuple[Format, Path]], verbose: bool) -> bool:
    """Print the report and write the files; return whether all could be written."""
    from epsinas_onnx.check.rules import RULES
    from epsinas_onnx.report.findings import render
    from epsinas_onnx.report.findings.text import print_text

    known = list(RULES.values())
    if format is Format.TEXT and sys.stdout.isatty():
        print_text(report, Console(), verbose=verbose)
    else:
        sys.stdout.write(render(report, format, known, verbose=verbose))
        sys.stdout.flush()
    written = True
    for kind, path in files:
        try:
            write_output(path, render(report, kind, known, verbose=verbose))
        except OutputError as error:
            say(f"Error: {error}")
            written = False
    return written


def _explain(name: str | None) -> None:
    from epsinas_onnx.check.rules import RULES

    if name is None:
        width = max(map(len, RULES))
        for rule in RULES.values():
            typer.echo(f"{rule.name:{width}}  {rule.severity:7}  {rule.summary}")
        return
    if name not in RULES:
        raise UsageError(f"there is no rule {name!r}; the rules are {', '.join(RULES)}")
    rule = RULES[name]
    typer.echo(
        f"{rule.name} ({rule.severity}): {rule.summary}\n\nWhy: {rule.why}\n\nFix: {rule.fix}\n\nIgnore: {rule.ignore}"
    )
    for key, one in rule.options.model_fields.items():
        typer.echo(f"\nOption {one.alias or key}: {one.default}")
