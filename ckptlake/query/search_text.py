"""What a user searches runs for, read from one line of text.

::

    vit ablat* "cosine decay" -diverged     words that a run's texts have, a word's beginning, a phrase, a word not
    tag:baseline  tag:fold=3                a tag that is set, a tag with a value
    status:finished  name:vit*  id:… host:… what the run's row says; a star takes any ending
    experiment:pose/vit                     an experiment and all below it
    lr:<1e-3  model.depth:12  lr:1e-4..1e-2 a param by its key; `param.name:…` where the key is a field's name
    best.val/loss:<0.1  last.val/loss:>=1   a metric's best value by its declared direction, or its last
    started:>2026-01-01                     a day or a moment of UTC
    -tag:baseline                           any of them turned round

All conditions hold together. Text in double quotes is taken as it is, a quote in it is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from ckptlake.errors import InvalidInputError
from ckptlake.query.search_values import Condition, Operator, Place, read_text, read_time, read_value
from ckptlake.query.search_words import words

STATUSES = ("running", "finished", "failed", "killed")
_ITEM = re.compile(
    r"""(?P<sign>-?+)
        (?: (?P<field>"(?:[^"]|"")*+"|[^\s":]*+) : (?P<value>[^\s"]*+"(?:[^"]|"")*+"\S*+|\S*+)
          | (?P<phrase>"(?:[^"]|"")*+")(?P<star>\*?+)
          | (?P<word>[^\s"]\S*) )
        (?=\s|$)""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")


class Field(Enum):
    """What of a run a filter looks at; `TAG`, `PARAM`, `BEST` and `LAST` look at one key of it."""

    TAG = "tag"
    STATUS = "status"
    EXPERIMENT = "experiment"
    NAME = "name"
    ID = "id"
    HOST = "host"
    PARAM = "param"
    BEST = "best"
    LAST = "last"
    STARTED = "started"


_TEXT_FIELDS = {field.value: field for field in (Field.STATUS, Field.NAME, Field.ID, Field.HOST)}
_KEYED = {"param": Field.PARAM, "best": Field.BEST, "last": Field.LAST}


@dataclass(frozen=True, slots=True)
class Term:
    """A word or phrase that the texts of a run have.

    Attributes:
        text: as it was written, without quotes.
        is_prefix: whether its last word may go on.
        is_excluded: whether no text of the run may have it.
    """

    text: str
    is_prefix: bool = False
    is_excluded: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on a field of a run.

    Attributes:
        field: what it looks at.
        key: the tag, param or metric, or empty; with `KEY_PREFIX` how the tag's name begins.
        condition: what must hold of the value.
        is_negated: whether it must not hold.
        source: the condition as it was written.
    """

    field: Field
    key: str
    condition: Condition
    is_negated: bool
    source: str


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for: all terms and all filters hold together."""

    terms: tuple[Term, ...] = ()
    filters: tuple[Filter, ...] = ()


def parse_search(text: str) -> Search:
    """Return what a text searches for.

    Raises:
        InvalidInputError: a part of it cannot be read; the message names the part, its place and what to write.

    >>> search = parse_search('vit "cosine decay" -diverged lr:<1e-3')
    >>> [term.text for term in search.terms]
    ['vit', 'cosine decay', 'diverged']
    >>> search.filters[0].key, search.filters[0].condition.operator.value, search.filters[0].condition.values
    ('lr', '<', (0.001,))
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"a search is text such as 'vit lr:<1e-3', got {type(text).__name__} {text!r:.60}")
    _check_characters(text)
    terms: list[Term] = []
    filters: list[Filter] = []
    for item in _items(text):
        place = Place(item.group(), item.start())
        if item["field"] is not None:
            filters.append(_filter(item, place))
        else:
            terms.append(_term(item, place))
    return Search(tuple(terms), tuple(filters))


def _check_characters(text: str) -> None:
    for at, character in enumerate(text):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            what = "a NUL character" if character == "\0" else "a lone surrogate"
            raise Place(character, at).error(f"{what} is in no text of a lake: leave it out")


def _items(text: str) -> Iterator[re.Match[str]]:
    at = _after_space(text, 0)
    while at < len(text):
        item = _ITEM.match(text, at)
        if item is None:
            raise _unreadable(text, at)
        yield item
        at = _after_space(text, item.end())


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at


def _unreadable(text: str, at: int) -> InvalidInputError:
    rest = text[at:]
    if re.match(r"-(?:\s|$)", rest):
        return Place("-", at).error("nothing follows the '-': write the word to leave out right after it")
    if rest.count('"') % 2:
        opened = at + rest.rfind('"')
        return Place(text[opened:], opened).error("the quote is never closed: add a '\"', or quote the quote by two")
    return Place(rest, at).error("after a closing quote comes a space, ':' or '*': put a space there")


def _term(item: re.Match[str], place: Place) -> Term:
    if item["phrase"] is not None:
        text, is_prefix = _unquoted(item["phrase"]), bool(item["star"])
    else:
        text = item["word"].rstrip("*")
        is_prefix = text != item["word"]
    if not words(text):
        raise place.error("there is no letter or digit to look for: leave it out, or add some")
    return Term(text, is_prefix, bool(item["sign"]))


def _filter(item: re.Match[str], place: Place) -> Filter:
    name, value = item["field"], item["value"]
    is_quoted = name.startswith('"')
    field, key = _field(_unquoted(name) if is_quoted else name, place)
    if not value:
        raise place.error(
            f"there is no value after the ':': write one, as in {name}:x, {name}:* for any, or quote the whole to "
            "look for it as text"
        )
    if field is Field.TAG:
        key, condition = _tag(value, place)
    elif field is Field.STARTED:
        condition = read_time(value, place)
    elif field in _KEYED.values():
        condition = read_value(value, place)
        if field is not Field.PARAM:
            _check_number(condition, place)
    else:
        condition = _text_condition(field, value, place)
    return Filter(field, key, condition, bool(item["sign"]), place.text)


def _field(name: str, place: Place) -> tuple[Field, str]:
    if not name:
        raise place.error("there is no field before the ':': write one, such as tag:baseline, or quote the text")
    if name in _TEXT_FIELDS:
        return _TEXT_FIELDS[name], ""
    if name in {"tag", "experiment", "started"}:
        return Field(name), ""
    first, dot, key = name.partition(".")
    if dot and first in _KEYED:
        if not key:
            raise place.error(f"there is no name after {first!r} and its dot: write one, such as {first}.loss")
        return _KEYED[first], key
    return Field.PARAM, name


def _tag(value: str, place: Place) -> tuple[str, Condition]:
    if value.startswith('"'):
        condition = read_text(value, place)
        key = str(condition.values[0])
        return key, Condition(Operator.KEY_PREFIX if condition.operator is Operator.PREFIX else Operator.EXISTS)
    key, equals, rest = value.partition("=")
    if not key:
        raise place.error("there is no tag's name before the '=': write it, as in tag:fold=3")
    if equals:
        if not rest:
            raise place.error(f"there is no value after the '=': write one, or tag:{key} for any value")
        return key, read_value(rest, place)
    if key.endswith("*"):
        return key.rstrip("*"), Condition(Operator.KEY_PREFIX)
    if '"' in key:
        raise place.error('a quote begins within the tag\'s name: quote the whole name, as in tag:"two words"')
    return key, Condition(Operator.EXISTS)


def _text_condition(field: Field, value: str, place: Place) -> Condition:
    condition = read_text(value, place)
    if field is Field.EXPERIMENT and condition.operator is Operator.EQUAL:
        name = str(condition.values[0]).rstrip("/")
        if not name:
            raise place.error("there is no experiment's name: write one, as in experiment:pose/vit")
        return Condition(Operator.SUBTREE, (name,))
    if field is Field.STATUS and condition.operator is not Operator.EXISTS:
        status = str(condition.values[0]).lower()
        known = [name for name in STATUSES if name.startswith(status)]
        if not known or (condition.operator is Operator.EQUAL and status not in STATUSES):
            raise place.error(f"no run has the status {status!r:.60}: write one of {', '.join(STATUSES)}")
        return Condition(condition.operator, (status,))
    return condition


def _check_number(condition: Condition, place: Place) -> None:
    if any(isinstance(value, str | datetime) for value in condition.values):
        raise place.error("a metric is compared with numbers: write one, as in best.val/loss:<0.1")


def _unquoted(quoted: str) -> str:
    return quoted[1:-1].replace('""', '"')
