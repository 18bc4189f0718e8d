"""An explanation in a terminal: the tree of modules with sparklines, and sentences that say where the signal ends."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from epsinas_onnx._util.text import shown
from epsinas_onnx.explanation.modules import Branch, Module, magnitude_bounds, module_tree, rows, sampled
from epsinas_onnx.explanation.result import Ending, ExplainedValue, Explanation, Observed
from epsinas_onnx.report.columns import Column, Give, Row, print_rows, put, put_sentence

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 12
_FED_BY = 4  # operands that a sentence describes


def print_explanation(found: Explanation, console: Console, levels: int | None = None) -> None:
    """Print where the signal goes; levels: how many levels of modules are opened, None for as many as fit."""
    for line in summary(found):
        put_sentence(line, console)
    put("", console)
    root = module_tree(found)
    bounds = magnitude_bounds(found.values)
    branches = rows(root, levels)
    shares = any(branch.module.share is not None for branch in branches)
    titles = [f"{constant:g}" for constant in found.weights]
    columns = [Column("module", Give.MIDDLE), Column("nodes", right=True)]
    for title in titles:
        columns += [Column(f"size at {title}"), Column("ends at", right=True)]
    columns += [Column("share", right=True)] if shares else []
    columns.append(Column(""))
    print_rows(columns, [_row(branch, bounds, shares) for branch in branches], console)
    put("", console)
    low, high = bounds
    put_sentence(
        f"size: the largest magnitude at each depth, from 1e{low:+.0f} (▁) to 1e{high:+.0f} (█), a dot where there is "
        f"none; ends at: that of the last one, and how far samples differ in it",
        console,
    )
    for warning in found.warnings:
        put_sentence(f"note: {warning}", console)


def summary(found: Explanation) -> list[str]:
    """Return what there is to say, a sentence a line."""
    score = "no score" if found.score is None else f"score {found.score:.6g}"
    lines = [
        f"{shown(found.model)}: {found.status}, {score}, in {found.arithmetic} arithmetic; "
        f"{len(found.values):,} values over {found.samples} samples"
    ]
    if found.lost is None:
        lines.append("the signal arrives: the outputs vary over the samples for both constants")
    for ending in found.endings:
        lines += _ending_lines(found, ending)
    if found.unobserved:
        lines.append(f"{found.unobserved:,} nodes inside of bodies (If, Loop, Scan) were not looked into")
    if found.not_taken:
        lines.append(f"{found.not_taken:,} nodes lie in branches of an If that were not taken, and are left out")
    return lines


def _ending_lines(found: Explanation, ending: Ending) -> list[str]:
    where = "float32 ends" if ending is found.lost_in_float32 else "the signal ends"
    at = "" if ending.node is None else f" in {shown(ending.node)} ({shown(ending.operator or '')})"
    if ending.inside:
        at += f", inside of {shown(ending.inside[-1])}"
    lines = [f"{where}{at}: {ending.status}, {ending.reason}"]
    values = {value.name: value for value in found.values}
    known = ending.constant is not None and ending.constant in found.weights
    index = found.weights.index(ending.constant) if known else 0
    for name in ending.operands[:_FED_BY]:
        lines.append(f"  it is fed by {described(values[name], index, found.weights[index])}")
    if len(ending.operands) > _FED_BY:
        lines.append(f"  and by {len(ending.operands) - _FED_BY} more")
    return lines


def described(value: ExplainedValue, index: int, constant: float) -> str:
    """Return one value for one of the constants in words."""
    seen = value.observed[index]
    made = "an input" if not value.node else f"made by {shown(value.node)} ({shown(value.operator)})"
    if seen is None:
        return f"{shown(value.name)}, {made}, which was not computed"
    varies = "the same for every sample" if seen.variation is None else f"varying by {power(seen.variation)}"
    return f"{shown(value.name)}, {made}: with {constant:g} from {seen.low} to {seen.high}, {varies}"


def power(log10: float | None) -> str:
    """Return a magnitude from its logarithm.

    >>> power(-41.5), power(None), power(2.0)
    ('3.2e-42', '0', '1.0e+02')
    """
    if log10 is None:
        return "0"
    whole = int(log10 // 1)
    mantissa = 10.0 ** (log10 - whole)
    return f"{mantissa:.1f}e{whole:+03d}" if mantissa < 9.95 else f"1.0e{whole + 1:+03d}"


def sparkline(series: Sequence[float | None], bounds: tuple[float, float]) -> str:
    """Return bars for logarithms between bounds, a dot for what has none.

    >>> sparkline([0.0, -5.0, None, -10.0], (-10.0, 0.0))
    '█▅·▁'
    """
    low, high = bounds
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join("·" if one is None else _BARS[round((one - low) / step)] for one in sampled(series, _WIDTH))


def _row(branch: Branch, bounds: tuple[float, float], shares: bool) -> Row:
    module = branch.module
    mark = ">" if module.inner and not branch.opened else " "
    cells: list[str | Text] = [f"{'  ' * branch.level}{mark} {shown(module.name)}", f"{module.nodes:,}"]
    for constant in range(2):
        cells += [sparkline(module.magnitudes(constant), bounds), _last(module, constant)]
    if shares:
        cells.append("" if module.share is None else f"{100 * module.share:.1f}%")
    cells.append(Text(_mark(module, bool(module.inner)), style="bold red"))
    return Row(cells)


def _last(module: Module, constant: int) -> str:
    seen: Observed | None = module.values[-1].observed[constant]
    if seen is None:
        return "not computed"
    if not seen.finite:
        return "not finite"
    return f"{power(seen.magnitude)} ± {power(seen.variation)}"


def _mark(module: Module, inside: bool) -> str:
    here = "in here" if inside else "here"
    marks = [f"<- the signal ends {here}"] if module.lost else []
    marks += [f"<- float32 ends {here}"] if module.lost_in_float32 else []
    return " ".join(marks)
