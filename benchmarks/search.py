"""Searching the texts of very many runs, and keeping their index up to date."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa

import ckptlake
from benchmarks.harness import Context, Row, Target, interleave
from ckptlake import Capture, Lake
from ckptlake.query.search import Searcher
from ckptlake.tables.schemas import get_spec
from ckptlake.tables.store import Batch

_PARAMS = ("lr", "model.depth", "model.width", "optim.name", "batch_size", "seed", "warmup_steps", "weight_decay")
_TAGS = ("baseline", "fold", "owner")
_RARE, _BROAD = "quagga", "ablation"
_SHARE_OF_RARE = 100
_START_US = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    count = context.scaled(100_000, 500)
    lake = ckptlake.open(context.scratch / "lake")
    _fill(lake, count)
    searcher = Searcher(lake._reader, lake.path / "cache" / "search.sqlite")
    begun = time.perf_counter()
    expected = searcher.ranks(_RARE)[1]
    build_ms = (time.perf_counter() - begun) * 1e3
    assert expected is not None
    assert len(expected) == count // _SHARE_OF_RARE
    searches: dict[str, Callable[[], object]] = {
        "rare": lambda: searcher.ranks(_RARE),
        "several": lambda: searcher.ranks(f'vit {_RARE} "weight decay" owner* -diverged'),
        "broad": lambda: searcher.ranks(_BROAD),
        "scan": lambda: _scan(lake, _RARE, count),
    }
    timings = interleave(context.scaled(15, 2), **searches)
    noted_ms, quiet_ms, update_cpu_ms = _noted(context, lake, searcher)
    lake.close()
    size_mb = (lake.path / "cache" / "search.sqlite").stat().st_size / 1e6
    details = {"runs": count, "index_mb": size_mb}
    against = "ms: all rows scanned by Polars, str.contains"
    rows = [
        Row(
            what=what.format(count=f"{count:,}"),
            figure=timings[name].wall_ms,
            unit="ms",
            reference=timings["scan"].wall_ms,
            against=against,
            target=target,
            details={**timings[name].details(), **details},
        )
        for name, what, target in (
            ("rare", "search of one word in {count} runs, one in a hundred has it", Target("at most", 50)),
            ("several", "search of words, a phrase, a prefix and an exclusion", Target("at most", 50)),
            ("broad", "search of a word that half of the runs have", None),
        )
    ]
    return [
        *rows,
        Row(
            what=f"a run noted beside {count:,}: search that finds it, less the next",
            figure=statistics.median(noted - quiet for noted, quiet in zip(noted_ms, quiet_ms, strict=True)),
            unit="ms",
            reference=build_ms,
            against="ms: the index made anew",
            target=Target("at most", 5),
            details={
                "repeats": len(noted_ms),
                "noted_ms": statistics.median(noted_ms),
                "cpu_ms": update_cpu_ms,
                **details,
            },
        ),
        Row(
            what=f"index of {count:,} runs made anew, a run",
            figure=build_ms / count,
            unit="ms",
            reference=timings["scan"].wall_ms / count,
            against="ms: one scan by Polars, a run",
            target=Target("at most", 5),
            details=details,
        ),
    ]


def _noted(context: Context, lake: Lake, searcher: Searcher) -> tuple[list[float], list[float], float]:
    """Return the milliseconds of searches right after a live run was noted, of the same without news, and the CPU's."""
    noted_ms, quiet_ms, cpu_ms = [], [], []
    with lake.run("pose/live", run_id="live", capture=Capture.nothing()) as live:
        for turn in range(context.scaled(40, 3)):
            live.note(f"{_RARE} seen, turn{turn}")
            lake.flush()
            for spent in (noted_ms, quiet_ms):
                cpu_begun, begun = time.process_time(), time.perf_counter()
                found = searcher.ranks(_RARE)[1]
                spent.append((time.perf_counter() - begun) * 1e3)
                cpu_ms.append((time.process_time() - cpu_begun) * 1e3)
            assert found is not None
            assert any(run_id == "live" for run_id, _ in found)
            assert searcher.ranks(f"turn{turn}")[1]
    update_cpu_ms = statistics.median(noted - quiet for noted, quiet in zip(cpu_ms[::2], cpu_ms[1::2], strict=True))
    return noted_ms, quiet_ms, update_cpu_ms


