"""How values read on a screen: one short form for each kind, control characters made visible."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_WHOLE_BELOW = 1e12
_POINTER = re.compile(r"[\s^~]*")


def literal(text: str) -> str:
    r"""Return `text` with every character that would move the cursor or reorder the line escaped.

    >>> literal("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def one_line(message: str) -> str:
    """Return a message on one line, without the line that only points at a place in the one before."""
    return " ".join(line.strip() for line in message.splitlines() if not _POINTER.fullmatch(line))


def number(value: float | None) -> str:
    """Return a number with six significant digits, a whole one with all it has, or a dash for none.

    >>> number(0.123456789), number(-2097152.0), number(float("nan")), number(None)
    ('0.123457', '-2097152', 'NaN', '-')
    """
    if value is None:
        return "-"
    if value != value:
        return "NaN"
    if abs(value) < _WHOLE_BELOW and value == int(value):
        return str(int(value))
    return f"{value:.6g}"


def duration(seconds: float | None) -> str:
    """Return a length of time in its two largest units.

    >>> duration(0.25), duration(75), duration(3700), duration(90_000)
    ('0.2s', '1m 15s', '1h 01m', '1d 01h')
    """
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def moment(value: datetime | None, *, seconds: bool = False) -> str:
    """Return a time as UTC, to the minute or second."""
    if value is None:
        return "-"
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"[: 19 if seconds else 16]


def exact_moment(value: datetime) -> str:
    """Return a time with all its digits; a Z tells that it is UTC."""
    if value.tzinfo is None:
        return value.isoformat(sep=" ")
    return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}Z"


def size(size_bytes: int) -> str:
    """Return a number of bytes in the unit that fits.

    >>> size(0), size(999), size(1500), size(3_456_789)
    ('0 B', '999 B', '1.5 kB', '3.5 MB')
    """
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} PB"


def count(amount: int, singular: str, plural: str | None = None) -> str:
    """Return an amount with its noun.

    >>> count(1, "run"), count(12_000, "run"), count(2, "entry", "entries")
    ('1 run', '12,000 runs', '2 entries')
    """
    return f"{amount:,} {singular if amount == 1 else plural or singular + 's'}"
