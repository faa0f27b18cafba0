"""What checkpoints cost: deleting, retention, usage, and all of it in any order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_scenes import (
    NOTHING,
    Crash,
    State,
    Training,
    assert_holds,
    copy_of,
    files_of,
    needed_files,
    quiet_lake,
    save,
    train,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ckptlake import Lake
from ckptlake.checkpoints.budgets import Decision, Quota
from ckptlake.checkpoints.retention import Latest
from ckptlake.checkpoints.trimming import OPTIMIZER_NAMES
from ckptlake.errors import CheckpointNotFoundError, InvalidInputError, StorageError
from ckptlake.runs.writer import Writer


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with quiet_lake(tmp_path / "lake") as opened:
        yield opened


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, dict[str, State]]:
    """A closed lake with three checkpoints that share a tensor, the first two compressed, one more in a plain file."""
    path = tmp_path_factory.mktemp("scene") / "lake"
    with quiet_lake(path) as lake, lake.run(experiment="x", capture=NOTHING) as run:
        training = Training()
        states = train(run, 3, training)
        state = training.next_state()
        states[save(run, state, format="pickle")] = state
        lake.checkpoints.compact(keep_raw=2)
    return lake, states


class TestDelete:
    def test_it_is_not_listed_and_its_files_are_gone(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 2)
            state = Training(3).next_state()
            plain = save(run, state, step=9, format="pickle")
            first, second = states
            before = {name: (lake.path / name).stat().st_size for name in files_of(lake)}
            found = lake.checkpoints.delete(plain, second)
            assert {file.path: file.size_bytes for file in found.files} == {
                name: size for name, size in before.items() if plain in name or second in name
            }
            assert found.deleted
            assert_holds(lake, {first: states[first]})
            assert lake.checkpoints.find(plain) is None
        with quiet_lake(lake.path) as again:
            assert_holds(again, {first: states[first]})

    def test_by_step_and_by_alias(self, lake: Lake) -> None:
        with lake.run(experiment="x", run_id="one", capture=NOTHING) as run:
            states = train(run, 3)
            lake.checkpoints.alias(2, "middle")
            lake.checkpoints.delete(1, "middle", "middle", list(states)[1], run="one")
            assert_holds(lake, {one: states[one] for one in list(states)[2:]})

    @pytest.mark.parametrize("name", ["latest", "best", "best:loss", "latest_good"])
    def test_names_that_move_are_refused(self, lake: Lake, name: str) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 2)
            with pytest.raises(InvalidInputError, match=r"give the id, as in delete\(get\('"):
                lake.checkpoints.delete(next(iter(states)), name)
            assert_holds(lake, states)

    def test_pinned_ones_are_refused_and_nothing_is_deleted(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            first, second, third = states
            lake.checkpoints.pin(second)
            with pytest.raises(InvalidInputError, match=rf"{second} is pinned: .*unpin"):
                lake.checkpoints.delete(first, second)
            with pytest.raises(CheckpointNotFoundError):
                lake.checkpoints.delete(first, "nobody")
            with pytest.raises(InvalidInputError, match="which"):
                lake.checkpoints.delete()
            assert_holds(lake, states)
            lake.checkpoints.unpin(second)
            lake.checkpoints.delete(first, second)
            assert_holds(lake, {third: states[third]})

    def test_the_run_goes_on_saving(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            training = Training()
            (first,) = train(run, 1, training)
            lake.checkpoints.delete(first)
            states = train(run, 2, training)
            assert_holds(lake, states)
            assert files_of(lake) == needed_files(lake)

    def test_a_refused_row_deletes_nothing(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 1)
            before = files_of(lake)

            def refuse(_: Writer) -> None:
                raise StorageError("the disk is full")

            with monkeypatch.context() as patched:
                patched.setattr(Writer, "flush", refuse)
                with pytest.raises(StorageError):
                    lake.checkpoints.delete(*states)
            assert files_of(lake) == before
            lake.flush()
            lake.checkpoints.gc(dry_run=False)
            assert files_of(lake) == set(), "the row reached the disk later"

    def test_a_crash_at_any_step(self, scene: tuple[Lake, dict[str, State]], tmp_path: Path) -> None:
        original, states = scene
        first, second, third, plain = states
        kept = {second: states[second], third: states[third]}
        at, crashed = 0, True
        while crashed:
            at += 1
            with copy_of(original, tmp_path / str(at)) as lake:
                crash = Crash(at)
                with crash.expected(lake):
                    lake.checkpoints.delete(first, plain)
                crashed = crash.came
                lake.checkpoints.gc(dry_run=False)
                assert_holds(lake, states if at == 1 else kept)
                assert files_of(lake) == needed_files(lake), at
        assert at > 4


class TestRetention:
    def test_a_plan_and_its_application(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            run.define("loss", direction="min")
            training = Training()
            losses = [3.0, 1.0, 2.0, 4.0, 5.0, 6.0]
            states = {}
            for loss in losses:
                state = training.next_state()
                states[save(run, state, metrics={"loss": loss})] = state
            ids = list(states)
            lake.checkpoints.pin(ids[2])
            before = files_of(lake)
            plan = lake.checkpoints.plan_retention("latest(2)")
            assert files_of(lake) == before
            assert [decision.checkpoint_id for decision in plan.delete] == [ids[0], ids[3]]
            done = lake.checkpoints.apply(plan)
            assert done.deleted == (ids[0], ids[3])
            assert done.spared == {}
            assert_holds(lake, {one: states[one] for one in (ids[1], ids[2], ids[4], ids[5])})
            assert "deleted 2 and trimmed 0 checkpoints" in done.sentence()

    def test_what_it_frees_is_what_it_said_but_for_headers_and_what_is_still_shared(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            train(run, 4)
            plan = lake.checkpoints.plan_retention(Latest(1))
            assert plan.freed_bytes == 3 * 3 * 20_000
            assert plan.kept_bytes == 4 * 20_000
            done = lake.checkpoints.apply(plan)
            lake.checkpoints.compact(keep_raw=0)
            (usage,) = lake.checkpoints.usage("lake")
            assert usage.stored_bytes < plan.kept_bytes
            assert done.freed_bytes > 2 * 3 * 20_000

    def test_bytes_of_compressed_ones_are_those_in_their_packs(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            ids = list(train(run, 3))
            lake.checkpoints.compact(keep_raw=0)
            plan = lake.checkpoints.plan_retention(Latest(1))
            assert plan.freed_bytes == 0
            assert "stay, as deltas of" in plan.delete[0].reason
            stored = "SELECT sum(stored_bytes)::BIGINT FROM tensors"
            assert lake.sql(stored).fetchall() == [(plan.kept_bytes,)]
            lake.checkpoints.apply(plan)
            (record,) = lake.checkpoints.list()
            assert record.id == ids[-1]
            lake.checkpoints.compact(keep_raw=0)
            assert {Path(name).stem for name in files_of(lake)} == {ids[-1], ids[0]}, (
                "the frozen tensor is in the first"
            )

    def test_only_one_run_or_experiment_is_looked_at(self, lake: Lake) -> None:
        states = {}
        for experiment in ("a", "a/b", "c"):
            with lake.run(experiment=experiment, run_id=experiment[-1], capture=NOTHING) as run:
                states |= train(run, 3)
        plan = lake.checkpoints.plan_retention("latest(1)", run="b")
        assert {decision.run_id for decision in (*plan.keep, *plan.delete)} == {"b"}
        assert plan.freed_bytes == 0, "every tensor is shared with other runs"
        assert plan.kept_bytes == (1 + 3 * 3) * 20_000
        lake.checkpoints.apply(plan)
        del states[plan.delete[0].checkpoint_id], states[plan.delete[1].checkpoint_id]
        assert_holds(lake, states)
        plan = lake.checkpoints.plan_retention("latest(1)", experiment="a")
        assert {decision.run_id for decision in (*plan.keep, *plan.delete)} == {"a", "b"}

    def test_deltas_of_other_runs_hold_their_bases(self, lake: Lake) -> None:
        training = Training()
        with lake.run(experiment="x", run_id="base", capture=NOTHING) as run:
            states = train(run, 2, training)
        first, _ = states
        with lake.run(experiment="y", run_id="tuned", capture=NOTHING) as run:
            states |= train(run, 1, training)
        lake.checkpoints.compact("tuned", base=first, keep_raw=0)
        plan = lake.checkpoints.plan_retention("latest(1)", run="base")
        assert [decision.checkpoint_id for decision in plan.delete] == [first]
        assert "stay, as deltas of" in plan.delete[0].reason
        assert plan.freed_bytes == 0
        lake.checkpoints.apply(plan)
        del states[first]
        assert_holds(lake, states)

    def test_a_quota(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 5)
            plan = lake.checkpoints.plan_retention("latest(5)", quota="150KB")
            assert plan.kept_bytes <= 150_000 < plan.kept_bytes + plan.freed_bytes
            same = lake.checkpoints.plan_retention("latest(5)", quota=Quota(150_000, "lake"), run=run)
            assert same == plan
            lake.checkpoints.apply(plan)
            kept = [decision.checkpoint_id for decision in plan.keep]
            assert_holds(lake, {one: states[one] for one in kept})
            with pytest.raises(InvalidInputError, match="size"):
                lake.checkpoints.plan_retention("latest(5)", quota="a lot")

    def test_damaged_ones_take_nobodys_place(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            ids = list(train(run, 3))
            (lake.path / "checkpoints" / f"{ids[2]}.json").write_bytes(b"{}")
            plan = lake.checkpoints.plan_retention("latest(1)")
            assert ids[1] in [decision.checkpoint_id for decision in plan.keep]


class TestApplyingLater:
    """Between a plan and its application anything may happen."""

    @pytest.fixture
    def ids(self, lake: Lake) -> list[str]:
        with lake.run(experiment="x", run_id="r", capture=NOTHING) as run:
            run.define("loss", direction="min")
            training = Training()
            return [save(run, training.next_state(), metrics={"loss": float(step)}) for step in (1, 2, 3, 4)]

    def test_what_was_saved_meanwhile_stays(self, lake: Lake, ids: list[str]) -> None:
        plan = lake.checkpoints.plan_retention("latest(1)")
        with lake.run(resume="r", capture=NOTHING) as run:
            newer = save(run, Training(9).next_state(), step=50)
        lake.checkpoints.apply(plan)
        assert [record.id for record in lake.checkpoints.list()] == [ids[0], ids[3], newer]

    def test_what_was_pinned_or_named_meanwhile_stays(self, lake: Lake, ids: list[str]) -> None:
        plan = lake.checkpoints.plan_retention("latest(1)")
        lake.checkpoints.pin(ids[1])
        lake.checkpoints.alias(ids[2], "mine")
        done = lake.checkpoints.apply(plan)
        assert done.deleted == ()
        assert "pinned" in done.spared[ids[1]]
        assert "named 'mine'" in done.spared[ids[2]]
        assert len(lake.checkpoints.list()) == 4

    def test_what_has_become_the_best_meanwhile_stays(self, lake: Lake, ids: list[str]) -> None:
        plan = lake.checkpoints.plan_retention("latest(1)")
        lake.checkpoints.delete(ids[0])
        done = lake.checkpoints.apply(plan)
        assert done.deleted == (ids[2],)
        assert "best of its run by 'loss'" in done.spared[ids[1]]

    def test_what_is_gone_already_is_told(self, lake: Lake, ids: list[str]) -> None:
        plan = lake.checkpoints.plan_retention("latest(1)")
        lake.checkpoints.delete(ids[1])
        done = lake.checkpoints.apply(plan)
        assert done.deleted == (ids[2],)
        assert done.spared == {ids[1]: "it is not there any more"}

    def test_nothing_goes_while_the_newest_that_stays_is_not_whole(self, lake: Lake, ids: list[str]) -> None:
        plan = lake.checkpoints.plan_retention("latest(1)")
        (lake.path / "blobs" / f"{ids[3]}.safetensors").unlink()
        done = lake.checkpoints.apply(plan)
        assert done.deleted == ()
        assert all(ids[3] in reason and "missing" in reason for reason in done.spared.values())
        assert len(lake.checkpoints.list()) == 4

    def test_nothing_goes_where_no_good_one_would_stay(self, lake: Lake, ids: list[str]) -> None:
        plan = lake.checkpoints.plan_retention("latest(1)")
        doomed = [Decision(one, "r", 1, "delete", "made up") for one in ids]
        for one in ids:
            lake.checkpoints.add_event(lake.checkpoints.get(one), "quarantined")
        done = lake.checkpoints.apply(replace(plan, delete=tuple(doomed)))
        assert done.deleted == ()
        assert len(lake.checkpoints.list()) == 4


class TestUsage:
    def test_every_byte_counts_once(self, lake: Lake) -> None:
        training = Training()
        for experiment in ("a", "b"):
            with lake.run(experiment=experiment, run_id=f"run-{experiment}", capture=NOTHING) as run:
                ids = list(train(run, 3, training))
        lake.checkpoints.compact("run-b")
        (lake.path / "blobs" / "20200101-000000-aaaaaaaaaa.ckpk").write_bytes(b"12345")
        lake.checkpoints.delete(ids[0])
        (lake.path / "checkpoints" / f"{ids[0]}.json").write_bytes(b"123")
        sizes = {name: (lake.path / name).stat().st_size for name in files_of(lake)}
        by_run = {one.name: one for one in lake.checkpoints.usage()}
        assert set(by_run) == {"run-a", "run-b", None}
        assert sum(one.stored_bytes + one.orphan_bytes for one in by_run.values()) == sum(sizes.values())
        assert (by_run[None].orphan_bytes, by_run[None].checkpoints) == (5, 0)
        assert by_run["run-b"].orphan_bytes == 3
        assert (by_run["run-a"].checkpoints, by_run["run-b"].checkpoints) == (3, 2)
        assert by_run["run-a"].logical_bytes == 3 * 4 * 20_000
        first = next(iter(record.id for record in lake.checkpoints.list("run-a")))
        shared = sizes[f"blobs/{first}.safetensors"]
        assert (by_run["run-a"].lent_bytes, by_run["run-b"].lent_bytes) == (shared, 0)
        assert by_run["run-a"].stored_bytes == sum(
            size for name, size in sizes.items() if any(r.id in name for r in lake.checkpoints.list("run-a"))
        )
        by_experiment = {one.name: one for one in lake.checkpoints.usage("experiment")}
        assert by_experiment["a"].stored_bytes == by_run["run-a"].stored_bytes
        (whole,) = lake.checkpoints.usage("lake")
        assert (whole.name, whole.checkpoints, whole.orphan_bytes, whole.lent_bytes) == ("lake", 5, 8, 0)
        assert whole.stored_bytes + whole.orphan_bytes == sum(sizes.values())
        lake.checkpoints.gc(0, dry_run=False)
        assert [one.orphan_bytes for one in lake.checkpoints.usage()] == [0, 0]

    def test_an_empty_lake(self, lake: Lake) -> None:
        assert lake.checkpoints.usage() == []
        with pytest.raises(InvalidInputError, match="'run', 'experiment' or 'lake'"):
            lake.checkpoints.usage("month")  # type: ignore[arg-type]


WEIGHTS = [np.random.default_rng(seed).standard_normal(4200).astype(np.float32) for seed in range(4)]
tensors = st.builds(lambda seed, moved: WEIGHTS[seed] + np.float32(moved * 1e-6), st.integers(0, 3), st.integers(0, 2))
saved_states = st.fixed_dictionaries(
    {"model": st.dictionaries(st.sampled_from(["a", "b", "c"]), tensors, min_size=1)},
    optional={"optimizer": st.dictionaries(st.sampled_from(["a", "b"]), tensors), "epoch": st.integers(0, 3)},
)
numbers = st.integers(0, 9)
some_runs = st.sampled_from(["one", "two", None])


class Space(RuleBasedStateMachine):
    """A lake beside a dict of the states that it must hold; checkpoints are picked by their number in it."""

    @initialize(states=st.lists(saved_states, min_size=2, max_size=4))
    def begin(self, states: list[State]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.lake = quiet_lake(Path(self._folder.name) / "lake")
        self.runs = [self.lake.run(experiment="x", run_id=name, capture=NOTHING) for name in ("one", "two")]
        self.states: dict[str, State] = {}
        self.pinned: set[str] = set()
        self.step = 0
        for state in states:
            self.save(state, 0, "sha256")

    def teardown(self) -> None:
        if hasattr(self, "lake"):
            self.lake.close()
            self._folder.cleanup()

    def pick(self, number: int) -> str:
        return list(self.states)[number % len(self.states)]

    @rule(state=saved_states, run=st.integers(0, 1), digest=st.sampled_from(["sha256", "deferred"]))
    def save(self, state: State, run: int, digest: str) -> None:
        self.step += 1
        self.states[save(self.runs[run], state, self.step, digest=digest)] = state
        self.runs[run]._finish_saving()

    @precondition(lambda self: self.states)
    @rule(number=numbers)
    def delete(self, number: int) -> None:
        one = self.pick(number)
        if one in self.pinned:
            with pytest.raises(InvalidInputError):
                self.lake.checkpoints.delete(one)
        else:
            self.lake.checkpoints.delete(one)
            del self.states[one]

    @precondition(lambda self: self.states)
    @rule(number=numbers)
    def pin(self, number: int) -> None:
        self.pinned.add(self.lake.checkpoints.pin(self.pick(number)).id)

    @precondition(lambda self: self.states)
    @rule(number=numbers)
    def unpin(self, number: int) -> None:
        self.pinned.discard(self.lake.checkpoints.unpin(self.pick(number)).id)

    @rule(keep_raw=st.integers(0, 2), run=some_runs)
    def compact(self, keep_raw: int, run: str | None) -> None:
        self.lake.checkpoints.compact(run, keep_raw=keep_raw)

    @precondition(lambda self: self.states)
    @rule(number=numbers, run=some_runs)
    def compact_against(self, number: int, run: str | None) -> None:
        self.lake.checkpoints.compact(run, base=self.pick(number), keep_raw=0)

    @rule(at=st.integers(1, 15))
    def crash_while_compacting(self, at: int) -> None:
        with Crash(at).expected(self.lake):
            self.lake.checkpoints.compact(keep_raw=0)

    @rule(n=st.integers(1, 3), keep_optimizer=st.none() | st.integers(1, 2), run=some_runs)
    def retain(self, n: int, keep_optimizer: int | None, run: str | None) -> None:
        plan = self.lake.checkpoints.plan_retention(f"latest({n})", keep_optimizer=keep_optimizer, run=run)
        done = self.lake.checkpoints.apply(plan)
        assert done.spared == {}
        assert self.pinned.isdisjoint(done.deleted)
        assert done.deleted == tuple(decision.checkpoint_id for decision in plan.delete)
        for one in done.deleted:
            del self.states[one]
        for one in done.trimmed:
            self.states[one] = {name: part for name, part in self.states[one].items() if name not in OPTIMIZER_NAMES}

    @rule()
    def sweep(self) -> None:
        self.lake.checkpoints.gc(0, dry_run=False)
        assert files_of(self.lake) == needed_files(self.lake)

    @rule()
    def commit(self) -> None:
        self.lake.commit()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "lake"):
            assert_holds(self.lake, self.states)
            kept = files_of(self.lake)
            assert needed_files(self.lake) <= kept
            (usage,) = self.lake.checkpoints.usage("lake") or [None]
            total = sum((self.lake.path / name).stat().st_size for name in kept if not name.endswith(".trim"))
            assert usage is None or usage.stored_bytes + usage.orphan_bytes == total


TestSpace = Space.TestCase
TestSpace.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
