"""A disk that is really full: what is refused says so and leaves nothing, what was there stays, and life goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_scenes import State, assert_holds, files_of, needed_files, quiet_lake, same
from scenes import BY_HAND, NOTHING, check_words, open_lake, points_of, segments, statuses, steps_of
from small_disks import SmallDisk

from ckptlake import Lake, Run, Settings, StorageError
from ckptlake.checkpoints import recoding, session
from ckptlake.checkpoints.store import CheckpointStore

MIB = 1 << 20
WAYS: dict[str, dict[str, Any]] = {
    "at once": {},
    "in the background": {"async_": True},
    "digests later": {"digest": "deferred"},
    "safetensors": {"format": "safetensors"},
    "torch": {"format": "torch"},
    "pickle": {"format": "pickle"},
}
each_way = pytest.mark.parametrize("choices", WAYS.values(), ids=WAYS)


def state_of(seed: int, size_bytes: int) -> State:
    weights = np.random.default_rng(seed).standard_normal(size_bytes // 4).astype(np.float32)
    return {"model": {"weights": weights, "bias": weights[:100] + np.float32(1)}, "step": seed}


def save(run: Run, state: State, **choices: Any) -> str:
    """Save a state and wait for all that is left to do then; return the checkpoint's id."""
    saved = run.save_checkpoint(state, step=state["step"], **choices)
    saved = saved.wait(60) if choices.get("async_") else saved
    run._finish_saving()
    return str(saved.id)


def halves(lake: Lake) -> list[Path]:
    """Return the files that some write has begun and not ended."""
    return [path for path in lake.path.rglob("*") if path.name.endswith(".partial")]


@pytest.fixture
def lake(small_disk: SmallDisk) -> Iterator[Lake]:
    lake = quiet_lake(small_disk.path / "lake")
    yield lake
    with contextlib.suppress(StorageError):
        lake.close()


@pytest.fixture
def run(lake: Lake) -> Run:
    return lake.run(run_id="training", capture=NOTHING)


def check_refused(caught: BaseException, lake: Lake, kept: dict[str, State]) -> None:
    """Nothing of what was refused is there, and all that was there is still."""
    check_words(caught, "free space on that disk")
    assert "goes on by itself" not in str(caught), "nobody saves a checkpoint again by itself"
    assert halves(lake) == []
    assert files_of(lake) == needed_files(lake)
    assert_holds(lake, kept)


