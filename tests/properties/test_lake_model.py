"""Any order of logging, committing, dying, compacting, deleting and resuming leaves what a plain model says."""

from __future__ import annotations

import math
import shutil
import struct
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, Run, RunNotFoundError, Settings
from ckptlake.runs.writer import Writer

BY_HAND = Settings(flush_interval_s=3600, commit_interval_s=3600)
METRICS = ("loss", "val/loss", "ü✈ it's")
EXPERIMENTS = ("default", "pose/vit", "a=b %2F")
Key = tuple[str, str, int]
Place = tuple[str, str, int, int, bytes]


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


values = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 5e-324, -2.2e-308, 1.7976931348623157e308]),
)
steps = st.one_of(st.integers(-4, 8), st.integers(-(2**63), 2**63 - 1))
calls = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(METRICS), values, min_size=1), st.one_of(st.none(), steps)),
    min_size=1,
    max_size=6,
)


@dataclass
class ModelRun:
    """A run as the model knows it; `pending` is logged and not acknowledged."""

    run_id: str
    experiment: str
    attempt: int = 1
    status: str = "running"
    known: bool = False
    next_step: int = 0
    acknowledged: list[tuple[str, int, int, float]] = field(default_factory=list)
    pending: list[tuple[str, int, int, float]] = field(default_factory=list)
    committed: int = 0
    next_status: str | None = None

    def newest(self) -> dict[tuple[str, int], float]:
        found: dict[tuple[str, int], tuple[int, float]] = {}
        for metric, step, attempt, value in self.acknowledged:
            if (metric, step) not in found or attempt >= found[metric, step][0]:
                found[metric, step] = (attempt, value)
        return {key: value for key, (_, value) in found.items()}


class Process:
    """One writer: a lake opened on its own, and the runs it has open."""

    def __init__(self, root: Path) -> None:
        self.lake: Lake = ckptlake.open(root, settings=BY_HAND)
        self.runs: dict[str, Run] = {}

    def die(self) -> None:
        """Forget all memory and give up the locks of files, as SIGKILL would."""
        writer = self.lake._writer
        if writer is not None:
            writer.calls.clear()
            writer._rows.clear()
            writer._blocks.clear()
            writer._closing.set()
            writer._journal.abandon()
            writer.running = False
        for run in self.runs.values():
            run._closed = True


