"""Fenced blocks, links, headings and tables of the documentation's Markdown pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "analysis").glob("*.md"))]
"""The pages whose blocks are run."""

LINKED = sorted({*PAGES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")})
"""The pages whose links must lead somewhere."""

_FENCE = re.compile(r"^(`{3,}|~{3,})\s*(\S*).*$")
_NOT_RUN = re.compile(r"<!--\s*not run:(.*?)-->", re.DOTALL)
_NO_ROWS = re.compile(r"<!--\s*no rows:.*-->\s*")
_FILE_NAME = re.compile(r"# (\w+\.py)\n")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)
_CODE_SPAN = re.compile(r"`[^`\n]*`")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: the word behind the fence, such as ``python``.
        line: of the first line of `text` in the page, from 1.
        not_run: the reason given in a comment before it, or None if the block is to be run.
        no_rows: whether a comment before it says that it is SQL without an answer.
    """

    page: Path
    language: str
    line: int
    text: str
    not_run: str | None
    no_rows: bool

    @property
    def file_name(self) -> str | None:
        """The name in a first line such as ``# train.py``: a program of its own."""
        match = _FILE_NAME.match(self.text)
        return match[1] if match else None

    @property
    def padded(self) -> str:
        """The text with empty lines before it, so that errors name the page's lines."""
        return "\n" * (self.line - 1) + self.text


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    lines = page.read_text().splitlines(keepends=True)
    before = ""
    index = 0
    while index < len(lines):
        fence = _FENCE.match(lines[index])
        if fence is None:
            before = before + lines[index] if lines[index].strip() else before
            index += 1
            continue
        start = index + 1
        index = next(i for i in range(start, len(lines)) if lines[i].strip() == fence[1])
        comment = before[before.rindex("<!--") :].strip() if before.rstrip().endswith("-->") else ""
        not_run = _NOT_RUN.fullmatch(comment)
        reason = not_run[1].strip() if not_run else None
        no_rows = _NO_ROWS.fullmatch(comment) is not None
        yield Block(page, fence[2], start + 1, "".join(lines[start:index]), reason, no_rows)
        before = ""
        index += 1


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    text = page.read_text()
    for block in blocks(page):
        text = text.replace(block.text, "")
    return text


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links, without those in code."""
    yield from _LINK.findall(_CODE_SPAN.sub("", prose(page)))


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on GitHub."""
    found = set()
    for heading in _HEADING.findall(prose(page)):
        plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(plain.replace(" ", "-"))
    return found


def section(page: Path, heading: str) -> str:
    """Return the text below a heading up to the next one of any level."""
    parts = re.split(r"^#{1,6} (.+?)\s*$", page.read_text(), flags=re.MULTILINE)
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        if title == heading:
            return text
    raise AssertionError(f"{page.name} has no section {heading!r}; it has {', '.join(parts[1::2])}")


def table_cells(text: str) -> list[list[str]]:
    """Return the body of the first Markdown table in `text`, without code marks."""
    rows = []
    for line in text.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]
