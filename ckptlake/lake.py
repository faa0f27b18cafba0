"""A lake: the one thing a user opens. It puts the packages together and decides nothing itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any

from ckptlake._internal import exits
from ckptlake._internal.names import check_experiment
from ckptlake.config import Capture, Settings
from ckptlake.errors import ReadOnlyLakeError
from ckptlake.reading import Reading
from ckptlake.tables.layout import Layout, check_root, create_lake, read_identity

if TYPE_CHECKING:
    from polars import DataFrame

    from ckptlake.catalog import Checkpoints
    from ckptlake.checkpoints.loading import LoadedCheckpoint
    from ckptlake.checkpoints.session import CheckpointSession
    from ckptlake.checkpoints.store import CheckpointStore
    from ckptlake.experiment import Experiment
    from ckptlake.runs.recovery import Recovery
    from ckptlake.runs.run import Run
    from ckptlake.runs.starting import KnownRun
    from ckptlake.runs.writer import Writer
    from ckptlake.tables.store import TableStore
    from ckptlake.tables.table import Table

ENVIRONMENT_VARIABLE = "CKPTLAKE_DIR"


def open(path: str | os.PathLike[str] | None = None, *, create: bool = True, settings: Settings | None = None) -> Lake:
    """Open the lake at `path`, creating it where the directory is new or empty; the same as `Lake(path)`.

    >>> import ckptlake, tempfile
    >>> lake = ckptlake.open(tempfile.mkdtemp())
    >>> lake.sql("select count(*) from runs").fetchall()
    [(0,)]
    """
    return Lake(path, create=create, settings=settings)


class Lake(Reading):
    """An opened lake. Reading needs no permission to write and starts no thread; logging does both.

    Close it, or use it as a context manager, to commit what is still pending.

    Args:
        path: the lake's directory; default the environment variable ``CKPTLAKE_DIR``, else ``./lake``.
        create: whether to create a lake where there is none.
        settings: how it is written and looked after.

    Raises:
        InvalidInputError: the path holds a backslash, a control character, or a percent-encoded one.
        NotALakeError: the directory holds something else, or no lake and `create` is false.
        LakeFormatError: the lake was written by a newer ckptlake.
        ReadOnlyLakeError: a new lake's directory cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, create: bool = True, settings: Settings | None = None
    ) -> None:
        root = check_root(path if path is not None else os.environ.get(ENVIRONMENT_VARIABLE) or "lake")
        identity = create_lake(root) if create else read_identity(root)
        self.path = root
        self.id = identity.lake_id
        self.created_at = identity.created_at
        self.settings = settings or Settings()
        self._layout = Layout(root)
        self._stores: dict[str, TableStore] = {}
        self._writer: Writer | None = None
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"Lake({str(self.path)!r})"

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._close(error)

    # -- logging

    def run(
        self,
        experiment: str | None = None,
        name: str | None = None,
        params: Any = None,
        tags: Mapping[str, object] | Iterable[str] | str | None = None,
        *,
        run_id: str | None = None,
        parent: str | Run | None = None,
        resume: str | Run | None = None,
        fork_from: tuple[str | Run, int] | None = None,
        capture: Capture | None = None,
        allow_change: bool = False,
    ) -> Run:
        """Start a run.

        Args:
            experiment: the group it belongs to; ``/`` makes levels, as in ``pose/vit/ablation``.
            name: what people call it; default its id.
            params: a dict (nested is fine), a dataclass or an `argparse.Namespace`.
            tags: a dict, or names alone.
            run_id: an id of your own. Processes that give the same id while the run is open log to it
                together, as the ranks of one training do.
            parent: the run under which this one is nested.
            resume: a run to continue. After an end it counts as another attempt; beside a process that has
                it open this one joins it.
            fork_from: the run and step from which this one continues; its points are not copied.
            capture: what to record of the surroundings; default everything.
            allow_change: whether a resumed run's params may differ from before.

        Raises:
            InvalidInputError: a name, param or tag that cannot be kept; the message names it.
            RequirementError: the experiment requires something that the run does not give.
            ParamChangedError: a resumed run has a param with another value.
            RunNotFoundError: `parent`, `resume` or `fork_from` names no run.
            RunExistsError: `run_id` belongs to a run that has ended.
            ReadOnlyLakeError: the lake's directory cannot be written.
        """
        from ckptlake.runs.checkpointing import CheckpointAccess
        from ckptlake.runs.run import Run as OpenRun
        from ckptlake.runs.starting import RunRequest, plan_start
        from ckptlake.runs.typed import typed_params, typed_tags

        request = RunRequest(
            experiment=experiment,
            name=name,
            run_id=run_id,
            parent=parent,
            resume=resume,
            fork_from=fork_from,
            params=typed_params(params or {}),
            tags=typed_tags(tags or {}),
            capture=capture or Capture(),
            allow_change=allow_change,
        )
        writer = self._get_writer()
        if request.refers_to_runs:
            writer.recover()
            writer.flush()
        start = plan_start(request, self, lambda of: self.experiment(of).requirement())
        return OpenRun(writer, start, self.path, CheckpointAccess(self._begin_session, self._load_checkpoint))

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """All checkpoints of the lake: find, open, load, name, verify, prune them."""
        from ckptlake.catalog import Checkpoints

        ask, query = self.sql, lambda: self._query("checkpoints")
        return Checkpoints(self._checkpoint_store, ask, self._get_writer, query)

    @cached_property
    def _checkpoint_store(self) -> CheckpointStore:
        from ckptlake.checkpoints.store import CheckpointStore

        return CheckpointStore(self._layout, self.id)

    def _load_checkpoint(self, *which: Any, **how: Any) -> LoadedCheckpoint:
        return self.checkpoints.load(*which, **how)

    def _begin_session(self, run_id: str, experiment: str, attempt: int, is_new: bool) -> CheckpointSession:
        from ckptlake.catalog.upkeep import SaveUpkeep
        from ckptlake.checkpoints.session import CheckpointSession, RunIdentity
        from ckptlake.query.checkpoint_facts import newest_id

        def find_newest() -> str | None:
            return None if is_new else newest_id(self.sql, run_id)

        identity, writer = RunIdentity(run_id, experiment, attempt), self._get_writer()
        upkeep = SaveUpkeep(self.checkpoints, run_id, writer, compresses=self.settings.compress_checkpoints)
        max_bytes = self.settings.max_staging_bytes
        return CheckpointSession(self._checkpoint_store, identity, writer, find_newest, max_bytes, upkeep)

    def experiment(self, name: str) -> Experiment:
        """Return a handle on an experiment, to describe it or to require params and metrics of its runs."""
        from ckptlake.experiment import Experiment as Handle

        return Handle(check_experiment(name), self._store("experiments"))

    def recover(self) -> Recovery:
        """Commit what processes that died have left, and mark their open runs killed.

        Any process that logs does this by itself; call it to have it done now.

        Raises:
            StorageError: the disk refused; the segments stay for the next try.
        """
        return self._get_writer().recover()

    def flush(self) -> None:
        """Return once everything this process has logged is on the disk."""
        if self._writer is not None:
            self._writer.flush()

    def commit(self) -> None:
        """Bring everything this process has logged to the Delta tables now."""
        if self._writer is not None:
            self._writer.commit()

    def close(self) -> None:
        """Finish the runs this lake has open, commit, and stop its threads; it can be used again.

        Raises:
            StorageError: the disk refused; what was flushed is committed by the next process.
        """
        self._close(None)

    def _close(self, error: BaseException | None) -> None:
        with self._lock:
            writer, self._writer = self._writer, None
            exits.forget(self)
        if writer is not None:
            from ckptlake.runs.ending import end_open_runs

            try:
                end_open_runs(writer, error)
            finally:
                writer.close()

    def delete_runs(self, *run_ids: str) -> int:
        """Delete runs with all their rows and return how many rows that were.

        Snapshots from before keep them until a vacuum.

        Raises:
            RunNotFoundError: there is no such run.
            InvalidInputError: one is still running, or has rows on their way.
        """
        from ckptlake.runs.deleting import delete_runs

        self.recover()
        self.commit()
        return delete_runs(run_ids, self._all_stores(), self.find_run, self._reader.uncommitted_runs)

    # -- reading

    def table(self, name: str) -> Table:
        """Return one Delta table, to see its history and files or to look after it.

        Raises:
            TableNotFoundError: there is no table of this name.
        """
        from ckptlake.tables.table import Table as View

        return View(self._store(name))

    def tables(self) -> list[Table]:
        """Return all tables of the lake."""
        from ckptlake.tables.schemas import TABLES

        return [self.table(name) for name in TABLES]

    def find_run(self, run_id: str) -> KnownRun | None:
        """Return what is known of a run, or None."""
        from ckptlake.query.facts import find_run
        from ckptlake.runs.starting import KnownRun

        facts = find_run(self.sql, run_id)
        return None if facts is None else KnownRun.of(facts.row, facts.params, facts.last_steps)

    def diff(self, a: str | int, b: str | int) -> DataFrame:
        """Compare two checkpoints tensor by tensor; see `lake.checkpoints.diff`."""
        return self.checkpoints.diff(a, b)

    # -- parts

    def _store(self, name: str) -> TableStore:
        from ckptlake.tables.schemas import get_spec
        from ckptlake.tables.store import TableStore

        with self._lock:
            if name not in self._stores:
                layout, spec = self._layout, get_spec(name)
                self._stores[name] = TableStore(layout.table(name), spec, self.settings, layout.kept_files(name))
            return self._stores[name]

    def _all_stores(self) -> dict[str, TableStore]:
        from ckptlake.tables.schemas import TABLES

        return {name: self._store(name) for name in TABLES}

    def _get_writer(self) -> Writer:
        from ckptlake.runs.writer import Writer

        with self._lock:
            if self._writer is None:
                if not os.access(self.path, os.W_OK):
                    raise ReadOnlyLakeError(
                        f"the lake at {self.path} cannot be written by this process: reading works, to log mend the "
                        "directory's permissions or open another lake"
                    )
                self._writer = Writer(self._layout, self.id, self._all_stores(), self.settings)
                exits.close_at_exit(self, self._close)
            return self._writer
