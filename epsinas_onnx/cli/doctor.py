"""`epsinas-onnx doctor`: examines the machine and the installation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from epsinas_onnx._util.memory import readable
from epsinas_onnx._util.text import to_json
from epsinas_onnx.cli.common import EXIT_FAILED

if TYPE_CHECKING:
    from epsinas_onnx.doctor import Examination


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Every field, for programs.")] = False,
) -> None:
    """Examine the installation: versions, which providers really run a graph, threads, and what is slow and why.

    Exit code 3 where nothing can be scored. Changes nothing, and takes a few seconds.
    """
    from epsinas_onnx.doctor import examine

    found = examine()
    typer.echo(to_json(found.to_dict()) if as_json else _text(found), nl=False)
    if not found.works:
        raise typer.Exit(EXIT_FAILED)


def _text(found: Examination) -> str:
    quota = "" if found.quota is None else f", of which a container's limit leaves {found.quota:.2g}"
    lines = [
        found.platform,
        "versions: " + ", ".join(f"{name} {version}" for name, version in found.packages.items()),
        f"{found.cores} cores{quota}; {readable(found.memory)} of memory left",
    ]
    for one in found.blas:
        lines.append(
            f"linear algebra: {one['internal_api']} {one['version']} ({one['architecture']}), {one['num_threads']} "
            f"threads, of which scores use 1 each; {found.gigaflops:.1f} thousand million multiply-adds a second on one"
        )
    lines.append("")
    for state in found.providers:
        outcome = f"runs ({1e3 * (state.seconds or 0):.0f} ms)" if state.works else f"does not run: {state.reason}"
        lines.append(f"{state.name}: {outcome}")
    if found.score_seconds:
        stages = ", ".join(f"{stage} {1e3 * seconds:.0f}" for stage, seconds in found.score_seconds.items())
        lines.append(f"a network of ten convolutions, batch 256: {stages} ms")
    if found.import_seconds is not None:
        lines.append(f"a new Python can score after {found.import_seconds:.1f} s")
    lines.append("")
    lines += [f"{finding.level}: {finding.text}" for finding in found.findings] or ["nothing is wrong"]
    return "\n".join(lines) + "\n"
