"""Rows in columns for a terminal of any width, and for pipes: what every command prints as a table.

A terminal that is too narrow takes room from names, whose middle is left out, never from numbers; sentences hang below
their row. A pipe or a file has room for everything: each row is one line, and so is each sentence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from epsinas_onnx._util.text import output_line, sentence, shortened, shown

_GAP = "  "
_INDENT = 2  # of what hangs below a row, from where its name begins
_LONGEST_TITLE = 40
_NARROWEST = 12  # columns of a name
_LEAST = 8  # columns of a word


class Give(Enum):
    """What a column does where the rows don't fit a terminal."""

    NOTHING = auto()
    """It stays as it is: numbers, and words of ours."""
    MIDDLE = auto()
    """Its names are shortened in the middle."""
    LINES = auto()
    """Its cells go on in a next line."""
    BELOW = auto()
    """It goes below the row, in one line with others that do."""
    NAMED = auto()
    """It goes below the row with its title, in one line with others that do."""
    WHOLE = auto()
    """It goes below the row and stays in one line, to be copied, which the terminal may fold."""


@dataclass(frozen=True)
class Column:
    """A column. right: whether it is aligned to the right, as numbers are."""

    title: str
    give: Give = Give.NOTHING
    right: bool = False

    @property
    def leaves(self) -> bool:
        """Whether it goes below where there is no room."""
        return self.give in (Give.BELOW, Give.NAMED, Give.WHOLE)


@dataclass(frozen=True)
class Row:
    """A cell for each column, as text of any kind or with a style, and sentences that hang below."""

    cells: Sequence[str | Text]
    below: Sequence[str] = ()


def print_rows(columns: Sequence[Column], rows: Sequence[Row], console: Console) -> None:
    """Print a heading and the rows."""
    for line in row_lines(columns, rows, console.width if console.is_terminal else None):
        put(line, console)


def row_lines(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> Iterator[Text]:
    """Yield a heading and the rows, for a terminal of a width, or None for a pipe."""
    grid = [[_text(cell) for cell in row.cells] for row in rows]
    heading = [Text(shown(column.title, _LONGEST_TITLE), style="bold") for column in columns]
    sizes = [max(text.cell_len for text in cells) for cells in zip(heading, *grid, strict=True)]
    fits = width is None or _total(sizes) <= width
    places = [
        _Place(c, i, size) for i, (c, size) in enumerate(zip(columns, sizes, strict=True)) if fits or not c.leaves
    ]
    if width is not None:
        _narrow(places, width)
    # What hangs below begins behind where the first name does, so that it is told from a row.
    front = next((index for index, place in enumerate(places) if not place.column.right), 0)
    indent = " " * (sum(place.width + len(_GAP) for place in places[:front]) + _INDENT)
    yield from _lines(places, heading)
    for row, cells in zip(rows, grid, strict=True):
        yield from _lines(places, cells)
        left = (
            []
            if fits
            else [(c.give, _below(c, cell.plain)) for c, cell in zip(columns, cells, strict=True) if c.leaves and cell]
        )
        together = "; ".join(text for give, text in left if give is not Give.WHOLE)
        for text in [*([together] if together else []), *map(sentence, row.below)]:
            yield from (Text(line, style="dim") for line in wrapped(text, width, indent))
        yield from (Text(indent + text, style="dim") for give, text in left if give is Give.WHOLE)


def put(line: Text | str, console: Console) -> None:
    """Print a line that is shown as it is: it is not wrapped, and no CI runner takes it for a command."""
    text = Text(line) if isinstance(line, str) else line.copy()
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


def _below(column: Column, text: str) -> str:
    return f"{shown(column.title, _LONGEST_TITLE)} {text}" if column.give is Give.NAMED else text


def _text(cell: str | Text) -> Text:
    if isinstance(cell, str):
        return Text(shown(cell))
    return Text(shown(cell.plain), style=cell.style)


@dataclass
class _Place:
    """Where a column stands. index: of its cells in a row."""

    column: Column
    index: int
    width: int


def _total(widths: Collection[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrow(places: Sequence[_Place], width: int) -> None:
    """Make columns narrower until all fit, if they can give that much: always the widest of them gives way."""
    giving = [place for place in places if place.column.give in (Give.MIDDLE, Give.LINES)]
    while giving and _total([place.width for place in places]) > width:
        widest = max(giving, key=lambda place: place.width)
        if widest.width <= _NARROWEST:
            break
        widest.width -= 1


def _lines(places: Sequence[_Place], cells: Sequence[Text]) -> Iterator[Text]:
    """Yield the lines of a row: one, and more where cells go on."""
    columns = []
    for place in places:
        cell = cells[place.index]
        goes_on = place.column.give is Give.LINES
        texts = wrapped(cell.plain, place.width, later=_GAP) if goes_on else [fitted(cell.plain, place.width)]
        columns.append([Text(text, style=cell.style) for text in texts])
    for number in range(max(map(len, columns), default=0)):
        line = Text()
        for place, parts in zip(places, columns, strict=True):
            text = parts[number] if number < len(parts) else Text()
            pad = Text(" " * (place.width - text.cell_len))
            line += Text(_GAP if place is not places[0] else "") + (pad + text if place.column.right else text + pad)
        yield line
