"""The one object through which commands speak: results to stdout, everything else to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TextIO, TypeVar

from ckptlake.cli.grid import Column, cells, fit
from ckptlake.cli.strict_json import dumps, dumps_line
from ckptlake.cli.wording import literal, one_line

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.text import Text

_T = TypeVar("_T")


class Console:
    """Prints texts literally: no markup, no wrapping, control characters made visible.

    Results can be piped: outside a terminal nothing is styled, and tables are as wide as they need to be.
    """

    @cached_property
    def _rich(self) -> RichConsole:
        from rich.console import Console as RichConsole

        return RichConsole(markup=False, highlight=False, emoji=False, soft_wrap=True)

    @cached_property
    def _rich_error(self) -> RichConsole:
        from rich.console import Console as RichConsole

        return RichConsole(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)

    @property
    def is_interactive(self) -> bool:
        """Whether somebody can answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def is_terminal(self) -> bool:
        """Whether results go to a screen."""
        return sys.stdout.isatty()

    @property
    def width(self) -> int | None:
        """Columns of the screen, or None where lines may be of any length."""
        if self.is_terminal:
            return shutil.get_terminal_size().columns
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdecimal() and int(columns) else None

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print one line of a result."""
        if style is not None and self.is_terminal:
            self._rich.print(_text(literal(text), style))
        else:
            sys.stdout.write(f"{self._encodable(literal(text))}\n")

    def block(self, text: str) -> None:
        """Print text that has lines of its own."""
        for line in text.removesuffix("\n").split("\n"):
            self.line(line)

    def heading(self, text: str) -> None:
        """Print the title of a part of a result, after an empty line."""
        self.line()
        self.line(text, style="bold")

    def stream(self) -> TextIO:
        """Return where text goes that has a form of its own, such as CSV."""
        return sys.stdout

    def json(self, document: object) -> None:
        """Print one strict JSON document, indented."""
        sys.stdout.write(dumps(document, ascii_only=not self._has_unicode) + "\n")

    def json_list(self, items: Iterable[object]) -> None:
        """Print one strict JSON list, an item a line."""
        before = "["
        for item in items:
            sys.stdout.write(before + dumps_line(item, ascii_only=not self._has_unicode))
            before = ",\n "
        sys.stdout.write("[]\n" if before == "[" else "]\n")

    def json_line(self, document: object) -> None:
        """Print one strict JSON document on a line of its own."""
        sys.stdout.write(dumps_line(document, ascii_only=not self._has_unicode) + "\n")

    def fits(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> bool:
        """Return whether a table would be shown whole."""
        return not fit(columns, [[literal(cell) for cell in row] for row in rows], self.width).omissions

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]], *, with_head: bool = True) -> str:
        """Print a table that fits the screen and return what had to be left out for that, in words.

        A long table may be given in parts, the later ones without a head.
        """
        fitted = fit(columns, [[literal(cell) for cell in row] for row in rows], self.width)
        if with_head:
            self.line(fitted.head, style="bold")
            self.line(fitted.rule, style="dim")
        styled = self.is_terminal and any(column.styles for column in columns)
        for row in fitted.rows:
            if styled:
                self._rich.print(_joined([_text(cell, style) for cell, style in fitted.styled(row)]))
            else:
                sys.stdout.write(self._encodable(fitted.text(row)) + "\n")
        return fitted.omissions

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Print names and values in two columns; long values run on."""
        shown = [(literal(name), value) for name, value in pairs]
        indent = max((cells(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.line(f"{name}{' ' * (indent - cells(name))}  {value}".rstrip())

    def note(self, *texts: str) -> None:
        """Say things beside the result; what is empty is not said."""
        for text in filter(None, texts):
            self._aside(text, None)

    def warning(self, text: str) -> None:
        """Say in one line that something is not as it should be."""
        self._aside(f"warning: {one_line(text)}", "yellow")

    def error(self, text: str) -> None:
        """Say in one line why the command has failed."""
        self._aside(f"error: {one_line(text)}", "red")

    def _aside(self, text: str, style: str | None) -> None:
        self.flush()
        shown = "\n".join(literal(line) for line in text.split("\n"))
        if sys.stderr.isatty():
            word, colon, rest = shown.partition(": ") if style else ("", "", shown)
            self._rich_error.print(_joined([_text(word + colon, style), _text(rest, None)], gap=""))
        else:
            sys.stderr.write(f"{shown}\n")

    def flush(self) -> None:
        """Hand over what has been printed; a result that nobody reads fails here at the latest."""
        sys.stdout.flush()

    def confirm(self, question: str) -> bool:
        """Ask a question that is answered by y or n; anything but yes is no."""
        self.flush()
        sys.stderr.write(f"{literal(question)} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def progress(self, items: Mapping[str, _T], doing: str, *, quiet: bool) -> Iterator[tuple[str, _T]]:
        """Yield names and items, with a bar on the screen that shows how many are done."""
        if quiet or not sys.stderr.isatty():
            yield from items.items()
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._rich_error, transient=True) as progress:
            task = progress.add_task(doing, total=len(items))
            for name, item in items.items():
                progress.update(task, description=f"{doing} {name}")
                yield name, item
                progress.advance(task)

    @contextmanager
    def busy(self, doing: str, *, quiet: bool) -> Iterator[None]:
        """Show for the block that work of unknown length is being done."""
        if quiet or not sys.stderr.isatty():
            yield
            return
        with self._rich_error.status(doing):
            yield

    @property
    def _has_unicode(self) -> bool:
        return (sys.stdout.encoding or "").lower().startswith("utf")

    def _encodable(self, text: str) -> str:
        if self._has_unicode:
            return text
        return text.translate({ord("─"): "-", ord("…"): "~"})


def _text(text: str, style: str | None) -> Text:
    from rich.text import Text

    return Text(text, style=style or "")


def _joined(parts: Sequence[Text], gap: str = "  ") -> Text:
    from rich.text import Text

    return Text(gap).join(parts)


console = Console()
