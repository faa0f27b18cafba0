"""Values of a search's filters: numbers, texts and times, and how they are compared."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from ckptlake.errors import InvalidInputError

Value = str | int | float | datetime

_COMPARISON = re.compile(r"(<=|>=|<|>|=)(.*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"(\*?)')
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt](?P<minute>\d\d:\d\d)(?P<second>:\d\d(?P<fraction>\.\d{1,6})?)?(?:[Zz]|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_LONGEST_INTEGER = 18
_SHOWN = 60


class Operator(Enum):
    """How a filter compares."""

    EQUAL = "="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    BETWEEN = ".."  # both ends included
    WITHIN = "within"  # the first included, the second not
    PREFIX = "prefix"
    SUBTREE = "subtree"
    EXISTS = "exists"
    KEY_PREFIX = "key prefix"


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of a value.

    Attributes:
        operator: how it is compared.
        values: with what: two for `BETWEEN` and `WITHIN`, none for `EXISTS` and `KEY_PREFIX`, else one. A number
            where it was written as one without quotes, an aware UTC datetime for times, else text.
        written: one value as it was written, to compare with where the value kept is text; else empty.
    """

    operator: Operator
    values: tuple[Value, ...] = ()
    written: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a search and where it begins."""

    text: str
    start: int

    def error(self, message: str) -> InvalidInputError:
        """Return the error that says what is wrong there."""
        shown = self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}…"
        return InvalidInputError(f"the search cannot be read at character {self.start + 1}, {shown!r}: {message}")


def read_text(value: str, place: Place) -> Condition:
    """Return the condition on a text: equal, beginning like it, or there at all.

    Raises:
        InvalidInputError: it compares or has an unpaired quote.
    """
    if value == "*":
        return Condition(Operator.EXISTS)
    if value.startswith('"'):
        return _quoted(value, place)
    if _COMPARISON.fullmatch(value):
        raise place.error("texts are not compared by size: write the text alone, or quote it to look for the sign")
    return _plain_text(value, place)


def read_value(value: str, place: Place) -> Condition:
    """Return the condition on a value that may be a number or text.

    Raises:
        InvalidInputError: a comparison or range without its numbers, or an unpaired quote.
    """
    if value == "*":
        return Condition(Operator.EXISTS)
    if value.startswith('"'):
        return _quoted(value, place)
    compared = _COMPARISON.fullmatch(value)
    if compared is not None:
        sign, rest = compared.groups()
        if sign == "=" and rest.startswith('"'):
            return _quoted(rest, place)
        number = _number(rest, place)
        if number is None:
            raise place.error(f"after {sign!r} comes a number such as 1e-3: write one, or quote the value as text")
        return Condition(Operator(sign), (number,), rest if sign == "=" else "")
    if ".." in value:
        low, high = (_number(end, place) for end in _ends(value, place))
        if low is None or high is None:
            raise place.error("a range needs a number on both sides of '..': write them, or quote the value as text")
        if low > high:
            raise place.error("the range ends before it begins: put the smaller number first")
        return Condition(Operator.BETWEEN, (low, high))
    number = _number(value, place)
    return _plain_text(value, place) if number is None else Condition(Operator.EQUAL, (number,), value)


def read_time(value: str, place: Place) -> Condition:
    """Return the condition on a time; a day or minute as a whole is before, within or after.

    Raises:
        InvalidInputError: what is compared with is no day or moment.
    """
    if value == "*":
        return Condition(Operator.EXISTS)
    compared = _COMPARISON.fullmatch(value)
    if compared is not None:
        sign, rest = compared.groups()
        start, end = _span(rest, place)
        if sign == "=":
            return Condition(Operator.WITHIN, (start, end))
        is_before = sign in {"<", "<="}
        edge = start if sign in {"<", ">="} else end
        return Condition(Operator.LESS if is_before else Operator.AT_LEAST, (edge,))
    if ".." in value:
        (start, _), (last, end) = (_span(each, place) for each in _ends(value, place))
        if last < start:
            raise place.error("the range ends before it begins: put the earlier day first")
        return Condition(Operator.WITHIN, (start, end))
    return Condition(Operator.WITHIN, _span(value, place))


def _plain_text(value: str, place: Place) -> Condition:
    if '"' in value:
        raise place.error("a quote begins within the value: quote the whole value, a quote in it written twice")
    text = value.rstrip("*")
    return Condition(Operator.EQUAL if text == value else Operator.PREFIX, (text,), text) if text else _any()


def _any() -> Condition:
    return Condition(Operator.EXISTS)


def _quoted(value: str, place: Place) -> Condition:
    found = _QUOTED.fullmatch(value)
    if found is None:
        raise place.error('the quotes of the value do not pair up, or something follows them: write it as "…"')
    text = found[1].replace('""', '"')
    if not text:
        raise place.error("the value is empty: write one between the quotes, or * for any")
    return Condition(Operator.PREFIX if found[2] else Operator.EQUAL, (text,), text)


def _ends(value: str, place: Place) -> tuple[str, str]:
    low, _, high = value.partition("..")
    if not low or not high:
        instead = f">={low}" if low else f"<={high}" if high else "1..2"
        raise place.error(f"a range has two ends: write both, or {instead} for one")
    return low, high


def _number(text: str, place: Place) -> int | float | None:
    """Return the number that `text` is, or None where it is text."""
    if not _NUMBER.fullmatch(text):
        return None
    digits = text.lstrip("+-")
    if digits.isdigit() and len(digits) <= _LONGEST_INTEGER:
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise place.error("the number is too large: the largest is about 1.8e308; quote it to look for it as text")
    return number


def _span(text: str, place: Place) -> tuple[datetime, datetime]:
    """Return the first moment of a day, minute, second or microsecond, and the one after its last."""
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        start = datetime.fromisoformat(text.upper())
        start = (start if start.tzinfo is not None else start.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise place.error(
            f"{text!r:.40} is no day or moment: write it as 2026-01-31 or 2026-01-31T12:00, of UTC"
        ) from None
    if found["fraction"]:
        length = timedelta(microseconds=1)
    elif found["second"]:
        length = timedelta(seconds=1)
    else:
        length = timedelta(minutes=1) if found["minute"] else timedelta(days=1)
    try:
        return start, start + length
    except OverflowError:
        return start, datetime.max.replace(tzinfo=UTC)
