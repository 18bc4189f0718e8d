"""Text that is shown: names out of files made harmless and short, for terminals, pipes, logs and other programs.

A name in a file may be anything: it may end a line, move a cursor, turn the direction of writing, command a CI runner,
or be a million characters long. All that is shown goes through `shown`, or through `sentence` where it is prose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

NAMED = 3
"""How many names a sentence holds."""

LONGEST_NAME = 200
"""Characters of a name, or of any word, that are shown."""

LONGEST_SENTENCE = 1000

_COMMAND = re.compile(r"#(?=#\w*\[)")  # CI runners obey ##[...] and ##vso[...] wherever they stand in a line


def printable(text: str) -> str:
    r"""Return the text on one line, with an escape for each character that has no glyph.

    These are line breaks, control characters, lone surrogates and marks that turn the direction of writing: they end
    a line, move a cursor, cannot be encoded, are not allowed in XML, or make a name look like another. What a CI runner
    would obey in the middle of a line is escaped too.

    >>> printable("conv\n1\x1b[31m")
    'conv\\n1\\x1b[31m'
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return _COMMAND.sub(r"\\x23", text)


def shortened(text: str, most: int) -> str:
    """Return the text with at most `most` characters: what is too much is left out of the middle.

    The end gets more room than the beginning, since names of one model or folder differ there.

    >>> shortened("models/frameworks/cnn-torch.onnx", 20)
    'models…nn-torch.onnx'
    """
    if len(text) <= most:
        return text
    first = (most - 1) // 3
    return f"{text[:first]}…{text[len(text) - (most - 1 - first) :]}"


def shown(text: str, most: int = LONGEST_NAME) -> str:
    """Return the text printable, no word of it longer than a name may be, with at most `most` characters."""
    return _short(printable(_short(text, most)), most)  # first of all, since it may be very long; escapes are longer


def sentence(text: str) -> str:
    """Return the text as one sentence for a person: on one line, with single spaces, and short whatever it names."""
    return shown(" ".join(text.split()), LONGEST_SENTENCE)


def without_subject(text: str, name: str) -> str:
    """Return what is said of a file without the file's name in front, where the name stands beside it anyway."""
    return text.removeprefix(sentence(f"{name}:") + " ")


def output_line(text: str) -> str:
    r"""Return a line as it may be printed: CI runners obey what stands behind two colons in front of a line.

    >>> output_line("  ::error::forged")
    '  \\x3a:error::forged'
    """
    bare = text.lstrip()
    return f"{text[: len(text) - len(bare)]}\\x3a{bare[1:]}" if bare.startswith("::") else text


def _short(text: str, most: int) -> str:
    if len(text) > LONGEST_NAME:
        text = " ".join(shortened(word, LONGEST_NAME) for word in text.split(" "))
    return shortened(text, most)


def first_names(names: Sequence[str]) -> str:
    """Return the first names with commas between; dots say that there are more."""
    return ", ".join(map(shown, names[:NAMED])) + (", ..." if len(names) > NAMED else "")


def unexpected(name: str, error: BaseException) -> str:
    """Return what a foreign file provoked that nobody foresaw, on one line. name: of the file."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{name}: unexpected {type(error).__name__}: {text}; please report this file"


def to_json(record: Any, *, indent: int | None = 2) -> str:
    """Return a record as JSON in printable ASCII, which holds every name as it is, and ends with a line break."""
    text = json.dumps(record, indent=indent, allow_nan=False).replace("\x7f", "\\u007f")
    return _COMMAND.sub(r"\\u0023", text) + "\n"
