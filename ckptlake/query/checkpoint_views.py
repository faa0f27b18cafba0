"""The SQL of the view of checkpoints: their events folded to one row a checkpoint."""

from __future__ import annotations

SETTLED, RECENT, RECENT_RUNS = "checkpoints_settled", "checkpoints_recent", "checkpoints_recent_runs"
"""The folds of which the view of checkpoints is made, and the runs of which only the second counts."""

_EVENTS = (
    "saved",
    "sealed",
    "compacted",
    "trimmed",
    "unpinned",
    "pinned",
    "unaliased",
    "aliased",
    "released",
    "quarantined",
    "deleted",
)
"""Every event; of those of one microsecond the later one in this list counts as later."""

_PLACE = f"epoch_us(ts)::HUGEINT * 16 + list_position({list(_EVENTS)}, event)"
_TELLING = ("sealed", "compacted", "trimmed")
_TOLD_LATER = {
    "digest": _TELLING,
    "logical_bytes": _TELLING,
    "stored_bytes": _TELLING,
    "num_tensors": _TELLING,
    "packs": ("sealed", "trimmed"),  # of a compaction they are those that the new pack is a difference to
}


def checkpoints(*, has_settled: bool) -> str:
    """Return a query for one row a checkpoint."""
    recent = f"SELECT * FROM {RECENT}"
    if not has_settled:
        return recent
    return f"SELECT * FROM {SETTLED} ANTI JOIN {RECENT_RUNS} USING (run_id) UNION ALL {recent}"


def fold(events: str, verifications: str) -> str:
    """Return a query for one row a checkpoint from the rows of `checkpoints` and `verifications`.

    The newest row `saved` of a checkpoint counts, and a row `deleted` ends it for good. What later events tell
    takes the place of what it says; an alias belongs to the checkpoint of its run that was given it last.
    """
    told = ", ".join(
        f"arg_max({name}, place) FILTER (event IN {telling}) AS {name}, "
        f"max(place) FILTER (event IN {telling} AND {name} IS NOT NULL) AS {name}_place"
        for name, telling in _TOLD_LATER.items()
    )
    columns = {
        name: f"CASE WHEN saved.{name} IS NULL OR {name}_place > saved.place "
        f"THEN coalesce(told.{name}, saved.{name}) ELSE saved.{name} END AS {name}"
        for name in _TOLD_LATER
    }
    return f"""
        WITH events AS (SELECT *, {_PLACE} AS place FROM {events}),
        saved AS (
            SELECT * FROM events WHERE event = 'saved'
            QUALIFY row_number() OVER (
                PARTITION BY run_id, checkpoint_id ORDER BY place DESC, attempt DESC, location, digest
            ) = 1
        ),
        told AS (
            SELECT run_id, checkpoint_id, {told},
                arg_max(event, place) FILTER (event IN ('pinned', 'unpinned')) = 'pinned' AS pinned,
                arg_max(event, place) FILTER (event IN ('quarantined', 'released')) = 'quarantined' AS quarantined,
                bool_or(event = 'deleted') AS deleted
            FROM events WHERE event <> 'saved' GROUP BY run_id, checkpoint_id
        ),
        given AS (
            SELECT run_id, alias, checkpoint_id, max(place) FILTER (event = 'aliased') AS place,
                max(place) FILTER (event = 'unaliased') AS taken_place
            FROM events WHERE event IN ('aliased', 'unaliased') GROUP BY run_id, alias, checkpoint_id
        ),
        named AS (
            SELECT run_id, checkpoint_id, list(alias ORDER BY alias) AS aliases FROM (
                SELECT * FROM given WHERE place IS NOT NULL
                QUALIFY row_number() OVER (PARTITION BY run_id, alias ORDER BY place DESC, checkpoint_id DESC) = 1
            ) WHERE coalesce(taken_place < place, true) GROUP BY run_id, checkpoint_id
        ),
        verified AS (
            SELECT * FROM {verifications}
            QUALIFY row_number() OVER (PARTITION BY run_id, checkpoint_id ORDER BY ts DESC, level, verdict) = 1
        )
        SELECT checkpoint_id, run_id, saved.experiment, attempt, saved.step, epoch, saved.ts AS saved_at, format,
            CASE WHEN quarantined THEN 'quarantined' ELSE 'good' END AS status, {columns["digest"]},
            {columns["logical_bytes"]}, {columns["stored_bytes"]}, {columns["num_tensors"]}, metrics,
            coalesce(aliases, []) AS aliases, coalesce(pinned, false) AS pinned, note, saved.duration_s, location,
            {columns["packs"]}, verified.ts AS verified_at, level AS verified_level, verdict
        FROM saved LEFT JOIN told USING (run_id, checkpoint_id) LEFT JOIN named USING (run_id, checkpoint_id)
            LEFT JOIN verified USING (run_id, checkpoint_id)
        WHERE NOT coalesce(deleted, false)"""
