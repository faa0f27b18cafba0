"""Which words a text has: the same for what is indexed and for what is asked.

Letters and digits of any script make words, everything else parts them, so ``lr_decay=cosine/2`` has four. Case,
accents and width do not count. Scripts that write no spaces are cut by character, as are signs such as emoji: a
part of a name is then found as a phrase.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_WORD = re.compile("[0-9a-z\x80-\U0010ffff]+")
_ACCENT = re.compile("[\u0300-\u036f]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def words(text: str) -> list[str]:
    """Return the words of a text in their order.

    >>> words("lr_decay=Cosine/2")
    ['lr', 'decay', 'cosine', '2']
    >>> words("Größe 姿态")
    ['grosse', '姿', '态']
    """
    return _WORD.findall(spread(text))


def spread(text: str) -> str:
    """Return a text that falls into its words where ASCII signs and spaces part them."""
    if text.isascii():
        return text.replace("\0", " ").lower()
    plain = _ACCENT.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return "".join(map(_placed, unicodedata.normalize("NFC", plain).casefold()))


@lru_cache(maxsize=10_000)
def _placed(character: str) -> str:
    """Return a character of a word as it is, one that is a word of its own between spaces, any other as a space."""
    if character.isascii():
        return " " if character == "\0" else character
    category = unicodedata.category(character)
    if category == "So" or _UNSPACED.match(character):
        return f" {character} "
    return character if category[0] in "LNM" or category == "Co" else " "