class TestSaving:
    @each_way
    @pytest.mark.parametrize("leaving", [0, 3 * MIB])
    def test_one_that_does_not_fit_is_not_there_at_all(
        self, small_disk: SmallDisk, lake: Lake, run: Run, choices: dict[str, Any], leaving: int
    ) -> None:
        first, second, third = (state_of(step, 4 * MIB) for step in (1, 2, 3))
        kept = {save(run, first, **choices): first}
        run.log({"loss": 0.5}, step=1)
        run.flush()
        small_disk.fill(leaving)
        with pytest.raises(StorageError) as caught:
            save(run, second, **choices)
        check_refused(caught.value, lake, kept)
        newest = run.load_checkpoint("latest")
        assert newest.step == 1
        assert same(newest.state["model"], first["model"])
        run.log({"loss": 0.25}, step=2)
        small_disk.make_room()
        run.log({"loss": 0.125}, step=3)
        kept[save(run, third, **choices)] = third
        run.finish()
        assert_holds(lake, kept)
        assert files_of(lake) == needed_files(lake)
        assert lake.checkpoints.get("latest").step == 3
        assert steps_of(lake) == [1, 2, 3]
        assert statuses(lake) == {"training": "finished"}

    @each_way
    def test_one_whose_rows_alone_do_not_fit_is_not_there_either(
        self,
        small_disk: SmallDisk,
        lake: Lake,
        run: Run,
        choices: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its files are whole when the disk refuses to have it listed."""
        first, second = (state_of(step, 2 * MIB) for step in (1, 2))
        kept = {save(run, first, **choices): first}
        publish = CheckpointStore.publish

        def publish_last(store: CheckpointStore, manifest: Any, *rest: Any) -> None:
            publish(store, manifest, *rest)
            small_disk.fill()

        monkeypatch.setattr(CheckpointStore, "publish", publish_last)
        with pytest.raises(StorageError) as caught:
            save(run, second, **choices)
        monkeypatch.undo()
        check_refused(caught.value, lake, kept)
        small_disk.make_room()
        run.flush()
        assert_holds(lake, kept)
        kept[save(run, second, **choices)] = second
        run.finish()
        assert_holds(lake, kept)
        assert files_of(lake) == needed_files(lake)
        assert_holds(quiet_lake(lake.path), kept)

    def test_bytes_that_another_save_may_share_by_now_are_left_to_a_sweep(
        self, small_disk: SmallDisk, lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who makes the index anew while a save is under way finds the tensors of that save, too."""
        first = state_of(1, MIB)
        kept = {save(run, first): first}
        publish = CheckpointStore.publish

        def publish_last(store: CheckpointStore, manifest: Any, *rest: Any) -> None:
            publish(store, manifest, *rest)
            store.index.close()
            (store.layout.blobs / ".index.sqlite").unlink()
            assert store.index.knows(f"blobs/{manifest.checkpoint_id}")
            small_disk.fill()

        monkeypatch.setattr(CheckpointStore, "publish", publish_last)
        with pytest.raises(StorageError):
            save(run, state_of(2, MIB))
        monkeypatch.undo()
        assert_holds(lake, kept)
        small_disk.make_room()
        (left,) = files_of(lake) - needed_files(lake)
        assert left.startswith("blobs/")
        lake.checkpoints.gc(grace_s=0, dry_run=False)
        assert files_of(lake) == needed_files(lake)
        assert_holds(lake, kept)

    def test_digests_that_cannot_be_kept_are_taken_later(
        self, small_disk: SmallDisk, lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = state_of(1, 2 * MIB)
        seal = session.seal

        def seal_on_a_full_disk(*arguments: Any) -> Any:
            small_disk.fill()
            return seal(*arguments)

        monkeypatch.setattr(session, "seal", seal_on_a_full_disk)
        kept = {save(run, state, digest="deferred"): state}
        run._finish_saving()
        with pytest.raises(StorageError) as caught:
            run.log({"loss": 1.0}, step=2)
        check_refused(caught.value, lake, kept)
        assert lake.checkpoints.get("latest").digest is None
        small_disk.make_room()
        run.finish()
        assert lake.checkpoints.verify("latest").is_good
        assert lake.checkpoints.get("latest").digest is not None
        assert_holds(lake, kept)


class TestKeeping:
    """What is done with checkpoints that are there already."""

    @pytest.fixture
    def kept(self, lake: Lake, run: Run) -> dict[str, State]:
        states = [state_of(7, 2 * MIB)]
        for step in (8, 9):
            weights = states[-1]["model"]["weights"] * np.float32(1.0001)
            states.append({"model": {"weights": weights, "frozen": states[0]["model"]["bias"]}, "step": step})
        return {save(run, state): state for state in states}

    @pytest.mark.parametrize("leaving", [0, MIB])
    def test_compressing(self, small_disk: SmallDisk, lake: Lake, kept: dict[str, State], leaving: int) -> None:
        small_disk.fill(leaving)
        with pytest.raises(StorageError) as caught:
            lake.checkpoints.compact()
        check_refused(caught.value, lake, kept)
        small_disk.make_room()
        assert lake.checkpoints.compact().freed_bytes > 0
        assert_holds(lake, kept)
        assert files_of(lake) == needed_files(lake)

    def test_compressing_where_the_record_alone_does_not_fit(
        self, small_disk: SmallDisk, lake: Lake, kept: dict[str, State], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The compressed pack has its name beside the uncompressed one when the disk refuses."""
        sync = recoding.sync_directory

        def sync_last(path: Path) -> None:
            sync(path)
            small_disk.fill()

        monkeypatch.setattr(recoding, "sync_directory", sync_last)
        with pytest.raises(StorageError, match="free space"):
            lake.checkpoints.compact()
        monkeypatch.undo()
        assert halves(lake) == []
        assert_holds(lake, kept)
        small_disk.make_room()
        assert lake.checkpoints.compact().freed_bytes > 0
        lake.checkpoints.gc(grace_s=0, dry_run=False)
        assert_holds(lake, kept)
        assert files_of(lake) == needed_files(lake)

    @pytest.mark.parametrize("leaving", [0, 64 << 10])
    def test_protecting(self, small_disk: SmallDisk, lake: Lake, kept: dict[str, State], leaving: int) -> None:
        small_disk.fill(leaving)
        with pytest.raises(StorageError) as caught:
            lake.checkpoints.protect()
        check_words(caught.value, "free space on that disk")
        assert halves(lake) == []
        assert_holds(lake, kept)
        small_disk.make_room()
        done = lake.checkpoints.protect()
        assert len(done.written) + len(done.fresh) == 3
        assert not done.refused
        assert_holds(lake, kept)

    @pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.pt", "x.dcp"])
    @pytest.mark.parametrize("is_compressed", [False, True], ids=["plain", "compressed"])
    @pytest.mark.parametrize("leaving", [0, MIB])
    @pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
    def test_exporting(
        self,
        small_disk: SmallDisk,
        lake: Lake,
        kept: dict[str, State],
        name: str,
        is_compressed: bool,
        leaving: int,
    ) -> None:
        if is_compressed:
            lake.checkpoints.compact(keep_raw=0)
        before = {path.name for path in small_disk.path.iterdir()}
        small_disk.fill(leaving)
        with pytest.raises(StorageError) as caught:
            lake.checkpoints.export("latest", small_disk.path / name)
        check_refused(caught.value, lake, kept)
        small_disk.make_room()
        assert {path.name for path in small_disk.path.iterdir()} == before
        if not is_compressed:
            assert lake.checkpoints.export("latest", small_disk.path / name).size_bytes > 2 * MIB

    def test_what_nothing_needs_can_still_be_deleted(
        self, small_disk: SmallDisk, lake: Lake, run: Run, kept: dict[str, State]
    ) -> None:
        """A sweep is what makes room, so it must need none."""
        gone = save(run, state_of(10, 4 * MIB))
        lake.checkpoints.add_event(lake.checkpoints.get(gone), "deleted")  # and a crash before its files went
        small_disk.fill()
        swept = lake.checkpoints.gc(grace_s=0, dry_run=False)
        assert [file.path for file in swept.files] == [f"blobs/{gone}.safetensors", f"checkpoints/{gone}.json"]
        assert files_of(lake) == needed_files(lake)
        assert_holds(lake, kept)
        again = state_of(10, 3 * MIB)
        kept[save(run, again)] = again
        assert_holds(lake, kept)


class TestLogging:
    @pytest.mark.parametrize("hurried", [False, True])
    def test_nothing_stops_and_nothing_is_lost(self, small_disk: SmallDisk, hurried: bool) -> None:
        settings = Settings(flush_interval_s=0.02, commit_interval_s=0.05) if hurried else BY_HAND
        lake = open_lake(small_disk.path / "lake", settings)
        run = lake.run(capture=NOTHING)
        for step in range(100):
            run.log({"loss": step / 3}, step=step)
        run.flush()
        small_disk.fill()
        refusals = 0
        for step in range(100, 20_000):
            try:
                run.log({"loss": step / 3}, step=step)
            except StorageError as error:
                check_words(error, "space")
                refusals += 1
            if step % 1000 == 0:
                with contextlib.suppress(StorageError):
                    run.flush()
        with pytest.raises(StorageError, match="space"):
            run.finish()
        assert refusals >= 1, "no call told of the full disk"
        assert set(range(100)) <= set(steps_of(open_lake(lake.path)))
        small_disk.make_room()
        lake.close()
        reader = open_lake(lake.path)
        assert steps_of(reader) == list(range(20_000))
        assert statuses(reader) == {run.id: "finished"}
        assert not segments(lake.path)
        assert sum(points_of(reader).values()) == 20_000

    @pytest.mark.parametrize("log", [Run.log, Run.log_frame], ids=["log", "log_frame"])
    def test_a_refusal_is_told_by_each_flush_and_by_one_call(
        self, small_disk: SmallDisk, log: Callable[..., None]
    ) -> None:
        lake = open_lake(small_disk.path / "lake")
        run = lake.run(capture=NOTHING)
        acknowledged = np.arange(1000)
        run.log_frame({"step": acknowledged, "loss": acknowledged / 7})
        run.flush()
        small_disk.fill()
        refused = np.arange(1000, 60_000)
        run.log_frame({"step": refused, "loss": refused / 7})
        for _ in range(3):
            with pytest.raises(StorageError, match="free space on that disk, writing goes on by itself"):
                run.flush()
        more = [{"loss": 1.0}, {"loss": 2.0}] if log is Run.log else [{"step": [60_000], "loss": [1.0]}] * 2
        named = {"step": 60_000} if log is Run.log else {}
        with pytest.raises(StorageError, match="free space"):
            log(run, more[0], **named)
        log(run, more[1], **named)
        assert steps_of(open_lake(lake.path)) == list(range(1000))
        small_disk.make_room()
        run.flush()
        expected = [*range(60_000), 60_000, 60_000]
        assert steps_of(open_lake(lake.path)) == expected
        run.finish()
        lake.close()
        assert steps_of(open_lake(lake.path)) == expected

    def test_rows_in_segments_survive_a_commit_without_room(self, small_disk: SmallDisk) -> None:
        lake = open_lake(small_disk.path / "lake")
        run = lake.run(capture=NOTHING)
        steps = np.arange(50_000)
        run.log_frame({"step": steps, "loss": np.random.default_rng(0).random(50_000)})
        run.flush()
        for leaving in (0, 64 << 10, 256 << 10):
            small_disk.fill(leaving)
            with pytest.raises(StorageError, match="free space"):
                lake.commit()
            assert steps_of(open_lake(lake.path)) == list(range(50_000))
            small_disk.make_room()
        lake.commit()
        assert steps_of(open_lake(lake.path)) == list(range(50_000))
        assert lake.table("metrics").version() >= 0
        run.finish()
