"""Whatever happens to a lake, a cached answer is the answer of a lake that keeps none."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from quiet_lakes import quiet

import ckptlake
from ckptlake import Run
from ckptlake.config import Capture

QUERIES = {
    "SELECT run_id, metric, step, value, attempt FROM metrics ORDER BY ALL": {},
    "SELECT step, value FROM metrics WHERE run_id = $run AND metric = $m ORDER BY ALL": {"run": "r0", "m": "loss"},
    "SELECT count(*), sum(step) FROM metrics_raw": {},
    "FROM summaries ORDER BY ALL": {},
    "SELECT run_id, status, attempt, notes FROM runs ORDER BY ALL": {},
    "SELECT run_id, key, value FROM params UNION ALL SELECT run_id, key, value FROM tags ORDER BY ALL": {},
    "SELECT * EXCLUDE (started_at) FROM runs_wide ORDER BY run_id": {},
    "SELECT experiment, runs, running FROM experiments ORDER BY ALL": {},
    "FROM checkpoints ORDER BY checkpoint_id": {},
    "SELECT checkpoint_id, event, count(*) FROM checkpoint_events GROUP BY ALL ORDER BY ALL": {},
    "SELECT checkpoint_id, path, l2_norm, codec FROM tensors ORDER BY ALL": {},
    "SELECT checkpoint_id, level, verdict FROM verifications ORDER BY ALL": {},
}
ON_DISK_ALONE = {"result_cache_bytes": 1, "result_cache_on_disk": True, "result_cache_disk_bytes": 300_000}
"""With no room in memory for any answer."""


class CachedLake(RuleBasedStateMachine):
    """Two writers, and readers that keep answers: in memory, in hardly any memory, on disk, and not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="cached lake "))
        self.writers = [ckptlake.open(self.root, settings=quiet(flush_interval_s=3600)) for _ in range(2)]
        self.plain = ckptlake.open(self.root, settings=quiet(result_cache_bytes=0))
        self.readers = {
            "memory": ckptlake.open(self.root, settings=quiet()),
            "little": ckptlake.open(self.root, settings=quiet(result_cache_bytes=120_000)),
            "disk": ckptlake.open(self.root, settings=quiet(**ON_DISK_ALONE)),
            "disk of another": ckptlake.open(self.root, settings=quiet(**ON_DISK_ALONE)),
        }
        self.runs: list[tuple[int, Run]] = []
        self.ended: list[str] = []
        self.versions: list[int] = []
        self.count = 0

    def teardown(self) -> None:
        for lake in (*self.writers, self.plain, *self.readers.values()):
            lake.close()
        shutil.rmtree(self.root)

    @initialize()
    def first(self) -> None:
        self.start(0)

    @rule(number=st.integers(0, 1))
    @precondition(lambda self: self.count < 5)
    def start(self, number: int) -> None:
        run_id, self.count = f"r{self.count}", self.count + 1
        params = {"lr": self.count / 10}
        run = self.writers[number].run("e/f", run_id=run_id, params=params, capture=Capture.nothing())
        self.runs.append((number, run))

    @rule(data=st.data(), step=st.integers(0, 5), value=st.floats())
    @precondition(lambda self: self.runs)
    def log(self, data: st.DataObject, step: int, value: float) -> None:
        _, run = data.draw(st.sampled_from(self.runs))
        run.log({data.draw(st.sampled_from(["loss", "acc"])): value}, step=step)

    @rule(data=st.data())
    @precondition(lambda self: self.runs)
    def tag(self, data: st.DataObject) -> None:
        _, run = data.draw(st.sampled_from(self.runs))
        run.set_tags({"kind": data.draw(st.sampled_from(["a", "b"]))})

    @rule(data=st.data(), step=st.integers(0, 5))
    @precondition(lambda self: self.runs)
    def save(self, data: st.DataObject, step: int) -> None:
        _, run = data.draw(st.sampled_from(self.runs))
        run.save_checkpoint({"w": np.arange(4.0) + step}, step=step)

    @rule(number=st.integers(0, 1))
    def flush(self, number: int) -> None:
        self.writers[number].flush()

    @rule(number=st.integers(0, 1))
    def commit(self, number: int) -> None:
        self.writers[number].commit()
        if (version := self.plain.table("metrics").version()) >= 0:
            self.versions.append(version)

    @rule(data=st.data())
    @precondition(lambda self: self.runs)
    def finish(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.runs) - 1))
        _, run = self.runs.pop(at)
        run.finish()
        self.ended.append(run.id)

    @rule(data=st.data(), number=st.integers(0, 1))
    @precondition(lambda self: self.ended)
    def delete(self, data: st.DataObject, number: int) -> None:
        run_id = data.draw(st.sampled_from(self.ended))
        self.ended.remove(run_id)
        self.writers[number].delete_runs(run_id)

    @rule()
    def compact(self) -> None:
        for table in self.plain.tables():
            table.compact()

    @rule()
    def vacuum(self) -> None:
        for table in self.plain.tables():
            table.vacuum(dry_run=False, retention_hours=0)
        self.versions.clear()

    @rule(level=st.sampled_from(["size", "digest"]))
    def verify(self, level: str) -> None:
        self.writers[0].checkpoints.verify_all(level=level)

    @rule()
    def clear(self) -> None:
        self.readers["memory"].cache.clear()

    @rule(data=st.data())
    @precondition(lambda self: self.versions)
    def read_the_past(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(self.versions))
        for query in ("SELECT count(*), sum(step) FROM metrics_raw", "FROM summaries ORDER BY ALL"):
            expected = repr(self.plain.sql(query, as_of=version).fetchall())
            for _ in range(2):
                assert repr(self.readers["memory"].sql(query, as_of=version).fetchall()) == expected

    @invariant()
    def answers_are_those_of_a_lake_without_a_cache(self) -> None:
        for query, values in QUERIES.items():
            expected = repr(self.plain.sql(query, **values).fetchall())
            for name, lake in (*self.readers.items(), ("memory", self.readers["memory"])):
                assert repr(lake.sql(query, **values).fetchall()) == expected, (name, query)
        info = self.readers["memory"].cache.info()
        assert info.hits >= len(QUERIES), "what was asked twice is answered once"
        assert self.readers["disk"].cache.info().entries == 0
        assert self.readers["disk of another"].cache.info().disk_bytes <= 300_000
        assert self.readers["little"].cache.info().size_bytes <= 120_000


def test_any_order_of_events_leaves_cached_answers_right() -> None:
    steady = settings(
        max_examples=5, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(CachedLake, settings=steady)
