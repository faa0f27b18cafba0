"""Appends offered to whoever holds a table's lock, so that waiting writers share one commit.

An offer names staged files and, for each writer, the frame its table had reached when they were staged. It
fits only while the table still stands there; so one that was committed, or whose rows arrived otherwise, can
never be committed again, whoever finds it later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ckptlake._internal.ids import new_id
from ckptlake.tables.delta import DataFile
from ckptlake.tables.parquet import STAGING

_MOST_AT_ONCE = 64
_SUFFIX = ".offer.json"


@dataclass(frozen=True, slots=True)
class Offer:
    """Staged files to append.

    Attributes:
        files: what to add.
        reached: for each writer the last frame in the table when the files were staged, or -1.
        last: for each writer the last frame in the files.
    """

    files: tuple[DataFile, ...]
    reached: Mapping[str, int]
    last: Mapping[str, int]


def post(offer: Offer, root: Path) -> Path:
    """Make an offer visible to the holder of the lock and return its place.

    It is not synced: an offer lost in a crash is made again from the write-ahead segment.
    """
    place = root / STAGING / f"{new_id()}{_SUFFIX}"
    partial = place.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(offer)))
    partial.rename(place)
    return place


def read_offers(root: Path) -> dict[Path, Offer]:
    """Return the oldest offers that can be read; broken ones are left for a vacuum."""
    offers: dict[Path, Offer] = {}
    for place in sorted((root / STAGING).glob(f"*{_SUFFIX}"))[:_MOST_AT_ONCE]:
        offer = _read(place)
        if offer is not None and all(_is_inside(file.path) for file in offer.files):
            offers[place] = offer
    return offers


def _read(place: Path) -> Offer | None:
    try:
        fields: dict[str, Any] = json.loads(place.read_bytes())
        files = tuple(DataFile(**file) for file in fields["files"])
        return Offer(files, dict(fields["reached"]), dict(fields["last"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _is_inside(path: str) -> bool:
    parts = Path(path).parts
    return not Path(path).is_absolute() and ".." not in parts and path.endswith(".parquet")
