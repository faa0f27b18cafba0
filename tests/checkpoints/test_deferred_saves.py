"""Digests left for later: what is there at once, what follows, and what a crash in between leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptlake
from ckptlake import Lake, Run
from ckptlake.checkpoints import appending, rawpack, session, store
from ckptlake.config import Capture
from ckptlake.integrity.headers import make_header, read_header

SIZES = (0, 1, 3, 16, 64, 1024, 5000, 70_000)


class TestDigests:
    def test_they_are_filled_in(self, lake: Lake, run: Run) -> None:
        state = {"w": torch.randn(1000, 100), "lr": 0.1}
        saved = run.save_checkpoint(state, step=1, digest="deferred")
        assert saved.digest is None
        run._finish_saving()
        record = lake.checkpoints.get(saved.id)
        assert record.digest == run.save_checkpoint(state, step=2).digest
        assert lake.sql("SELECT count(*) FROM tensors WHERE step = 1 AND digest IS NOT NULL").fetchall() == [(1,)]
        assert lake.checkpoints.list(run)[1].stored_bytes == 0

    def test_nothing_is_left_for_later_where_the_lake_has_every_tensor(self, lake: Lake, run: Run) -> None:
        state = {"w": torch.randn(1000, 100), "b": torch.randn(5000)}
        first = run.save_checkpoint(state, step=1)
        again = run.save_checkpoint(state, step=2, digest="deferred")
        assert again.digest == first.digest
        assert again.stored_bytes == 0
        columns = "path, digest, mean, l2_norm, n_nan, l2_distance"
        rows = [lake.sql(f"SELECT {columns} FROM tensors WHERE step = {n} ORDER BY path").fetchall() for n in (1, 2)]
        assert rows[1] == [(*row[:-1], 0.0) for row in rows[0]]
        assert torch.equal(run.load_checkpoint(again.id, verify="digest")["w"], state["w"])

    def test_a_checkpoint_without_them_loads_and_verifies(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from ckptlake.checkpoints.session import CheckpointSession

        monkeypatch.setattr(CheckpointSession, "_seal_later", lambda *_: None)
        state = {"w": torch.randn(100, 100)}
        saved = run.save_checkpoint(state, digest="deferred")
        assert torch.equal(run.load_checkpoint(saved.id, verify="digest")["w"], state["w"])

    def test_damage_before_they_are_taken_is_found(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        from ckptlake.checkpoints import sealing
        from ckptlake.errors import DamagedCheckpointError

        real = sealing.measure_view

        def damage(tensor: Any, view: memoryview, previous: Any) -> Any:
            spoiled = bytearray(view)
            spoiled[0] ^= 1
            return real(tensor, memoryview(spoiled), previous)

        monkeypatch.setattr(sealing, "measure_view", damage)
        with pytest.raises(DamagedCheckpointError, match="'w'"), lake.run(capture=Capture.nothing()) as run:
            run.save_checkpoint({"w": torch.ones(10)}, digest="deferred")

    def test_one_that_is_deleted_before_stays_deleted(self, lake: Lake, run: Run) -> None:
        from ckptlake.checkpoints.sealing import seal

        saved = run.save_checkpoint({"w": torch.randn(100, 100)}, digest="deferred")
        manifest = lake.checkpoints._store.read_manifest(saved.id)
        run._finish_saving()
        lake.checkpoints.delete(saved.id)
        seal(lake.checkpoints._store, manifest, None, lake._get_writer())
        assert lake.checkpoints.list(run) == []
        assert not (lake.path / "checkpoints" / f"{saved.id}.json").exists()


class TestPlaces:
    """Long tensors lie where their turn came, the others behind them."""

    @pytest.fixture(autouse=True)
    def _short_is_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(appending, "_LONG_BYTES", 1024)

    @settings(max_examples=40)
    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from("abcdefgh"),
                st.tuples(st.sampled_from(SIZES), st.sampled_from(["u1", "f2", "f4", "f8"]), st.integers(0, 2)),
                max_size=8,
            ),
            min_size=1,
            max_size=4,
        ),
        st.sampled_from(["packed", "safetensors"]),
        st.sampled_from(["deferred", "sha256", "in the background"]),
    )
    def test_every_state_comes_back_and_other_programs_read_its_pack(
        self, plans: list[dict[str, tuple[int, str, int]]], form: str, how: str
    ) -> None:
        from safetensors.numpy import load_file

        with tempfile.TemporaryDirectory() as folder, ckptlake.open(folder) as lake:
            run = lake.run(capture=Capture.nothing())
            for plan in plans:
                state = {
                    name: np.full(size, fill, kind) if fill else (np.arange(size) % 251).astype(kind)
                    for name, (size, kind, fill) in plan.items()
                }
                if how == "in the background":
                    saved = run.save_checkpoint(state, async_=True, format=form).wait()
                else:
                    saved = run.save_checkpoint(state, digest=how, format=form)
                loaded = run.load_checkpoint(saved.id, verify="digest")
                for name, array in state.items():
                    assert loaded[name].dtype == array.dtype
                    assert np.array_equal(loaded[name], array)
                pack = Path(folder) / ("blobs" if form == "packed" else "checkpoints") / f"{saved.id}.safetensors"
                if pack.exists():
                    assert pack.stat().st_size == saved.stored_bytes
                    for name, array in load_file(pack).items():
                        assert np.array_equal(array, state[name])
                    told = read_header(pack)
                    assert told is not None
                    assert told.manifest is not None
                    made = make_header(told.manifest, f"{pack.parent.name}/{pack.stem}")
                    assert made is None or made.payload == told.payload
                    assert made is not None or not told.data_bytes
                with lake.checkpoints.open(saved.id) as opened:
                    reference = run.save_checkpoint(state, format=form)
                    assert lake.checkpoints.get(saved.id).digest == reference.digest
                    assert len(opened.manifest.tensors) == len(state)
            run.finish()

    @pytest.mark.parametrize("digest", ["deferred", "sha256"])
    def test_what_the_lake_has_is_not_written_again(self, run: Run, digest: str) -> None:
        frozen, other = torch.randn(4096), torch.randn(4096)
        run.save_checkpoint({"frozen": frozen})
        saved = run.save_checkpoint({"frozen": frozen, "twin": other, "other": other.clone()}, digest=digest)
        assert other.nbytes <= saved.stored_bytes < 2 * other.nbytes
        assert torch.equal(run.load_checkpoint(saved.id, verify="digest")["other"], other)

    @pytest.mark.parametrize("digest", ["deferred", "sha256"])
    def test_names_of_more_packs_than_there_is_room_for(
        self, lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch, digest: str
    ) -> None:
        monkeypatch.setattr(appending, "ROOM_BYTES", 0)
        parts = {f"part {number}": torch.randn(5000) for number in range(20)}
        for name, tensor in parts.items():
            run.save_checkpoint({name: tensor})
        state = {**parts, "new": torch.randn(4096)}
        saved = run.save_checkpoint(state, digest=digest)
        assert saved.stored_bytes < 2 * state["new"].nbytes + 64 * 1024
        loaded = run.load_checkpoint(saved.id, verify="digest")
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
        assert not list((lake.path / "blobs").glob(".*partial"))


class TestTheDisk:
    """The call does not wait for it; nothing that could be lost takes the place of what could not."""

    @pytest.fixture
    def synced(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names: list[str] = []

        def noting(real: Callable[..., None]) -> Callable[..., None]:
            def note(target: int | Path) -> None:
                real(target)
                names.append(os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target))

            return note

        monkeypatch.setattr(rawpack.os, "fsync", noting(os.fsync))
        monkeypatch.setattr(store, "sync_file", noting(store.sync_file))
        return names

    @pytest.fixture
    def may_seal(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """Hold the taking of digests back until it is set."""
        event = threading.Event()
        real = session.seal

        def seal(*given: Any) -> Any:
            assert event.wait(60)
            return real(*given)

        monkeypatch.setattr(session, "seal", seal)
        return event

    def test_the_pack_is_on_it_once_the_digests_are_there(
        self, lake: Lake, run: Run, synced: list[str], may_seal: threading.Event
    ) -> None:
        saved = run.save_checkpoint({"w": torch.randn(1000)}, digest="deferred")
        pack = str(lake.path / "blobs" / f"{saved.id}.safetensors")
        assert lake.checkpoints.get("latest").id == saved.id
        assert pack not in synced
        may_seal.set()
        run._finish_saving()
        assert pack in synced

    def test_in_the_background_all_is_done_before_it_is_listed(
        self, run: Run, synced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed: list[bool] = []
        real = session.CheckpointSession._commit

        def commit(this: session.CheckpointSession, request: Any, written: Any, *rest: Any) -> None:
            listed.append(any(written.manifest.checkpoint_id in name for name in synced))
            real(this, request, written, *rest)

        monkeypatch.setattr(session.CheckpointSession, "_commit", commit)
        saved = run.save_checkpoint({"w": torch.randn(1000)}, digest="deferred", async_=True).wait(60)
        assert listed == [True]
        assert saved.digest is not None

    def test_older_ones_go_only_when_it_is(self, lake: Lake, run: Run, may_seal: threading.Event) -> None:
        run.retain_checkpoints("latest(1)")
        first = run.save_checkpoint({"w": torch.randn(1000)}, step=1)
        second = run.save_checkpoint({"w": torch.randn(1000)}, step=2, digest="deferred")
        assert [one.id for one in lake.checkpoints.list(run)] == [first.id, second.id]
        may_seal.set()
        run._finish_saving()
        assert [one.id for one in lake.checkpoints.list(run)] == [second.id]

    def test_whoever_deletes_older_ones_waits_for_it(
        self, lake: Lake, run: Run, synced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session.CheckpointSession, "_seal_later", lambda *_: None)
        run.save_checkpoint({"w": torch.randn(1000)}, step=1)
        saved = run.save_checkpoint({"w": torch.randn(1000)}, step=2, digest="deferred")
        pack = str(lake.path / "blobs" / f"{saved.id}.safetensors")
        assert pack not in synced
        applied = lake.checkpoints.apply(lake.checkpoints.plan_retention("latest(1)"))
        assert len(applied.deleted) == 1
        assert pack in synced

    def test_a_process_killed_right_after_the_call_loses_nothing(self, tmp_path: Path) -> None:
        program = """
import os, signal, sys, torch, ckptlake
from ckptlake.config import Capture
run = ckptlake.open(sys.argv[1]).run(run_id="killed", capture=Capture.nothing())
torch.manual_seed(0)
run.save_checkpoint({"w": torch.randn(1 << 20)}, step=7, digest="deferred")
os.kill(os.getpid(), signal.SIGKILL)
"""
        ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "lake")], check=False)
        assert ended.returncode == -signal.SIGKILL
        torch.manual_seed(0)
        expected = torch.randn(1 << 20)
        with ckptlake.open(tmp_path / "lake") as lake:
            assert lake.checkpoints.get("latest").step == 7
            assert torch.equal(lake.checkpoints.load("latest")["w"], expected)
