"""A run: what a training loop holds while it logs."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ckptlake._internal.names import check_name, check_text, flatten
from ckptlake.errors import CkptlakeError, InvalidInputError, RequirementError, RunClosedError
from ckptlake.runs.bulk import read_points
from ckptlake.runs.checkpointing import CheckpointAccess, Checkpointing
from ckptlake.runs.ending import is_success, storable_traceback
from ckptlake.runs.frames import Keyset, Stream
from ckptlake.runs.observer import Observer
from ckptlake.runs.scalars import as_scalar, as_scalars, as_step
from ckptlake.runs.starting import RunStart
from ckptlake.runs.typed import TypedValue, check_unchanged, typed_params, typed_tags
from ckptlake.runs.writer import Writer
from ckptlake.types import Direction, RunStatus

_STEP_MIN, _STEP_MAX = -(2**63), 2**63 - 1
_started: weakref.WeakSet[Run] = weakref.WeakSet()


class Run(Checkpointing):
    """One training run that is being logged; `lake.run(...)` returns it.

    Use it as a context manager: leaving the block finishes the run, and an exception marks it failed and
    keeps the traceback as a note. Any thread may log; so may forked workers and, by joining with the run's
    id, other processes.

    >>> import ckptlake, tempfile
    >>> lake = ckptlake.open(tempfile.mkdtemp())
    >>> with lake.run(experiment="doc", params={"lr": 0.1}) as run:
    ...     for step in range(3):
    ...         run.log({"train/loss": 1.0 / (step + 1)}, step=step)
    >>> lake.sql("select last from summaries where metric = 'train/loss'").fetchall()
    [(0.3333333333333333,)]
    """

    def __init__(self, writer: Writer, start: RunStart, lake_path: Path, access: CheckpointAccess) -> None:
        self.id = start.run_id
        self.experiment = start.experiment
        self.name = start.name
        self.attempt = start.attempt
        self.status = RunStatus.RUNNING
        self._writer = writer
        self._stream = Stream(start.run_id, start.experiment, start.attempt)
        self._keysets: dict[tuple[object, ...], Keyset] = {}
        self._lock = threading.Lock()
        self._next_step = start.first_step
        self._last_us = 0
        self._pid = os.getpid()
        self._closed = False
        self._params: dict[str, TypedValue] = dict(start.params)
        self._metrics: set[str] = set(start.logged_metrics)
        self._requirement = start.requirement
        self._is_leader = start.event != "joined"
        self.is_new = start.event not in ("joined", "resumed")
        self._start_checkpointing(access)
        forked_from = start.forked_from or (None, None)
        self._participant = writer.open_run(self.id, self.attempt, self)
        self._event(
            start.event,
            status=str(RunStatus.RUNNING),
            name=start.name,
            experiment=start.experiment,
            parent_run_id=start.parent_run_id,
            forked_from_run_id=forked_from[0],
            forked_from_step=forked_from[1],
        )
        self._observer = Observer(
            lake_path, start.capture, self._record_environment, self._record_system, writer.settings.system_interval_s
        )
        started_us = start.started_us if start.started_us is not None else self._last_us
        self._started_us = started_us
        self._add_params(start.given_params)
        self._add_tags(start.given_tags)
        self._observer.start(samples=self._is_leader and start.capture.system)
        writer.wake()
        _started.add(self)

    def __repr__(self) -> str:
        return f"Run({self.id!r}, experiment={self.experiment!r}, name={self.name!r}, status={self.status!s})"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """End the run as leaving a `with` block does: finished, or failed where an exception ends it."""
        if self._closed:
            return
        if error is None or is_success(error):
            self.finish()
            return
        try:
            self.fail(error)
        except CkptlakeError as refusal:
            error.add_note(f"and the run could not be ended whole: {refusal}")

    @property
    def params(self) -> Mapping[str, TypedValue]:
        """The run's params so far, flattened, with their types."""
        return MappingProxyType(self._params)

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics at a step; memory only, a few microseconds.

        Args:
            metrics: values by name: int, float, bool, numpy scalar or 0-d torch tensor on any device, which is
                not waited for. Nested dicts are joined by ``/``. NaN and infinities are kept exactly.
            step: any 64-bit integer, in any order; a repeated step keeps both values and shows the newest.
                Without it the run counts, from one past the largest step so far.

        Raises:
            InvalidInputError: a name, value or step that cannot be kept; nothing of the call is recorded.
            RunClosedError: the run has ended.
            StorageError: the disk has refused writes since the last call. What this call logs is kept in
                memory and tried again every second; only when memory holds as much as it may is it refused.
            UnreadableTensorError: a device failed while a tensor logged before was read; that point is lost.
        """
        if self._closed:
            raise self._closed_error()
        values: tuple[Any, ...]
        is_first = False
        keyset = self._keysets.get(tuple(metrics)) if type(metrics) is dict else None
        if keyset is not None:
            values = tuple(metrics.values())
            for value in values:
                if type(value) is not float:
                    ready = as_scalars(keyset, values)
                    is_first = ready is None
                    keyset, values = (keyset, ready) if ready is not None else self._checked(metrics)
                    break
        else:
            keyset, values = self._checked(metrics)
            is_first = True
        if step is not None and (type(step) is not int or not _STEP_MIN <= step <= _STEP_MAX):
            step = as_step(step)
        writer = self._writer
        if len(writer.calls) > writer.settings.max_pending_calls:
            writer.throttle()
        with self._lock:
            now_us = writer.clock.now_us()
            if now_us <= self._last_us:
                now_us = self._last_us + 1
            self._last_us = now_us
            if step is None:
                step = self._counted(1)
            if step >= self._next_step:
                self._next_step = step + 1
            writer.calls.append((self._stream, keyset, step, now_us, values))
            self._recent.append((step, keyset, values))
        if is_first:
            self._metrics.update(keyset)
        if not writer.running:
            writer.ensure_started()
        if writer.alarm:
            writer.raise_alarm()

    def _checked(self, metrics: Mapping[str, Any]) -> tuple[Keyset, tuple[Any, ...]]:
        if not isinstance(metrics, Mapping):
            raise InvalidInputError(
                f"log takes a dict of metrics by name, got {type(metrics).__name__} {metrics!r:.80}"
            )
        flat = flatten(metrics, "/", "metric")
        keyset = tuple(flat)
        values = tuple(as_scalar(name, value) for name, value in flat.items())
        if keyset == tuple(metrics):
            keyset = self._keysets.setdefault(keyset, keyset)
        return keyset, values

    def _counted(self, rows: int) -> int:
        """Return the step to count from, if that many more fit into 64 bits."""
        if self._next_step + rows - 1 > _STEP_MAX:
            raise InvalidInputError(f"the run has reached step {_STEP_MAX}, the largest there is: give step=")
        return self._next_step

    def log_frame(self, frame: Any, *, step: str = "step", ts: str = "ts") -> None:
        """Record many points at once.

        Args:
            frame: a Polars, Arrow or pandas frame or a dict of arrays, wide (a column a metric; null means not
                logged, NaN is a value) or long (columns ``metric`` and ``value``).
            step: the column of steps; without one the run counts rows.
            ts: the column of UTC timestamps; without one the points get the time of the call.

        Raises:
            InvalidInputError: a column that cannot be kept exactly; nothing of the frame is recorded.
            RunClosedError: the run has ended.
            StorageError: the disk has refused writes since the last call.
        """
        if self._closed:
            raise self._closed_error()
        points = read_points(frame, step, ts)
        with self._lock:
            steps = points.step
            if steps is None:
                steps = self._counted(points.num_rows) + points.row
                self._next_step += points.num_rows
            elif len(steps):
                self._next_step = max(self._next_step, int(steps.max()) + 1)
            times = points.ts_us
            if times is None:
                first_us = max(self._writer.clock.now_us(), self._last_us + 1)
                times = np.full(len(steps), first_us)
                if points.repeats_steps(steps):
                    times += points.row
                self._last_us = first_us + points.num_rows
            self._metrics |= points.metrics
        for block in points.blocks(self._stream, steps, times):
            self._writer.add_block(block)
        if self._writer.alarm:
            self._writer.raise_alarm()

    def log_params(self, params: Any, *, allow_change: bool = False) -> None:
        """Record params; nested dicts are joined by dots, types are kept.

        Args:
            params: a dict, dataclass or `argparse.Namespace`.
            allow_change: accept another value for a param that is already there; the newest shows.

        Raises:
            InvalidInputError: a value that cannot be kept; the message names it.
            ParamChangedError: a param is there with another value.
        """
        self._check_open()
        given = typed_params(params)
        if not allow_change:
            check_unchanged(self.id, self._params, given)
        self._add_params(given)

    def _add_params(self, given: Mapping[str, TypedValue]) -> None:
        fresh = {n: v for n, v in given.items() if n not in self._params or not self._params[n].same_as(v)}
        identity = {"run_id": self.id, "attempt": self.attempt, "ts": self._moment()}
        self._writer.add_rows("params", [{**identity, "key": n, **v.columns()} for n, v in fresh.items()])
        self._params.update(fresh)

    def set_tags(self, tags: Mapping[str, object] | Iterable[str] | str) -> None:
        """Set tags, typed; a name alone is a tag that is true.

        Raises:
            InvalidInputError: a value that cannot be kept; the message names it.
        """
        self._check_open()
        self._add_tags(typed_tags(tags))

    def _add_tags(self, given: Mapping[str, TypedValue]) -> None:
        identity = {"run_id": self.id, "attempt": self.attempt, "ts": self._moment(), "removed": False}
        self._writer.add_rows("tags", [{**identity, "key": n, **v.columns()} for n, v in given.items()])

    def remove_tags(self, *names: str) -> None:
        """Remove tags by name; one that is not there is no error."""
        self._check_open()
        identity = {"run_id": self.id, "attempt": self.attempt, "ts": self._moment(), "removed": True}
        self._writer.add_rows("tags", [{**identity, "key": check_name("a tag's name", name)} for name in names])

    def note(self, text: str) -> None:
        """Add a note; all notes are kept, in order."""
        self._check_open()
        self._event("note", note=check_text("the text of a note", text))

    def rename(self, name: str) -> None:
        """Give the run another name."""
        self._check_open()
        self.name = check_name("the run's name", name)
        self._event("renamed", name=name)

    def define(self, metric: str, *, direction: Direction | None = None, step_metric: str | None = None) -> None:
        """Declare which direction of a metric is better and which metric is its x-axis.

        Raises:
            InvalidInputError: the direction is neither ``min`` nor ``max``, or a name is empty.
        """
        self._check_open()
        if direction not in ("min", "max", None):
            raise InvalidInputError(f"direction must be 'min' or 'max', got {direction!r}")
        row = {
            "experiment": self.experiment,
            "run_id": self.id,
            "metric": check_name("a metric's name", metric),
            "ts": self._moment(),
            "direction": direction,
            "step_metric": None if step_metric is None else check_name("a metric's name", step_metric),
        }
        self._writer.add_rows("definitions", [row])

    def flush(self) -> None:
        """Return once everything logged so far is on the disk and survives a crash.

        Raises:
            StorageError: the disk refused; nothing is lost while this process lives.
        """
        self._writer.flush()

    def finish(self, status: RunStatus | str = RunStatus.FINISHED) -> None:
        """End the run and commit its rows to the tables; a second call does nothing.

        Raises:
            InvalidInputError: `status` is no end of a run.
            StorageError: the disk refused; what was flushed is committed by the next process.
            RequirementError: the experiment requires metrics this run never logged; it counts as failed.
        """
        if self._closed:
            return
        if status not in (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED):
            raise InvalidInputError(f"a run ends as 'finished', 'failed' or 'killed', not {status!r:.60}")
        status = RunStatus(status)
        missing = self._missing_metrics() if status == RunStatus.FINISHED else []
        if missing:
            status = RunStatus.FAILED
            self.note(f"required metrics were never logged: {', '.join(missing)}")
        self._close(status)
        if missing:
            raise RequirementError(
                f"experiment {self.experiment!r} requires the metrics {', '.join(missing)}, which run {self.id} "
                "never logged; it is marked failed"
            )

    def fail(self, error: BaseException) -> None:
        """End the run as failed and keep the traceback of `error` as a note."""
        if self._closed:
            return
        self.note(storable_traceback(error))
        self._close(RunStatus.FAILED)

    def _missing_metrics(self) -> list[str]:
        if self._requirement is None or not self._is_leader or os.getpid() != self._pid:
            return []
        return self._requirement.missing_metrics(self._metrics)

    def _close(self, status: RunStatus) -> None:
        if os.getpid() != self._pid:
            self._closed = True
            self._writer.flush()
            return
        self._close_session()
        self._observer.stop()
        self._event(str(status), status=str(status))
        self._writer.close_run(self.id, self.attempt, self._participant)
        self._closed = True
        self.status = status
        self._writer.commit()
        if self._writer.alarm:
            self._writer.raise_alarm()

    def _event(self, event: str, **columns: object) -> None:
        identity = {
            "run_id": self.id,
            "attempt": self.attempt,
            "writer": self._participant,
            "ts": self._moment(),
            "event": event,
        }
        self._writer.add_rows("runs", [{**identity, **columns}])

    def _record_environment(self, columns: dict[str, object]) -> None:
        self._event("environment", **columns)

    def _record_system(self, values: dict[str, float]) -> None:
        now_us = self._writer.clock.now_us()
        keyset = tuple(values)
        step = max(0, (now_us - self._started_us) // 1_000_000)
        self._writer.calls.append((self._stream, keyset, step, now_us, tuple(values.values())))

    def _moment(self) -> datetime:
        with self._lock:
            self._last_us = max(self._writer.clock.now_us(), self._last_us + 1)
            return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self._last_us)

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> RunClosedError:
        return RunClosedError(
            f"run {self.id} has ended ({self.status!s}); continue it with lake.run(resume={self.id!r})"
        )


def _renew_locks() -> None:
    for run in tuple(_started):
        run._lock = threading.Lock()
        run._forget_session()


os.register_at_fork(after_in_child=_renew_locks)