class LakeModel(RuleBasedStateMachine):
    """Two writers that die and come back, a reader that lives through all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="lake model "))
        self.processes = [Process(self.root), Process(self.root)]
        self.reader = ckptlake.open(self.root, settings=BY_HAND)
        self.runs: dict[str, ModelRun] = {}
        self.owner: dict[str, int | None] = {}
        self.snapshots: list[tuple[int, datetime, Counter[Place]]] = []
        self.count = 0

    def teardown(self) -> None:
        for process in self.processes:
            process.lake.close()
        self.reader.close()
        shutil.rmtree(self.root)

    # -- what the model knows

    def _owned(self, number: int) -> list[ModelRun]:
        return [self.runs[run_id] for run_id, owner in self.owner.items() if owner == number]

    def _acknowledge(self, number: int) -> None:
        for run in self._owned(number):
            run.known = True
            run.acknowledged += run.pending
            run.pending = []

    def _commit(self, number: int) -> None:
        self._acknowledge(number)
        for run in self._owned(number):
            run.committed = len(run.acknowledged)
            run.status = run.next_status or run.status
        self._release_ended(number)

    def _release_ended(self, number: int) -> None:
        for run in self._owned(number):
            if run.status != "running":
                self.owner[run.run_id] = None
                self.processes[number].runs.pop(run.run_id, None)

    def _recover(self) -> None:
        for run_id, run in self.runs.items():
            if self.owner[run_id] is None:
                run.committed = len(run.acknowledged)
                if run.status == "running":
                    run.status = "killed"

    def _places(self, *, committed: bool = False) -> Counter[Place]:
        return Counter(
            (run.run_id, metric, step, attempt, bits(value))
            for run in self.runs.values()
            for metric, step, attempt, value in run.acknowledged[: run.committed if committed else None]
        )

    def _remember(self) -> None:
        time.sleep(0.002)
        version = self.reader.table("metrics").version()
        if version >= 0:
            self.snapshots.append((version, datetime.now(UTC), self._places(committed=True)))
        time.sleep(0.002)

    def _pick(self, data: st.DataObject, number: int) -> tuple[Run, ModelRun]:
        # Runs are drawn in the order they were begun: that of their ids is another each time an example is run again.
        run_id = data.draw(st.sampled_from(list(self.processes[number].runs)), label="run")
        return self.processes[number].runs[run_id], self.runs[run_id]

    # -- what can happen

    @initialize(experiment=st.sampled_from(EXPERIMENTS))
    def first_run(self, experiment: str) -> None:
        self.start(0, experiment)

    @rule(number=st.integers(0, 1), experiment=st.sampled_from(EXPERIMENTS))
    @precondition(lambda self: self.count < 6)
    def start(self, number: int, experiment: str) -> None:
        run = self.processes[number].lake.run(experiment, capture=Capture.nothing())
        self.count += 1
        self.processes[number].runs[run.id] = run
        self.runs[run.id] = ModelRun(run.id, experiment)
        self.owner[run.id] = number

    @rule(number=st.integers(0, 1), logged=calls, data=st.data())
    def log(self, number: int, logged: list[tuple[dict[str, float], int | None]], data: st.DataObject) -> None:
        if not self.processes[number].runs:
            return
        run, model = self._pick(data, number)
        for metrics, step in logged:
            if step is None and model.next_step > 2**63 - 1:
                with pytest.raises(InvalidInputError):
                    run.log(metrics)
                continue
            run.log(metrics, step=step)
            at = model.next_step if step is None else step
            model.next_step = max(model.next_step, at + 1)
            model.pending += [(name, at, model.attempt, value) for name, value in metrics.items()]

    @rule(
        number=st.integers(0, 1),
        rows=st.lists(st.tuples(steps, values, st.one_of(st.none(), values)), min_size=1, max_size=8),
        kind=st.sampled_from(["polars", "arrow", "dict", "long"]),
        data=st.data(),
    )
    def log_frame(
        self,
        number: int,
        rows: list[tuple[int, float, float | None]],
        kind: str,
        data: st.DataObject,
    ) -> None:
        if not self.processes[number].runs:
            return
        run, model = self._pick(data, number)
        step, first, second = (list(column) for column in zip(*rows, strict=True))
        if kind == "dict":
            second = [0.5 if value is None else value for value in second]
        points = [(name, at, value) for at, *pair in zip(step, first, second, strict=True)
                  for name, value in zip(METRICS, pair, strict=False) if value is not None]  # fmt: skip
        columns = {"step": pa.array(step, pa.int64()), METRICS[0]: pa.array(first, pa.float64()),
                   METRICS[1]: pa.array(second, pa.float64())}  # fmt: skip
        if kind == "long":
            points = [(name, at, value) for at, name, value in zip(step * 2, [METRICS[0]] * len(step)
                      + [METRICS[1]] * len(step), first + second, strict=True) if value is not None]  # fmt: skip
            names = pa.array([METRICS[0]] * len(step) + [METRICS[1]] * len(step))
            long = pa.array(first + second, pa.float64())
            run.log_frame(pa.table({"step": pa.array(step * 2, pa.int64()), "metric": names, "value": long}))
        elif kind == "polars":
            run.log_frame(pl.DataFrame({name: pl.from_arrow(column) for name, column in columns.items()}))
        elif kind == "arrow":
            run.log_frame(pa.table(columns))
        else:
            run.log_frame({name: column.to_numpy() for name, column in columns.items()})
        model.next_step = max(model.next_step, max(step) + 1)
        model.pending += [(name, at, model.attempt, value) for name, at, value in points]

    @rule(number=st.integers(0, 1))
    def flush(self, number: int) -> None:
        self.processes[number].lake.flush()
        self._acknowledge(number)

    @rule(number=st.integers(0, 1))
    def commit(self, number: int) -> None:
        self.processes[number].lake.commit()
        self._commit(number)
        self._remember()

    @rule(number=st.integers(0, 1), status=st.sampled_from(["finished", "failed"]), data=st.data())
    def finish(self, number: int, status: str, data: st.DataObject) -> None:
        if not self.processes[number].runs:
            return
        run, model = self._pick(data, number)
        run.finish(status)
        model.next_status = status
        self._commit(number)
        self._remember()

    @rule(number=st.integers(0, 1))
    def kill(self, number: int) -> None:
        self.processes[number].die()
        for run in self._owned(number):
            run.pending = []
            self.owner[run.run_id] = None
            if not run.known:
                del self.runs[run.run_id], self.owner[run.run_id]
        self.processes[number] = Process(self.root)

    @rule(number=st.integers(0, 1))
    def recover(self, number: int) -> None:
        self.processes[number].lake.recover()
        self._recover()
        self._remember()

    @rule(everywhere=st.booleans())
    def compact(self, everywhere: bool) -> None:
        for table in self.reader.tables() if everywhere else [self.reader.table("metrics")]:
            table.compact()
        self._remember()

    @rule()
    def vacuum(self) -> None:
        for table in self.reader.tables():
            table.vacuum(dry_run=False, retention_hours=0)
        self.snapshots.clear()
        self._remember()

    @rule(number=st.integers(0, 1), data=st.data())
    @precondition(lambda self: self.runs)
    def delete(self, number: int, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(list(self.runs)), label="run")
        lake, model = self.processes[number].lake, self.runs[run_id]
        owner = self.owner[run_id]
        if owner == number or (owner is not None and model.known):
            with pytest.raises(InvalidInputError, match="running"):
                lake.delete_runs(run_id)
        elif owner is not None:
            with pytest.raises(RunNotFoundError):
                lake.delete_runs(run_id)
        else:
            lake.delete_runs(run_id)
            del self.runs[run_id], self.owner[run_id]
        self._recover()
        self._commit(number)
        self._remember()

    @rule(number=st.integers(0, 1), data=st.data())
    @precondition(lambda self: any(owner is None for owner in self.owner.values()))
    def resume(self, number: int, data: st.DataObject) -> None:
        ended = [run_id for run_id, owner in self.owner.items() if owner is None]
        run_id = data.draw(st.sampled_from(ended), label="run")
        run = self.processes[number].lake.run(resume=run_id, capture=Capture.nothing())
        self._recover()
        model = self.runs[run_id]
        assert run.attempt == model.attempt + 1
        model.attempt, model.next_status = run.attempt, None
        model.next_step = max((step for _, step, _, _ in model.acknowledged), default=-1) + 1
        # The event that makes it run again is acknowledged with the next flush.
        self.processes[number].lake.flush()
        model.status = "running"
        self.processes[number].runs[run_id] = run
        self.owner[run_id] = number
        self._acknowledge(number)

    @rule(data=st.data(), by_time=st.booleans())
    @precondition(lambda self: self.snapshots)
    def read_the_past(self, data: st.DataObject, by_time: bool) -> None:
        version, moment, expected = data.draw(st.sampled_from(self.snapshots), label="snapshot")
        as_of = moment if by_time else version
        assert self._read("metrics_raw", as_of) == expected
        rows = self.reader.sql("SELECT run_id, metric, n FROM summaries", as_of=as_of).fetchall()
        counts = {(run_id, metric): n for run_id, metric, n in rows}
        distinct = {(run_id, metric, step) for run_id, metric, step, _, _ in expected}
        assert counts == Counter((run_id, metric) for run_id, metric, _ in distinct)

    # -- what holds after every step

    def _read(self, view: str, as_of: datetime | int | None = None) -> Counter[Place]:
        table = self.reader.sql(f"SELECT run_id, metric, step, attempt, value FROM {view}", as_of=as_of)
        columns = table.to_arrow_table()
        raw = columns.column("value").to_numpy().tobytes()
        keys = (columns.column(name).to_pylist() for name in ("run_id", "metric", "step", "attempt"))
        return Counter(
            (*key, raw[8 * index : 8 * index + 8]) for index, key in enumerate(zip(*keys, strict=True))
        )  # fmt: skip

    @invariant()
    def every_acknowledged_point_is_there_once(self) -> None:
        assert self._read("metrics_raw") == self._places()

    @invariant()
    def the_newest_of_each_step_shows(self) -> None:
        expected: Counter[tuple[object, ...]] = Counter()
        for run in self.runs.values():
            expected.update((run.run_id, metric, step, bits(v)) for (metric, step), v in run.newest().items())
        found = Counter((run, metric, step, value) for run, metric, step, _, value in self._read("metrics").elements())
        assert found == expected

    @invariant()
    def summaries_agree_with_numpy(self) -> None:
        rows = self.reader.sql("SELECT * FROM summaries").to_arrow_table().to_pylist()
        found = {(row["run_id"], row["metric"]): row for row in rows}
        assert len(found) == len(rows), "a curve has two summaries"
        curves: dict[tuple[str, str], dict[int, float]] = {}
        for run in self.runs.values():
            for (metric, step), value in run.newest().items():
                curves.setdefault((run.run_id, metric), {})[step] = value
        assert found.keys() == curves.keys()
        for key, curve in curves.items():
            _check_summary(found[key], curve, self.runs[key[0]].experiment)

    @invariant()
    def statuses_are_right(self) -> None:
        found = dict(self.reader.sql("SELECT run_id, status FROM runs").fetchall())
        assert found == {run.run_id: run.status for run in self.runs.values() if run.known}


def _check_summary(row: dict[str, object], curve: dict[int, float], experiment: str) -> None:
    step = np.array(sorted(curve), dtype=np.int64)
    value = np.array([curve[int(at)] for at in step])
    nan = np.isnan(value)
    assert row["experiment"] == experiment
    assert (row["n"], row["n_nan"], row["n_inf"]) == (len(value), nan.sum(), np.isinf(value).sum())
    assert (row["first_step"], row["last_step"]) == (step[0], step[-1])
    assert (bits(row["first"]), bits(row["last"])) == (bits(value[0]), bits(value[-1]))  # type: ignore[arg-type]
    known, known_step = value[~nan], step[~nan]
    if not len(known):
        assert (row["min"], row["min_step"], row["max"], row["max_step"]) == (None, None, None, None)
        return
    assert (row["min"], row["min_step"]) == (known.min(), known_step[np.flatnonzero(known == known.min())[0]])
    assert (row["max"], row["max_step"]) == (known.max(), known_step[np.flatnonzero(known == known.max())[0]])


@pytest.fixture(autouse=True)
def threads_that_only_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens but what the rules do."""
    monkeypatch.setattr(Writer, "_flush_forever", lambda self: self._closing.wait() and None)
    monkeypatch.setattr(Writer, "_commit_forever", lambda self: self._closing.wait() and None)


EVERYTHING_OK = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


def _explore(examples: int, length: int, *, phases: tuple[Phase, ...]) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=length,
        deadline=None,
        suppress_health_check=EVERYTHING_OK,
        database=None,
        phases=phases,
    )
    run_state_machine_as_test(LakeModel, settings=profile)


@pytest.mark.timeout(600)
def test_lake_agrees_with_its_model() -> None:
    _explore(30, 20, phases=(Phase.generate,))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_lake_agrees_with_its_model_for_long() -> None:
    _explore(400, 50, phases=(Phase.generate, Phase.shrink))
