"""How a table fits a screen: long texts are shortened first, then whole columns left out; numbers never cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

_GAP = "  "
_SHORTEST_TITLE = 12
_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: the text above it.
        align: ``right`` for numbers.
        shorten: where a long text gives way, or None for values that must stay whole.
        shortest: as many characters of a long text are always shown.
        rank: columns of the highest rank are left out first where the screen is narrow.
        styles: how certain values look on a screen.
    """

    title: str
    align: Literal["left", "right"] = "left"
    shorten: Literal["middle", "end"] | None = None
    shortest: int = 12
    rank: int = 0
    styles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grid:
    """A table cut to a width: what of it is shown, and what is not."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    shown: Sequence[int]
    widths: Sequence[int]
    omissions: str = ""

    @property
    def head(self) -> str:
        """The titles."""
        return self.text([column.title for column in self.columns])

    @property
    def rule(self) -> str:
        """The line below the titles."""
        return _GAP.join("─" * self.widths[index] for index in self.shown)

    def text(self, row: Sequence[str]) -> str:
        """Return one row as a line."""
        return _GAP.join(self._cell(row, index) for index in self.shown).rstrip()

    def styled(self, row: Sequence[str]) -> list[tuple[str, str | None]]:
        """Return one row as cells with their styles."""
        return [(self._cell(row, index), self.columns[index].styles.get(row[index])) for index in self.shown]

    def _cell(self, row: Sequence[str], index: int) -> str:
        column, width = self.columns[index], self.widths[index]
        text = shorten(row[index], width, column.shorten or "middle")
        padding = " " * (width - cells(text))
        return padding + text if column.align == "right" else text + padding


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Grid:
    """Return the table as it fits `width` columns of a screen; None is any width."""
    contents = [max((cells(row[index]) for row in rows), default=0) for index in range(len(columns))]
    natural = [max(size, cells(column.title)) for column, size in zip(columns, contents, strict=True)]
    shown = list(range(len(columns)))
    if width is None or _total(natural) <= width:
        return Grid(columns, rows, shown, natural)
    least = [
        max(size if column.shorten is None else min(size, column.shortest), min(cells(column.title), _SHORTEST_TITLE))
        for column, size in zip(columns, contents, strict=True)
    ]
    while len(shown) > 1 and _total([least[index] for index in shown]) > width:
        shown.remove(max(shown, key=lambda index: (columns[index].rank, index)))
    widths = _widen(natural, least, shown, width)
    omissions = ["long values are shortened"] if any(contents[index] > widths[index] for index in shown) else []
    left_out = [column.title for index, column in enumerate(columns) if index not in shown]
    if left_out:
        omissions.append(f"not shown at this width: {', '.join(left_out)}")
    return Grid(columns, rows, shown, widths, "; ".join(omissions))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _widen(natural: Sequence[int], least: Sequence[int], shown: Sequence[int], width: int) -> list[int]:
    """Return for each column the most it can have if no column has more than another while it wants more."""
    for limit in range(max(natural[index] for index in shown), 0, -1):
        widths = [max(low, min(want, limit)) for want, low in zip(natural, least, strict=True)]
        if _total([widths[index] for index in shown]) <= width:
            return widths
    return list(least)


def cells(text: str) -> int:
    """Return how many columns of a screen a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def shorten(text: str, width: int, where: Literal["middle", "end"]) -> str:
    """Return `text` with an ellipsis for what is too much.

    >>> shorten("quaternion-mlp-seed0", 12, "middle"), shorten("quaternion-mlp-seed0", 12, "end")
    ('quater…seed0', 'quaternion-…')
    """
    if cells(text) <= width:
        return text
    tail_width = (width - 1) // 2 if where == "middle" else 0
    tail = _taken(text[::-1], tail_width)[::-1]
    return _taken(text, width - 1 - cells(tail)) + _ELLIPSIS + tail


def _taken(text: str, width: int) -> str:
    """Return as much of the start of `text` as `width` columns hold."""
    taken = text[:width]
    while cells(taken) > width:
        taken = taken[:-1]
    return taken


number_column = partial(Column, align="right")
name_column = partial(Column, shorten="middle")
text_column = partial(Column, shorten="end")
