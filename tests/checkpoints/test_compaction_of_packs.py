"""Older checkpoints compressed: fewer bytes, the same bits, whatever happens on the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_scenes import (
    NOTHING,
    Crash,
    State,
    Training,
    assert_holds,
    codecs,
    copy_of,
    files_of,
    needed_files,
    quiet_lake,
    save,
    train,
)

from ckptlake import Lake
from ckptlake.checkpoints import recoding
from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.gate import Gate
from ckptlake.checkpoints.sealing import seal
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError, InvalidInputError, StorageError
from ckptlake.integrity.parity import protect


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with quiet_lake(tmp_path / "lake") as opened:
        yield opened


def suffixes(lake: Lake, ids: list[str]) -> list[str]:
    """Return how the own pack of each checkpoint is stored: raw, packed, both or neither."""
    names = {(True, False): "raw", (False, True): "packed", (True, True): "both", (False, False): "neither"}
    blobs = lake.path / "blobs"
    return [names[(blobs / f"{one}.safetensors").exists(), (blobs / f"{one}.ckpk").exists()] for one in ids]


def depths(lake: Lake, checkpoint_id: str) -> dict[str, int]:
    """Return for each tensor of a pack how many deltas lie on the way to it."""

    def depth(pack: str, digest: str) -> int:
        path = lake.path / f"{pack}.ckpk"
        if not path.exists():
            return 0
        with Archive(path) as archive:
            base = archive.entries[digest].base
        return 0 if base is None else 1 + depth(base.pack, base.digest)

    with Archive(lake.path / "blobs" / f"{checkpoint_id}.ckpk") as archive:
        return {digest: depth(f"blobs/{checkpoint_id}", digest) for digest in archive.entries}


class TestBytes:
    def test_a_chain_of_checkpoints_takes_fewer_bytes_and_loads_as_before(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 7)
            before = sum((lake.path / name).stat().st_size for name in files_of(lake) if name.startswith("blobs"))
            done = lake.checkpoints.compact()
            after = sum((lake.path / name).stat().st_size for name in files_of(lake) if name.startswith("blobs"))
            assert suffixes(lake, list(states)) == ["packed"] * 6 + ["raw"]
            assert done.freed_bytes == before - after
            assert after < 0.85 * before
            assert_holds(lake, states)
            assert files_of(lake) == needed_files(lake)

    def test_differences_take_fewer_bytes_than_planes(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            first, second, _ = train(run, 3)
            lake.checkpoints.compact()
        assert codecs(lake, first)["model/weights"] == "planes"
        assert codecs(lake, second)["model/weights"] == "delta"
        assert codecs(lake, second)["model/frozen"] == "shared"
        query = "SELECT stored_bytes FROM tensors WHERE path = 'model/weights' ORDER BY step LIMIT 2"
        (planes,), (delta,) = lake.sql(query).fetchall()
        assert delta < 0.8 * planes < planes < 20000

    def test_the_rows_keep_their_statistics_and_tell_what_is_stored(self, lake: Lake) -> None:
        query = "SELECT * EXCLUDE (ts, codec, stored_bytes) FROM tensors ORDER BY step, path"
        with lake.run(experiment="x", capture=NOTHING) as run:
            ids = list(train(run, 3))
            before = lake.sql(query).to_arrow_table()
            lake.checkpoints.compact()
            after = lake.sql(query).to_arrow_table()
        assert after.equals(before)
        stored = dict(lake.sql("SELECT checkpoint_id, sum(stored_bytes) FROM tensors GROUP BY ALL").fetchall())
        for checkpoint_id in ids[:2]:
            size = (lake.path / "blobs" / f"{checkpoint_id}.ckpk").stat().st_size
            assert lake.checkpoints.get(checkpoint_id).stored_bytes == size
            with Archive(lake.path / "blobs" / f"{checkpoint_id}.ckpk") as archive:
                assert stored[checkpoint_id] == sum(entry.stored_bytes for entry in archive.entries.values()) < size

    def test_contents_that_several_tensors_have_are_counted_once(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            twin = np.arange(1000, dtype=np.float32)
            first = save(run, {"a": twin, "b": twin.copy()}, step=1)
            save(run, {"a": twin + 1}, step=2)
            lake.checkpoints.compact()
        assert sorted(codecs(lake, first).values()) == ["planes", "shared"]

    def test_every_fifth_is_stored_whole(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 12)
            lake.checkpoints.compact()
        found = [max(depths(lake, checkpoint_id).values()) for checkpoint_id in list(states)[:-1]]
        assert found == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]

    def test_compressing_again_changes_nothing(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            train(run, 3)
            assert len(lake.checkpoints.compact().packs) == 2
            before = {name: (lake.path / name).stat().st_mtime_ns for name in files_of(lake)}
            assert lake.checkpoints.compact().sentence() == "nothing to compress"
        assert {name: (lake.path / name).stat().st_mtime_ns for name in files_of(lake)} == before

    def test_it_tells_how_far_it_is(self, lake: Lake) -> None:
        told: list[tuple[int, int]] = []
        with lake.run(experiment="x", capture=NOTHING) as run:
            train(run, 4)
            sizes = [path.stat().st_size for path in sorted((lake.path / "blobs").glob("*.safetensors"))]
            done = lake.checkpoints.compact(progress=lambda now, whole: told.append((now, whole)))
        assert told[0][0] == 0
        assert told[-1] == (done.before_bytes, done.before_bytes)
        assert [now for now, _ in told] == sorted(now for now, _ in told)
        assert done.before_bytes < sum(sizes)


class TestWhich:
    def test_the_newest_stay_uncompressed(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            ids = list(train(run, 5))
            lake.checkpoints.compact(keep_raw=3)
            assert suffixes(lake, ids) == ["packed", "packed", "raw", "raw", "raw"]
            lake.checkpoints.compact(keep_raw=0)
            assert suffixes(lake, ids) == ["packed"] * 5
        with pytest.raises(InvalidInputError, match="keep_raw"):
            lake.checkpoints.compact(keep_raw=-1)

    def test_only_the_runs_asked_for(self, lake: Lake) -> None:
        ids = {}
        for experiment in ("a", "a/b", "c"):
            with lake.run(experiment=experiment, run_id=f"run-{experiment[-1]}", capture=NOTHING) as run:
                ids[experiment] = list(train(run, 2, Training(len(ids))))
        lake.checkpoints.compact("run-b")
        assert [suffixes(lake, found) for found in ids.values()] == [["raw"] * 2, ["packed", "raw"], ["raw"] * 2]
        lake.checkpoints.compact(experiment="a")
        assert [suffixes(lake, found)[0] for found in ids.values()] == ["packed", "packed", "raw"]

    def test_other_formats_are_left_alone(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            training = Training()
            for format in ("safetensors", "pickle", "packed"):
                state = training.next_state()
                save(run, state["model"] if format == "safetensors" else state, step=training.step, format=format)
            before = files_of(lake)
            lake.checkpoints.compact()
            assert files_of(lake) == before

    def test_what_has_no_digests_yet_is_left_alone(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        training = Training()
        with lake.run(experiment="x", capture=NOTHING) as run:
            begun, held = threading.Event(), threading.Event()

            def seal_later(*args: Any) -> object:
                begun.set()
                assert held.wait(60)
                return seal(*args)

            monkeypatch.setattr("ckptlake.checkpoints.session.seal", seal_later)
            states = [training.next_state() for _ in range(2)]
            deferred = save(run, states[0], digest="deferred")
            assert begun.wait(60)
            lake.checkpoints.compact(keep_raw=0)
            assert suffixes(lake, [deferred]) == ["raw"]
            held.set()
            found = {deferred: states[0], save(run, states[1]): states[1]}
            lake.checkpoints.compact(keep_raw=0)
            assert suffixes(lake, list(found)) == ["packed", "packed"]
            assert_holds(lake, found)

    def test_a_fork_is_stored_as_differences_to_where_it_began(self, lake: Lake) -> None:
        training = Training()
        with lake.run(experiment="x", run_id="parent", capture=NOTHING) as run:
            states = train(run, 3, training)
            for step in range(1, 4):
                run.log({"loss": 1.0}, step=step)
        branch = training.next_state()
        with lake.run(experiment="x", run_id="child", fork_from=("parent", 2), capture=NOTHING) as run:
            states |= {save(run, branch, step=4): branch}
            last = training.next_state()
            states |= {save(run, last, step=5): last}
        lake.checkpoints.compact("child")
        child = list(states)[3]
        assert codecs(lake, child)["model/weights"] == "delta"
        with Archive(lake.path / "blobs" / f"{child}.ckpk") as archive:
            bases = {entry.base.pack for entry in archive.entries.values() if entry.base is not None}
        assert bases == {f"blobs/{list(states)[1]}"}
        lake.checkpoints.compact(keep_raw=0)
        assert_holds(lake, states)
        assert max(max(depths(lake, one).values()) for one in states) <= 4

    def test_a_base_may_be_named(self, lake: Lake) -> None:
        training = Training()
        with lake.run(experiment="x", run_id="pretraining", capture=NOTHING) as run:
            states = train(run, 1, training)
        with lake.run(experiment="y", run_id="tuning", capture=NOTHING) as run:
            states |= train(run, 2, training)
        lake.checkpoints.compact("tuning", base=next(iter(states)))
        assert codecs(lake, list(states)[1])["model/weights"] == "delta"
        assert_holds(lake, states)
        with pytest.raises(CheckpointNotFoundError):
            lake.checkpoints.compact("tuning", base="nowhere")

    def test_a_base_that_only_the_index_could_find_is_none(self, lake: Lake) -> None:
        """The pack of a save with deferred digests does not tell them, and with its manifest they would be lost."""
        training = Training()
        with lake.run(experiment="x", run_id="one", capture=NOTHING) as run:
            first = save(run, training.next_state(), digest="deferred")
        training.frozen = training.frozen + 1
        with lake.run(experiment="x", run_id="two", capture=NOTHING) as run:
            states = train(run, 1, training)
        lake.checkpoints.compact("two", base=first, keep_raw=0)
        lake.checkpoints.delete(first)
        lake._checkpoint_store.index.close()
        (lake.path / "blobs" / ".index.sqlite").unlink()
        assert_holds(lake, states)

    def test_two_that_are_bases_of_each_other_make_no_circle(self, lake: Lake) -> None:
        training = Training()
        states = {}
        for name in ("one", "two"):
            with lake.run(experiment="x", run_id=name, capture=NOTHING) as run:
                states |= train(run, 1, training)
        first, second = states
        lake.checkpoints.compact("one", base=second, keep_raw=0)
        lake.checkpoints.compact("two", base=first, keep_raw=0)
        assert codecs(lake, first)["model/weights"] == "delta"
        assert codecs(lake, second)["model/weights"] == "planes"
        assert_holds(lake, states)


class TestWhatIsNotNeeded:
    def test_only_what_others_share_stays_of_a_deleted_one(self, lake: Lake) -> None:
        training = Training()
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3, training)
            first = next(iter(states))
            lake.checkpoints.delete(first)
            del states[first]
            assert suffixes(lake, [first]) == ["raw"]
            lake.checkpoints.compact()
            with Archive(lake.path / "blobs" / f"{first}.ckpk") as archive:
                assert [entry.nbytes for entry in archive.entries.values()] == [training.frozen.nbytes]
            assert_holds(lake, states)
            assert files_of(lake) == needed_files(lake)

    def test_what_went_with_a_pack_is_stored_again_when_it_comes_back(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 2)
            first, second = states
            lost = states.pop(first)
            lake.checkpoints.delete(first)
            lake.checkpoints.compact(keep_raw=0)
            states[save(run, lost, step=9)] = lost
            assert_holds(lake, states)
            lake.checkpoints.delete(second)
            del states[second]
            assert lake.checkpoints.gc(0, dry_run=False).files == ()
            assert_holds(lake, states)

    def test_what_is_kept_for_deltas_alone_goes_when_they_are_stored_anew(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 6)
            lake.checkpoints.compact()
            ids = list(states)
            parity = protect(lake.path / "blobs" / f"{ids[4]}.ckpk").path
            lake.checkpoints.delete(*ids[1:4])
            kept = {one: states[one] for one in (ids[0], *ids[4:])}
            assert suffixes(lake, ids) == ["packed"] * 5 + ["raw"], "the fifth is a difference to all before"
            done = lake.checkpoints.compact()
            assert suffixes(lake, ids) == ["packed", "neither", "neither", "neither", "packed", "raw"]
            assert {Path(file.path).stem for file in done.swept.files} == set(ids[1:4])
            assert done.freed_bytes > 0
            assert max(depths(lake, ids[4]).values()) == 1
            assert not parity.exists(), "it protected the file that is gone"
            assert_holds(lake, kept)
            assert files_of(lake) == needed_files(lake)

    def test_a_clock_that_was_set_back(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        class Earlier(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) - timedelta(days=1)

        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 4)
            first, second, third, last = states
            lake.checkpoints.compact()
            monkeypatch.setattr("ckptlake.checkpoints.marks.datetime", Earlier)
            lake.checkpoints.delete(second)
            lake.checkpoints.compact()
            assert lake.checkpoints.get(third).stored_bytes == (lake.path / "blobs" / f"{third}.ckpk").stat().st_size
            lake.checkpoints.gc(0, dry_run=False)
            assert_holds(lake, {one: states[one] for one in (first, third, last)})
            assert files_of(lake) == needed_files(lake)

    def test_parity_of_the_old_file_goes_with_it(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            first, _ = train(run, 2)
            raw = lake.path / "blobs" / f"{first}.safetensors"
            protection = protect(raw)
            lake.checkpoints.compact()
            assert not raw.exists()
            assert not protection.path.exists()


class TestDamage:
    def flip(self, path: Path, place: int) -> None:
        with path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))

    def test_a_damaged_pack_stays_and_the_error_names_the_tensor(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 4)
            ids = list(states)
            with lake.checkpoints.open(ids[1]) as opened:
                tensor = next(t for t in opened.manifest.tensors if t.path == "optimizer/second")
            raw = lake.path / "blobs" / f"{ids[1]}.safetensors"
            start = 8 + int.from_bytes(raw.read_bytes()[:8], "little")
            self.flip(raw, start + tensor.offset + 5)
            damaged = raw.read_bytes()
            with pytest.raises(DamagedCheckpointError, match="optimizer/second"):
                lake.checkpoints.compact()
            assert raw.read_bytes() == damaged
            assert suffixes(lake, ids) == ["packed", "raw", "packed", "raw"], "the others are compressed"
            assert codecs(lake, ids[2])["optimizer/second"] == "planes", "a damaged tensor is nobody's base"
            del states[ids[1]]
            lake.checkpoints.delete(ids[1])
            assert_holds(lake, states)

    def test_a_quarantined_one_is_left_alone(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            ids = list(train(run, 3))
            self.flip(lake.path / "blobs" / f"{ids[0]}.safetensors", 9000)
            assert not lake.checkpoints.verify(ids[0]).is_good
            lake.checkpoints.compact()
            assert suffixes(lake, ids) == ["raw", "packed", "raw"]

    def test_a_codec_that_loses_a_bit_changes_nothing(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        read_into = Archive.read_into

        def losing(self: Archive, digest: str, start: int, stop: int, out: memoryview, read_base: Any) -> None:
            read_into(self, digest, start, stop, out, read_base)
            out[0] ^= 1

        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 2)
            before = files_of(lake)
            with monkeypatch.context() as patched:
                patched.setattr(Archive, "read_into", losing)
                with pytest.raises(DamagedCheckpointError, match=r"tensor '\w+/\w+' of blobs/.* bit for bit"):
                    lake.checkpoints.compact()
            assert files_of(lake) == before
            assert_holds(lake, states)

    def test_a_missing_manifest_keeps_what_it_may_need(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            ids = list(train(run, 3))
            (lake.path / "checkpoints" / f"{ids[1]}.json").unlink()
            before = {name for name in files_of(lake) if ids[0] in name}
            with pytest.raises(DamagedCheckpointError, match=ids[1]):
                lake.checkpoints.compact()
            assert {name for name in files_of(lake) if ids[0] in name} == before


class TestBesideOthers:
    def test_a_save_that_shares_what_would_be_dropped_keeps_it(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 2)
            first = next(iter(states))
            lost = states.pop(first)
            lake.checkpoints.delete(first)
            encode = recoding._encode

            def saving(*args: Any) -> object:
                entries = encode(*args)
                if lost["step"] == 1:
                    lost["step"] = 2
                    saver = threading.Thread(target=lambda: states.update({save(run, lost, step=8): lost}))
                    saver.start()
                    saver.join()
                return entries

            monkeypatch.setattr(recoding, "_encode", saving)
            lake.checkpoints.compact()
            assert suffixes(lake, [first]) == ["raw"], "what was encoded lacks what has been shared meanwhile"
            assert_holds(lake, states)
            lake.checkpoints.compact()
            assert_holds(lake, states)

    def test_a_base_that_is_deleted_meanwhile(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        training = Training()
        with lake.run(experiment="x", run_id="base", capture=NOTHING) as run:
            base = next(iter(train(run, 1, training)))
        training.frozen = training.frozen + 1
        with lake.run(experiment="x", run_id="tuned", capture=NOTHING) as run:
            states = train(run, 2, training)
            alone = Gate.alone
            first = next(iter(states))

            def deleting(gate: Gate) -> AbstractContextManager[None]:
                monkeypatch.setattr(Gate, "alone", alone)
                lake.checkpoints.delete(base)
                return alone(gate)

            monkeypatch.setattr(Gate, "alone", deleting)
            lake.checkpoints.compact("tuned", base=base)
            assert suffixes(lake, [base, first]) == ["neither", "raw"]
            assert_holds(lake, states)
            assert files_of(lake) == needed_files(lake)

    def test_threads_that_save_load_compact_and_sweep(self, lake: Lake) -> None:
        states: dict[str, dict[str, State]] = {}
        failures: list[BaseException] = []
        done = threading.Event()

        def guarded(work: Callable[[], object]) -> threading.Thread:
            def run() -> None:
                try:
                    while not done.is_set():
                        work()
                except BaseException as error:
                    failures.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        def load() -> None:
            for checkpoint_id, state in list(states.items()):
                with lake.checkpoints.open(checkpoint_id) as opened:
                    found = opened.state(verify="digest")
                assert found["model"]["weights"].tobytes() == state["model"]["weights"].tobytes()

        with lake.run(experiment="x", capture=NOTHING) as run:
            works = [lake.checkpoints.compact, lake.checkpoints.compact, load, lambda: lake.checkpoints.gc(0, False)]
            threads = [guarded(work) for work in works]
            training = Training()
            for _ in range(12):
                state = training.next_state()
                states[save(run, state)] = state
            done.set()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]
        lake.checkpoints.compact()
        assert_holds(lake, states)
        assert suffixes(lake, list(states)) == ["packed"] * 11 + ["raw"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, dict[str, State]]:
    """A closed lake with three checkpoints, one of them protected by parity."""
    with quiet_lake(tmp_path_factory.mktemp("scene") / "lake") as lake:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
        protect(lake.path / "blobs" / f"{next(iter(states))}.safetensors")
    return lake, states


class TestCrashes:
    """At every step that changes the disk: what is listed loads, a sweep leaves no orphan, and it can be done again."""

    @pytest.mark.parametrize("swept", [True, False], ids=["swept", "done again"])
    def test_of_a_compaction(self, scene: tuple[Lake, dict[str, State]], tmp_path: Path, swept: bool) -> None:
        original, states = scene
        at = 0
        crashed = True
        while crashed:
            at += 1
            with copy_of(original, tmp_path / str(at)) as lake:
                crash = Crash(at)
                with crash.expected(lake):
                    lake.checkpoints.compact()
                crashed = crash.came
                if swept:
                    lake.checkpoints.gc(0, dry_run=False)
                    assert {file for file in files_of(lake) if ".pq" not in file} == needed_files(lake), at
                    assert_holds(lake, states)
                lake.checkpoints.compact()
                lake.checkpoints.gc(0, dry_run=False)
                assert_holds(lake, states)
                assert files_of(lake) == needed_files(lake), at
                assert suffixes(lake, list(states)) == ["packed", "packed", "raw"], at
        assert at > 8

    def test_of_a_pack_compressed_anew(self, scene: tuple[Lake, dict[str, State]], tmp_path: Path) -> None:
        original, states = scene
        with copy_of(original, tmp_path / "compressed") as lake:
            lake.checkpoints.compact(keep_raw=0)
            first, middle, last = states
            lake.checkpoints.delete(middle)
        kept = {one: states[one] for one in (first, last)}
        at, crashed = 0, True
        while crashed:
            at += 1
            with copy_of(lake, tmp_path / str(at)) as again:
                crash = Crash(at)
                with crash.expected(again):
                    again.checkpoints.compact(keep_raw=0)
                crashed = crash.came
                again.checkpoints.gc(0, dry_run=False)
                assert_holds(again, kept)
                again.checkpoints.compact(keep_raw=0)
                again.checkpoints.gc(0, dry_run=False)
                assert_holds(again, kept)
                assert files_of(again) == needed_files(again), at
                assert suffixes(again, [middle]) == ["neither"]
        assert at > 4

    def test_new_bases_are_known_at_every_step(self, tmp_path: Path) -> None:
        """A pack compressed anew gets another base; whoever deletes that after a crash must know of it."""
        training = Training()
        states = {}
        with quiet_lake(tmp_path / "lake") as lake:
            for name in ("old", "new", "tuned"):
                training.frozen = training.frozen + 1
                with lake.run(experiment="x", run_id=name, capture=NOTHING) as run:
                    states |= train(run, 1, training)
            old, new, tuned = states
            lake.checkpoints.compact("tuned", base=old, keep_raw=0)
            lake.checkpoints.delete(old)
        at, crashed = 0, True
        while crashed:
            at += 1
            with copy_of(lake, tmp_path / str(at)) as again:
                crash = Crash(at)
                with crash.expected(again):
                    again.checkpoints.compact("tuned", base=new, keep_raw=0)
                crashed = crash.came
                again.checkpoints.delete(new)
                again.checkpoints.gc(0, dry_run=False)
                assert_holds(again, {tuned: states[tuned]})
        assert codecs(again, tuned)["model/weights"] == "delta"
        assert at > 4

    def test_a_full_disk(self, lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.ERROR)
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            before = files_of(lake)

            def full(self: CheckpointStore, *_: object) -> None:
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patched:
                patched.setattr("ckptlake.checkpoints.codec.archive.os.fsync", full)
                with pytest.raises(StorageError, match="free space"):
                    lake.checkpoints.compact()
            assert files_of(lake) == before
            assert_holds(lake, states)
