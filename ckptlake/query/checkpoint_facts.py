"""Questions about checkpoints that the rest of the package asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ckptlake.checkpoints.marks import Holding, Marks, owner_of
from ckptlake.types import Direction

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

Ask = Callable[..., "DuckDBPyRelation"]
Row = Mapping[str, Any]
_NEWEST_FIRST = "ORDER BY saved_at DESC, checkpoint_id DESC"


def checkpoints(ask: Ask, *, run_id: str | None = None, experiment: str | None = None) -> list[Row]:
    """Return the rows of `checkpoints`, oldest first, of one run, of an experiment with those below, or all."""
    where, values = _scope(run_id, experiment)
    return _rows(ask(f"SELECT * FROM checkpoints WHERE {where} ORDER BY saved_at, checkpoint_id", **values))


def newest(ask: Ask, *, run_id: str | None = None, status: str | None = None) -> list[Row]:
    """Return the rows of `checkpoints` of a run or of all, newest first; with `status` only those."""
    where, values = _scope(run_id, None)
    if status is not None:
        where, values = f"{where} AND status = $status", {**values, "status": status}
    return _rows(ask(f"SELECT * FROM checkpoints WHERE {where} {_NEWEST_FIRST}", **values))


def newest_id(ask: Ask, run_id: str) -> str | None:
    """Return the id of a run's newest good checkpoint, or None."""
    query = f"SELECT checkpoint_id FROM checkpoints WHERE run_id = $run_id AND status = 'good' {_NEWEST_FIRST} LIMIT 1"
    found = ask(query, run_id=run_id).fetchall()
    return found[0][0] if found else None


def with_id(ask: Ask, checkpoint_id: str) -> list[Row]:
    """Return the row of the checkpoint of this id, if there is one."""
    return _rows(ask("SELECT * FROM checkpoints WHERE checkpoint_id = $id", id=checkpoint_id))


def owner_of_sound(ask: Ask, checkpoint_id: str) -> tuple[str, str] | None:
    """Return run and experiment of a checkpoint whose digests are known and against which nothing is known, or None.

    The view of checkpoints would be folded anew for this after every event.
    """
    query = """
        SELECT run_id, experiment FROM checkpoint_events WHERE checkpoint_id = $id GROUP BY run_id, experiment
        HAVING bool_or(event = 'saved') AND bool_and(event NOT IN ('deleted', 'quarantined'))
            AND bool_or(digest IS NOT NULL)"""
    found = ask(query, id=checkpoint_id).fetchall()
    return found[0] if len(found) == 1 else None


def with_alias(ask: Ask, alias: str, *, run_id: str | None = None) -> list[Row]:
    """Return the rows of the checkpoints that have an alias, newest first."""
    where, values = _scope(run_id, None)
    query = f"SELECT * FROM checkpoints WHERE {where} AND list_contains(aliases, $alias) {_NEWEST_FIRST}"
    return _rows(ask(query, alias=alias, **values))


def at_step(ask: Ask, step: int, *, run_id: str | None = None) -> list[Row]:
    """Return the rows of the checkpoints of a step, newest first."""
    where, values = _scope(run_id, None)
    return _rows(ask(f"SELECT * FROM checkpoints WHERE {where} AND step = $step {_NEWEST_FIRST}", step=step, **values))


def best(
    ask: Ask, metric: str, direction: Direction, *, run_id: str | None = None, experiment: str | None = None
) -> list[Row]:
    """Return the row of the good checkpoint with the best value of a metric; NaN never is it."""
    where, values = _scope(run_id, experiment)
    order = {"min": "ASC", "max": "DESC"}[direction]
    query = f"""
        SELECT * FROM checkpoints
        WHERE {where} AND status = 'good' AND NOT isnan(metrics[$metric])
        ORDER BY metrics[$metric] {order}, saved_at DESC, checkpoint_id DESC LIMIT 1"""
    return _rows(ask(query, metric=metric, **values))


def directions(ask: Ask) -> dict[tuple[str, str], Direction]:
    """Return the declared direction of each metric of each experiment."""
    rows = ask("SELECT experiment, metric, direction FROM definitions WHERE direction IS NOT NULL").fetchall()
    return {(experiment, metric): direction for experiment, metric, direction in rows}


def recorded_metrics(ask: Ask, *, run_id: str | None = None, experiment: str | None = None) -> list[str]:
    """Return the names of the metrics that checkpoints were saved with."""
    where, values = _scope(run_id, experiment)
    query = f"SELECT DISTINCT unnest(map_keys(metrics)) AS name FROM checkpoints WHERE {where} ORDER BY name"
    return [name for (name,) in ask(query, **values).fetchall()]


def tensors(ask: Ask, checkpoint_id: str, run_id: str, experiment: str) -> list[Row]:
    """Return the rows of `tensors` of one checkpoint, in order of path."""
    query = """
        SELECT * FROM tensors WHERE experiment = $experiment AND run_id = $run_id AND checkpoint_id = $id
        ORDER BY path"""
    return _rows(ask(query, experiment=experiment, run_id=run_id, id=checkpoint_id))


