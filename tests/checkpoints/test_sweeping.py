"""Files that nothing needs: all of them are found, and nothing else is."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoint_scenes import (
    NOTHING,
    State,
    Training,
    assert_holds,
    files_of,
    needed_files,
    quiet_lake,
    save,
    train,
)
from hypothesis import given
from hypothesis import strategies as st

from ckptlake import Lake
from ckptlake._internal.ids import new_id
from ckptlake.checkpoints import rows
from ckptlake.checkpoints.codec.archive import Archive, ArchiveWriter, Base
from ckptlake.checkpoints.index import BlobIndex
from ckptlake.checkpoints.marks import closed_over_bases
from ckptlake.checkpoints.rows import saved_row
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.sweeping import Orphan
from ckptlake.errors import InvalidInputError
from ckptlake.integrity.parity import protect


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with quiet_lake(tmp_path / "lake") as opened:
        yield opened


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def swept(files: tuple[Orphan, ...]) -> dict[str, str]:
    return {file.path: file.reason for file in files}


def unlisted_copy(lake: Lake, checkpoint_id: str) -> str:
    """Put a manifest beside that of a checkpoint, as a crash before its row leaves it; return its id."""
    other = new_id()
    manifest = lake._checkpoint_store.read_manifest(checkpoint_id)
    lake._checkpoint_store.publish(replace(manifest, checkpoint_id=other))
    return other


class TestWhatIsFound:
    def test_every_kind_of_leftover_and_nothing_else(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            state = Training(1).next_state()
            states[save(run, state, step=9, format="pickle")] = state
            lake.checkpoints.compact()
            kept = files_of(lake)
            first = next(iter(states))
            own = protect(lake.path / "blobs" / f"{first}.ckpk").path
            lost, gone = new_id(), new_id()
            leftovers = {
                f"blobs/{lost}.safetensors",
                f"blobs/{lost}.safetensors.pq",
                f"blobs/{gone}.ckpk",
                f"blobs/{gone}.safetensors.pq",
                f"blobs/.{lost}.safetensors.partial",
                f"blobs/.{lost}.ckpk.0123456789abcdef.partial",
                f"checkpoints/{lost}.pt",
                f"checkpoints/{lost}.pt.pq",
                f"checkpoints/{lost}.json",
                f"checkpoints/.{lost}.json.0123456789abcdef.partial",
            }
            strangers = {"blobs/model.safetensors", "blobs/README.md", "checkpoints/notes.json", "blobs/.hidden"}
            for name in leftovers | strangers:
                (lake.path / name).write_bytes(b"123")
            found = lake.checkpoints.gc(0)
            assert {file.path for file in found.files} == leftovers
            assert found.size_bytes == 3 * len(leftovers)
            assert not found.deleted
            assert leftovers <= files_of(lake), "it was only told"
            assert lake.checkpoints.gc(0, dry_run=False).files == found.files
            assert files_of(lake) == kept | strangers | {f"blobs/{own.name}"}
            assert_holds(lake, states)

    def test_what_no_row_tells_of_stays_for_the_grace_period(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            train(run, 1)
        young, old = new_id(), new_id()
        paths = {
            name: [
                lake.path / "blobs" / f"{name}.safetensors",
                lake.path / "checkpoints" / f"{name}.pt",
                lake.path / "blobs" / f".{name}.safetensors.partial",
            ]
            for name in (young, old)
        }
        for path in (*paths[young], *paths[old]):
            path.write_bytes(b"1")
        for path in paths[old]:
            age(path, 3700)
        assert lake.checkpoints.gc(dry_run=False).deleted
        assert [path.exists() for path in paths[young]] == [True] * 3
        assert [path.exists() for path in paths[old]] == [False] * 3
        for path in paths[young]:
            age(path, -1000)
        lake.checkpoints.gc(10, dry_run=False)
        assert [path.exists() for path in paths[young]] == [True] * 3, "a clock that went backwards makes nothing old"
        lake.checkpoints.gc(0, dry_run=False)
        assert [path.exists() for path in paths[young]] == [False] * 3

    def test_a_young_manifest_without_a_row_keeps_all_it_needs(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            (first,) = train(run, 1)
            other = unlisted_copy(lake, first)
            for path in (lake.path / "blobs").glob("*.safetensors"):
                age(path, 7200)
            lake.checkpoints.delete(first)
            assert f"blobs/{first}.safetensors" in files_of(lake), "the unlisted one shares it"
            assert lake.checkpoints.gc(dry_run=False).files == ()
            age(lake.path / "checkpoints" / f"{other}.json", 7200)
            assert swept(lake.checkpoints.gc(dry_run=False).files) == {
                f"blobs/{first}.safetensors": "no checkpoint needs it",
                f"checkpoints/{other}.json": "no row tells of its checkpoint",
            }
            assert files_of(lake) == set()

    def test_files_of_deleted_ones_need_no_grace(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            first, _ = train(run, 2)
            manifest = lake.path / "checkpoints" / f"{first}.json"
            kept = manifest.read_bytes()
            lake.checkpoints.delete(first)
            manifest.write_bytes(kept)
            found = lake.checkpoints.gc(dry_run=False)
            assert swept(found.files) == {f"checkpoints/{first}.json": "its checkpoint was deleted"}

    def test_an_empty_lake(self, lake: Lake) -> None:
        assert lake.checkpoints.gc(dry_run=False).files == ()
        assert lake.checkpoints.gc().sentence() == "0 files of 0 bytes are not needed any more"

    @pytest.mark.parametrize("grace_s", [-1, 1e10, float("nan")])
    def test_grace_periods_that_make_no_sense(self, lake: Lake, grace_s: float) -> None:
        with pytest.raises(InvalidInputError, match="grace_s"):
            lake.checkpoints.gc(grace_s)

    def test_of_a_row_that_tells_no_packs_the_manifest_is_read(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rows, "saved_row", lambda *args: saved_row(*args) | {"packs": None})
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            assert lake.checkpoints.gc(0, dry_run=False).files == ()
            first = next(iter(states))
            lake.checkpoints.delete(first)
            del states[first]
            lake.checkpoints.gc(0, dry_run=False)
            assert len(lake.checkpoints.compact(keep_raw=0).packs) == 2
            assert_holds(lake, states)

    def test_such_a_checkpoint_keeps_what_another_loses(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        with lake.run(experiment="x", run_id="one", capture=NOTHING) as run:
            states = train(run, 2)
        first = next(iter(states))
        monkeypatch.setattr(rows, "saved_row", lambda *args: saved_row(*args) | {"packs": None})
        with lake.run(experiment="x", run_id="two", capture=NOTHING) as run:
            states[save(run, states[first])] = states[first]
        plan = lake.checkpoints.plan_retention("latest(9)", keep_optimizer=1, run="one")
        assert lake.checkpoints.apply(plan).trimmed == (first,)
        states[first] = {name: states[first][name] for name in ("model", "step")}
        assert_holds(lake, states)

    def test_manifests_are_not_read_to_find_out(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            lake.checkpoints.compact()
            with monkeypatch.context() as patched:
                patched.delattr(CheckpointStore, "read_manifest")
                patched.delattr(Archive, "__init__")
                assert lake.checkpoints.gc(0, dry_run=False).files == ()
            assert_holds(lake, states)


class TestPacks:
    def test_a_pack_stays_while_one_checkpoint_shares_a_tensor_of_it(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            first, second, third = states
            lake.checkpoints.delete(first, third)
            assert_holds(lake, {second: states[second]})
            assert f"blobs/{first}.safetensors" in files_of(lake)
            assert files_of(lake) == needed_files(lake)
            lake.checkpoints.delete(second)
            assert files_of(lake) == set()

    def test_bases_stay_while_a_delta_needs_them(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 5)
            lake.checkpoints.compact(keep_raw=0)
            *others, last = states
            lake.checkpoints.delete(*others)
            assert_holds(lake, {last: states[last]})
            assert lake.checkpoints.gc(0, dry_run=False).files == ()
            assert_holds(lake, {last: states[last]})
            lake.checkpoints.delete(last)
            assert files_of(lake) == set()

    def test_bases_of_a_compression_that_another_process_recorded(self, lake: Lake, tmp_path: Path) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 2)
            with quiet_lake(lake.path) as other:
                other.checkpoints.compact(keep_raw=0)
            first, last = states
            lake.checkpoints.delete(first)
            assert lake.checkpoints.gc(0, dry_run=False).files == ()
            assert_holds(lake, {last: states[last]})

    def test_a_compressed_pack_that_no_row_tells_of_keeps_its_bases(self, lake: Lake, tmp_path: Path) -> None:
        """Where the tables are older than the packs, a pack itself says what it needs."""
        training = Training()
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 1, training)
            training.frozen = training.frozen + 1
            states |= train(run, 1, training)
            first, last = states
            lake.commit()
            shutil.copytree(lake.path / "tables", tmp_path / "tables")
            lake.checkpoints.compact(keep_raw=0)
        lake.close()
        shutil.rmtree(lake.path / "tables")
        shutil.copytree(tmp_path / "tables", lake.path / "tables")
        with quiet_lake(lake.path) as again:
            assert again.checkpoints.get(last).stored_bytes > 40_000, "nothing tells of the compression"
            again.checkpoints.delete(first)
            assert again.checkpoints.gc(0, dry_run=False).files == ()
            assert_holds(again, {last: states[last]})

    def recompressed(self, lake: Lake, states: Mapping[str, State]) -> tuple[Path, Path]:
        """Compress everything, then put the uncompressed pack of the second back; return both of its files."""
        second = list(states)[1]
        raw = lake.path / "blobs" / f"{second}.safetensors"
        kept = raw.read_bytes()
        lake.checkpoints.compact()
        raw.write_bytes(kept)
        return raw, raw.with_suffix(".ckpk")

    def test_an_uncompressed_pack_beside_its_recorded_successor(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            raw, packed = self.recompressed(lake, states)
            (file,) = lake.checkpoints.gc(dry_run=False).files
            assert file.path == f"blobs/{raw.name}"
            assert packed.exists()
            assert_holds(lake, states)

    @pytest.mark.parametrize("damaged", [False, True], ids=["with other bases", "cut short"])
    def test_an_uncompressed_pack_beside_one_that_was_never_recorded(self, lake: Lake, damaged: bool) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            raw, packed = self.recompressed(lake, states)
            packed.unlink()
            writer = ArchiveWriter(packed, {})
            zeros = memoryview(bytes(4000))
            ones = memoryview(bytes(range(250)) * 16)
            base = Base("d", "blobs/elsewhere")
            writer.add("d", "float32", 4000, lambda a, b: ones[a:b], base, lambda a, b: ones[a:b])
            writer.add("e", "float32", 4000, lambda a, b: zeros[a:b])
            writer.finish()
            if damaged:
                packed.write_bytes(packed.read_bytes()[:-1])
            (file,) = lake.checkpoints.gc(dry_run=False).files
            assert file.path == f"blobs/{packed.name}"
            assert_holds(lake, states)
            lake.checkpoints.compact()
            assert not raw.exists()
            assert_holds(lake, states)

    @given(st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=3)), st.sets(st.integers(0, 8)))
    def test_the_closure_is_what_can_be_reached(self, edges: dict[int, list[int]], start: set[int]) -> None:
        reached = set(start)
        for _ in range(10):
            reached |= {other for one in reached for other in edges.get(one, [])}
        named = {str(one): [str(other) for other in others] for one, others in edges.items()}
        found = closed_over_bases(map(str, start), lambda pack: named.get(pack, []))
        assert found == {str(one) for one in reached}


class TestBesideOthers:
    def test_it_waits_for_a_save_and_sees_what_that_needs(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        training = Training()
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 1, training)
            lost = next(iter(states))
            saving, sweeping = threading.Event(), threading.Event()
            publish = CheckpointStore.publish

            def slow(store: CheckpointStore, *given: Any) -> None:
                saving.set()
                assert sweeping.wait(60)
                publish(store, *given)

            monkeypatch.setattr(CheckpointStore, "publish", slow)
            last = training.next_state()
            saver = threading.Thread(target=lambda: states.update({save(run, last): last}))
            saver.start()
            assert saving.wait(60)

            def delete() -> None:
                sweeping.set()
                lake.checkpoints.delete(lost)
                lake.checkpoints.gc(0, dry_run=False)

            deleter = threading.Thread(target=delete)
            deleter.start()
            saver.join()
            deleter.join()
            del states[lost]
            assert_holds(lake, states)
            assert f"blobs/{lost}.safetensors" in files_of(lake), "the frozen tensor lies there"

    def test_the_index_forgets_a_pack_before_it_goes(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []
        forget, unlink = BlobIndex.forget_packs, os.unlink
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 1)

            def forgetting(index: BlobIndex, packs: Iterator[str]) -> None:
                found = list(packs)
                order.extend(f"forget {pack}" for pack in found)
                forget(index, found)

            def unlinking(path: Path, **kwargs: object) -> None:
                order.append(f"unlink {Path(path).parent.name}/{Path(path).stem}")
                unlink(path, **kwargs)  # type: ignore[arg-type]

            monkeypatch.setattr(BlobIndex, "forget_packs", forgetting)
            monkeypatch.setattr(os, "unlink", unlinking)
            lake.checkpoints.delete(*states)
            (gone,) = states
            assert order[:3] == [f"forget blobs/{gone}", f"unlink checkpoints/{gone}", f"unlink blobs/{gone}"]
            monkeypatch.undo()
            again = save(run, states[gone], step=5)
            assert_holds(lake, {again: states[gone]})