def _scan(lake: Lake, word: str, count: int) -> pl.DataFrame:
    """Return the runs that have a word in any text, found by reading all of them."""
    rows = lake._reader.read(frozenset({"runs", "params", "tags"})).rows
    texts = {
        "runs": ("name", "experiment", "note", "command", "host"),
        "params": ("key", "text"),
        "tags": ("key", "text"),
    }
    found = [
        pl.DataFrame(pl.from_arrow(rows[name].select(["run_id", *columns])))
        .filter(pl.any_horizontal(pl.col(column).str.contains(f"(?i)\\b{word}\\b") for column in columns))
        .select("run_id")
        for name, columns in texts.items()
    ]
    hits = pl.concat(found).unique()
    assert len(hits) >= count // _SHARE_OF_RARE
    return hits


def _fill(lake: Lake, count: int) -> None:
    """Put runs with three rows, eight params, three tags and a note of a dozen words each into a lake."""
    chance = np.random.default_rng(0)
    ids = [f"20260101-{number:06}-run" for number in range(count)]
    vocabulary = np.array([f"{first}{last}" for first in _SYLLABLES for last in _SYLLABLES])
    words = vocabulary[np.minimum(chance.zipf(1.3, (count, 12)) - 1, len(vocabulary) - 1)]
    notes = [" ".join(row) for row in words]
    for number in range(0, count, _SHARE_OF_RARE):
        notes[number] += f" {_RARE} weight decay"
    for number in range(0, count, 2):
        notes[number] += f" {_BROAD}"
    _append(lake, "runs", _run_rows(ids, notes))
    for table, keys in (("params", _PARAMS), ("tags", _TAGS)):
        texts = chance.choice(vocabulary, count * len(keys)).tolist()
        rows = {
            "run_id": [run_id for run_id in ids for _ in keys],
            "key": list(keys) * count,
            "kind": ["str"] * len(texts),
            "text": texts,
        }
        _append(lake, table, rows)


def _run_rows(ids: list[str], notes: list[str]) -> dict[str, list[object]]:
    rows: dict[str, list[object]] = {"run_id": [], "event": [], "status": [], "name": [], "experiment": []}
    rows |= {"command": [], "host": [], "note": []}
    for number, (run_id, note) in enumerate(zip(ids, notes, strict=True)):
        kind = ("vit", "resnet", "convnext")[number % 3]
        named = (f"{kind}-b16-{number}", f"pose/{kind}/{number % 40}", f"train.py --model {kind} --seed {number}")
        for event, status, (name, experiment, command), text in (
            ("started", "running", named, None),
            ("noted", None, (None, None, None), note),
            ("ended", "finished", (None, None, None), None),
        ):
            host = f"node{number % 16:02}" if command else None
            values = (run_id, event, status, name, experiment, command, host, text)
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
    return rows


def _append(lake: Lake, table: str, columns: dict[str, list[object]] | dict[str, list[str]]) -> None:
    schema = get_spec(table).schema
    size = len(columns["run_id"])
    known = {**columns, "attempt": np.ones(size, np.int32), "ts": np.arange(size) + _START_US}
    arrays = [
        pa.array(known[field.name], field.type) if field.name in known else pa.nulls(size, field.type)
        for field in schema
    ]
    lake._store(table).append([Batch("benchmark", 1, pa.Table.from_arrays(arrays, schema=schema))])


_SYLLABLES = tuple(first + vowel for first in "bdfgklmnprst" for vowel in ("a", "e", "i", "o"))
