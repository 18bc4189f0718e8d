"""Compares what a command printed with what a page says it prints: as text and numbers, whatever the layout."""

from __future__ import annotations

import re
from collections.abc import Sequence

from epsinas_onnx.scoring.result import ABSOLUTE, RELATIVE

_TIMES = re.compile(r"(?<![\d.,])\d+\.\d\d(?![\d.%]| +to )|(?<![\d.])\d+(?:\.\d+)?(?=\s*(?:s|ms|models/s)\b)")
"""Seconds: they alone are printed with two decimals, or with their unit behind."""
_ROUNDING = re.compile(
    r"(?<=formula gives )[\d.e-]+|(?<=alone can give )[\d.e-]+|(?<=by )\d+%(?= of its variation)|=+(?= )|(?<= )=+|-{3,}"
)
"""What rounding errors make, or a ruler as wide as what stands on it."""
_PLACED = re.compile(r"(?<![\d.,])[\d,]+(?= +\(\d+\))")
"""A whole number with a place behind is a score: `swap` counts patterns of signs, and rounding decides some."""
_TOKEN = re.compile(r"(?:\d[\d,]*\d|\d)(?:\.\d+)?(?:e[+-]?\d+)?|[^\s\d]+")
_GAP = "..."


def differs(printed: str, said: str) -> str | None:
    """Return where the output first differs from what is said, None where it nowhere does.

    A line `...` stands for any lines. Numbers may be apart by what scores may be apart on other machines, or by one in
    their last place. Times, and what rounding errors make, are not compared.
    """
    found = _tokens(printed)
    parts = [_tokens(part) for part in re.split(r"^\.\.\.$", said, flags=re.MULTILINE)]
    at = 0
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if index == 0:
            starts = range(1)
        elif last:
            starts = range(max(at, len(found) - len(part)), len(found) - len(part) + 1)
        else:
            starts = range(at, len(found) - len(part) + 1)
        start = next((one for one in starts if _equal(found[one : one + len(part)], part)), None)
        if start is None:
            return _where(found[at:], part)
        at = start + len(part)
        if last and at != len(found):
            return f"more was printed: {' '.join(found[at:][:12])}"
    return None


def _tokens(text: str) -> list[str]:
    text = " ".join(text.split())
    return _TOKEN.findall(_PLACED.sub(r"\g<0>.0", _ROUNDING.sub("~", _TIMES.sub("~", text))))


def _equal(found: Sequence[str], said: Sequence[str]) -> bool:
    return len(found) == len(said) and all(map(_same, found, said))


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    if not (one[0].isdigit() and other[0].isdigit()):
        return False
    if "." not in other and "e" not in other:
        return False  # a count
    a, b = float(one.replace(",", "")), float(other.replace(",", ""))
    digits, _, power = other.partition("e")
    last_place = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    absolute = 0.0 if power else ABSOLUTE
    return abs(a - b) <= max(1.001 * last_place, absolute, RELATIVE * abs(b))


def _where(found: Sequence[str], said: Sequence[str]) -> str:
    pairs = zip(found, said, strict=False)
    at = next((index for index, pair in enumerate(pairs) if not _same(*pair)), min(len(found), len(said)))
    near = slice(max(0, at - 6), at + 6)
    return f"said {' '.join(said[near])!r}, printed {' '.join(found[near])!r}"