def marks(ask: Ask, *, pack: str | None = None) -> Marks:
    """Return what checkpoints and compressed packs refer to, or of that what concerns one pack.

    That are those that refer to it or of which it is not known, its own checkpoint, and its own recoding.
    """
    about, of_recodings, values = "", "", {}
    if pack is not None:
        about = "WHERE (NOT is_deleted AND (packs IS NULL OR list_contains(packs, $pack))) OR checkpoint_id = $owner"
        of_recodings = "WHERE pack = $pack OR list_contains(bases, $pack)"
        values = {"pack": pack}
    held = ask(
        f"""
        WITH held AS (
            SELECT checkpoint_id, any_value(run_id) AS run_id, any_value(experiment) AS experiment,
                max(attempt) AS attempt, bool_or(event = 'deleted') AS is_deleted,
                bool_or(event = 'trimmed') AS is_trimmed,
                arg_max(packs, (event <> 'saved', ts)) FILTER (packs IS NOT NULL AND event <> 'compacted') AS packs,
                arg_max(digest, ts) FILTER (digest IS NOT NULL) AS digest,
                epoch_us(coalesce(min(ts) FILTER (event = 'saved'), min(ts))) AS saved_us,
                epoch_us(max(ts)) AS changed_us
            FROM checkpoint_events GROUP BY checkpoint_id
        )
        SELECT * FROM held {about}""",
        **values,
        **({"owner": owner_of(pack)} if pack is not None else {}),
    )
    recoded = ask(
        f"""
        WITH recoded AS (
            SELECT location AS pack, arg_max(coalesce(packs, []), ts) AS bases
            FROM checkpoint_events WHERE event = 'compacted' GROUP BY location
        )
        SELECT * FROM recoded {of_recodings}""",
        **values,
    )
    columns = held.to_arrow_table().to_pydict()
    columns["packs"] = [None if packs is None else tuple(packs) for packs in columns["packs"]]
    holdings = {found[0]: Holding(*found) for found in zip(*columns.values(), strict=True)}
    found = zip(*recoded.to_arrow_table().to_pydict().values(), strict=True)
    return Marks(holdings, {name: tuple(bases) for name, bases in found})


def checkpoints_of_runs(ask: Ask, run_ids: Sequence[str]) -> list[Row]:
    """Return the rows of `checkpoints` of several runs, oldest first."""
    query = "SELECT * FROM checkpoints WHERE list_contains($run_ids, run_id) ORDER BY saved_at, checkpoint_id"
    return _rows(ask(query, run_ids=list(run_ids)))


def runs_with_checkpoints(ask: Ask, *, run_id: str | None = None, experiment: str | None = None) -> list[str]:
    """Return the ids of the runs that have saved checkpoints, be they there or deleted, the oldest first."""
    where, values = _scope(run_id, experiment)
    query = f"SELECT run_id FROM checkpoint_events WHERE {where} GROUP BY run_id ORDER BY min(ts), run_id"
    return [name for (name,) in ask(query, **values).fetchall()]


def fork_ancestor(ask: Ask, run_id: str) -> str | None:
    """Return the id of the good checkpoint that a run was forked from: the last at or before that step, or None."""
    query = """
        SELECT checkpoint_id FROM checkpoints JOIN (
            SELECT forked_from_run_id, forked_from_step FROM runs WHERE run_id = $run_id
        ) AS fork ON checkpoints.run_id = forked_from_run_id
        WHERE status = 'good' AND step <= forked_from_step
        ORDER BY step DESC, saved_at DESC, checkpoint_id DESC LIMIT 1"""
    found = ask(query, run_id=run_id).fetchall()
    return found[0][0] if found else None


def _scope(run_id: str | None, experiment: str | None) -> tuple[str, dict[str, str]]:
    conditions, values = ["true"], {}
    if run_id is not None:
        conditions.append("run_id = $run_id")
        values["run_id"] = run_id
    if experiment is not None:
        conditions.append("in_subtree(experiment, $experiment)")
        values["experiment"] = experiment
    return " AND ".join(conditions), values


def _rows(relation: DuckDBPyRelation) -> list[Row]:
    rows: list[Row] = relation.to_arrow_table().to_pylist()
    return rows


def verified_from(ask: Ask, levels: Sequence[str]) -> dict[str, datetime]:
    """Return for each checkpoint before when all of its bytes were last compared at one of these levels.

    A check that found it good as closely as could be told, and says why no closer, counts as well.
    """
    query = """
        SELECT checkpoint_id, max(ts - to_microseconds((duration_s * 1e6)::BIGINT)) FROM verifications
        WHERE list_contains($levels, level) OR (verdict = 'good' AND finding IS NOT NULL) GROUP BY checkpoint_id"""
    return dict(ask(query, levels=list(levels)).fetchall())


def is_over(ask: Ask, run_id: str, attempt: int) -> bool:
    """Tell whether the processes of an attempt at a run have ended; one that no row tells of has."""
    query = "SELECT count(*) FROM runs WHERE run_id = $run_id AND attempt = $attempt AND status = 'running'"
    return ask(query, run_id=run_id, attempt=attempt).fetchall() == [(0,)]


def known_ids(ask: Ask) -> dict[str, bool]:
    """Return every checkpoint that a row tells of, and whether it was deleted."""
    query = "SELECT checkpoint_id, bool_or(event = 'deleted') FROM checkpoint_events GROUP BY checkpoint_id"
    return dict(ask(query).fetchall())


def tensor_digests(ask: Ask, checkpoint_id: str) -> dict[str, str]:
    """Return the digests of a checkpoint's tensors by path, as far as rows tell them."""
    query = "SELECT path, digest FROM tensors WHERE checkpoint_id = $id AND digest IS NOT NULL ORDER BY path"
    return dict(ask(query, id=checkpoint_id).fetchall())
