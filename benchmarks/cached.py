"""The same question asked again: an answer that was kept, against the same lake keeping none."""

from __future__ import annotations

import ckptlake
from benchmarks.data import Shape, facts_of, points_lake
from benchmarks.harness import Context, Row, Target, Timing, interleave

LEADERS = """
SELECT r.name, s.min AS best, s.min_step, s.last FROM summaries s JOIN runs r USING (run_id)
WHERE s.metric = $metric ORDER BY best LIMIT 20
"""
CURVE = "SELECT step, value FROM metrics WHERE run_id = $run AND metric = $metric ORDER BY step"
METRIC = "train/loss"


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    shape = Shape(context.scaled(1000, 20), context.scaled(1000, 50), context.scaled(10_000, 100))
    path = points_lake(context, shape)
    points = facts_of(path)["points"]
    with (
        ckptlake.open(path) as kept,
        ckptlake.open(path, settings=ckptlake.Settings(result_cache_bytes=0)) as plain,
    ):
        name = f"run-{shape.long_seed}"
        ((run_id,),) = plain.sql("SELECT run_id FROM runs WHERE name = $name LIMIT 1", name=name).fetchall()
        questions: dict[str, tuple[str, dict[str, object]]] = {
            f"leaderboard of {shape.runs + 1} runs": (LEADERS, {"metric": METRIC}),
            f"curve of {shape.long_steps:,} points of {points:,}": (CURVE, {"run": run_id, "metric": METRIC}),
        }
        rows = []
        for what, (query, values) in questions.items():
            expected = plain.sql(query, **values).to_arrow_table()
            assert kept.sql(query, **values).to_arrow_table().equals(expected)
            timings = interleave(
                context.scaled(60, 2),
                kept=lambda query=query, values=values: kept.sql(query, **values).to_arrow_table(),
                plain=lambda query=query, values=values: plain.sql(query, **values).to_arrow_table(),
            )
            rows.append(_row(f"{what}, asked again", timings["kept"], timings["plain"], points))
        found = kept.cache.info()
        assert found.hits >= 2 * context.scaled(60, 2)
        rows.append(_first_time(context, kept, plain, points))
    return rows


def _row(what: str, kept: Timing, plain: Timing, points: int) -> Row:
    return Row(
        what=what,
        figure=kept.wall_ms,
        unit="ms",
        reference=plain.wall_ms,
        against="ms: the same with the cache switched off",
        target=Target("at most", 0.5, of="ratio"),
        details={**kept.details(), "plain": plain.details(), "points": points},
    )


def _first_time(context: Context, kept: ckptlake.Lake, plain: ckptlake.Lake, points: int) -> Row:
    """Return what keeping costs: questions that differ each time, so that each is a miss."""
    numbers = {"kept": 0, "plain": 0}
    query = f"{LEADERS} OFFSET $skipped"

    def ask(lake: ckptlake.Lake, name: str) -> object:
        numbers[name] += 1
        return lake.sql(query, metric=METRIC, skipped=numbers[name] % 100_000).to_arrow_table()

    timings = interleave(context.scaled(60, 2), kept=lambda: ask(kept, "kept"), plain=lambda: ask(plain, "plain"))
    return Row(
        what="leaderboard asked for the first time: what keeping it costs",
        figure=timings["kept"].wall_ms,
        unit="ms",
        reference=timings["plain"].wall_ms,
        against="ms: the same with the cache switched off",
        target=Target("at most", 1.1, of="ratio"),
        details={**timings["kept"].details(), "plain": timings["plain"].details(), "points": points},
    )
