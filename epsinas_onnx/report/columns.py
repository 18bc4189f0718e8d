"""Rows in columns for a terminal of any width, and for pipes: what every command prints as a table.

A terminal that is too narrow takes room from names, whose middle is left out, never from numbers; sentences hang below
their row. A pipe or a file has room for everything: each row is one line, and so is each sentence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from epsinas_onnx._util.text import output_line, sentence, shortened, shown

_GAP = "  "
_INDENT = 2  # of what hangs below a row, from where its name begins
_NARROWEST = 12  # columns of a name
_LEAST = 8  # columns of a word


@dataclass(frozen=True)
class Column:
    """A column.

    title: its heading. right: whether it is aligned to the right, as numbers are. gives_way: whether its cells are
    names, which may be shortened. below: whether its cells go below their rows where these don't fit a terminal.
    """

    title: str
    right: bool = False
    gives_way: bool = False
    below: bool = False


@dataclass(frozen=True)
class Row:
    """A cell for each column, as text of any kind or with a style, and sentences that hang below."""

    cells: Sequence[str | Text]
    below: Sequence[str] = ()


def print_rows(columns: Sequence[Column], rows: Sequence[Row], console: Console) -> None:
    """Print a heading and the rows; those columns that go below their row are the last ones."""
    texts = [[_text(cell) for cell in row.cells] for row in rows]
    heading = [Text(column.title, style="bold") for column in columns]
    widths = [max(text.cell_len for text in cells) for cells in zip(heading, *texts, strict=True)]
    room = console.width if console.is_terminal else None
    beside = len(columns)
    if room is not None and _total(widths) > room:
        beside -= sum(column.below for column in columns)
        widths = _narrowed(widths[:beside], columns, room)
    # What hangs below begins behind where the first name does, so that it is told from a row.
    names = next((index for index, column in enumerate(columns) if not column.right), 0)
    indent = " " * (sum(widths[:names]) + len(_GAP) * names + _INDENT)
    put(_line(columns, heading, widths), console)
    for row, cells in zip(rows, texts, strict=True):
        put(_line(columns, cells, widths), console)
        for text in [*(cell.plain for cell in cells[beside:] if cell), *map(sentence, row.below)]:
            for line in wrapped(text, room, indent):
                put(Text(line, style="dim"), console)


def put(line: Text | str, console: Console) -> None:
    """Print a line that is shown as it is: it is not wrapped, and no CI runner takes it for a command."""
    text = Text(line) if isinstance(line, str) else line
    text.rstrip()
    safe = output_line(text.plain)
    console.print(text if safe == text.plain else Text(safe), soft_wrap=True)


def put_sentence(text: str, console: Console, indent: str = "    ") -> None:
    """Print a sentence, wrapped where a terminal needs it, with an indent from its second line on."""
    lines = wrapped(sentence(text), console.width if console.is_terminal else None, "", indent)
    for line in lines:
        put(line, console)


def wrapped(text: str, width: int | None, indent: str = "", later: str | None = None) -> list[str]:
    """Return printable text as lines of at most `width` columns; a name is shortened rather than broken.

    indent: in front of the first line. later: in front of the others, otherwise the same. None as the width is for
    pipes, and wraps nothing.
    """
    if width is None:
        return [indent + text]
    later = indent if later is None else later
    lines, line, empty = [], indent, True
    for word in text.split(" "):
        if not empty and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line, empty = later, True
        room = max(width - cell_len(line) - (not empty), _LEAST)
        line += ("" if empty else " ") + fitted(word, room)
        empty = False
    return [*lines, line]


def fitted(text: str, columns: int) -> str:
    """Return the text in at most so many columns of a terminal, its middle left out where it is longer."""
    most = columns
    while cell_len(text) > columns and most > 1:
        text = shortened(text, most)
        most -= 1
    return text


def _text(cell: str | Text) -> Text:
    if isinstance(cell, str):
        return Text(shown(cell))
    return Text(shown(cell.plain), style=cell.style)


def _total(widths: Collection[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrowed(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Return widths that fit into `room`, if names can give that much: always the widest of them gives way."""
    found = list(widths)
    names = [index for index in range(len(found)) if columns[index].gives_way]
    while names and _total(found) > room:
        widest = max(names, key=lambda index: found[index])
        if found[widest] <= _NARROWEST:
            break
        found[widest] -= 1
    return found


def _line(columns: Sequence[Column], cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for column, cell, width in zip(columns, cells, widths, strict=False):
        text = Text(fitted(cell.plain, width), style=cell.style)
        pad = " " * (width - text.cell_len)
        line.append(_GAP if line else "")
        line.append_text(Text.assemble(pad, text) if column.right else Text.assemble(text, pad))
    return line
