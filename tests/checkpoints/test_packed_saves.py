"""Saving in the packed format: what is written, what is shared, what is recorded."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptlake
from ckptlake import Lake, Run
from ckptlake.checkpoints.checksums import CHECKED_BYTES, check, quick_key, root_digest, spans
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.rawpack import RawPack
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.config import Capture
from ckptlake.errors import InvalidInputError, RunClosedError, StorageError


def packs(lake: Lake) -> list[Path]:
    return sorted((lake.path / "blobs").glob("*.safetensors"))


def manifest_of(lake: Lake, checkpoint_id: str) -> Manifest:
    path = lake.path / "checkpoints" / f"{checkpoint_id}.json"
    return Manifest.decode(path.read_bytes(), str(path))


def weights(seed: int, shape: tuple[int, ...] = (300, 70)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestWhatIsWritten:
    def test_a_pack_is_a_plain_safetensors_file(self, lake: Lake, run: Run) -> None:
        deeper = {"c": torch.arange(7), "half": weights(2).bfloat16()}
        state = {"a": weights(1), "b": deeper, "empty": torch.empty(0, 3)}
        run.save_checkpoint(state, step=1)
        (pack,) = packs(lake)
        read = safetensors.torch.load_file(pack)
        assert torch.equal(read["a"], state["a"])
        assert torch.equal(read["b/half"], deeper["half"])
        assert read["empty"].shape == (0, 3)

    def test_big_tensors_lie_at_multiples_of_64_bytes(self, lake: Lake, run: Run) -> None:
        state = {f"t{size}": weights(size, (size, 16)) for size in (1, 3, 50, 1000)}
        run.save_checkpoint(state | {"odd": torch.ones(3)})
        pack = RawPack(packs(lake)[0])
        slots, _ = pack.header()
        assert pack.data_start % 64 == 0
        assert all(slot.offset % 64 == 0 for slot in slots if slot.nbytes % 64 == 0)
        assert min(slot.offset for slot in slots) == 0

    @pytest.mark.parametrize("path", ["", "__metadata__", "a/b", "ü\ud800x"])
    def test_names_that_a_header_could_not_hold(self, lake: Lake, run: Run, path: str) -> None:
        state: object = torch.ones(3) if path == "" else {path: torch.ones(3)}
        saved = run.save_checkpoint(state, step=1)
        loaded = run.load_checkpoint(saved.id).state
        assert torch.equal(loaded if path == "" else loaded[path], torch.ones(3))
        assert len(safetensors.torch.load_file(packs(lake)[0])) == 1

    def test_digests_are_those_of_the_bytes(self, lake: Lake, run: Run) -> None:
        state = {"w": weights(3, (2000, 1000)), "n": np.arange(5, dtype=np.int16)}
        saved = run.save_checkpoint(state, step=1)
        by_path = {tensor.path: tensor for tensor in manifest_of(lake, saved.id).tensors}
        assert by_path["w"].digest == hashlib.sha256(state["w"].numpy().tobytes()).hexdigest()
        assert by_path["n"].digest == hashlib.sha256(state["n"].tobytes()).hexdigest()
        assert by_path["w"].checks == tuple(
            check(state["w"].numpy().tobytes()[a:b]) for a, b in spans(state["w"].nbytes)
        )

    def test_the_root_covers_paths_dtypes_shapes_digests_and_plain_values(self, run: Run) -> None:
        same = {"w": torch.ones(4), "lr": 0.1}
        digests = [
            run.save_checkpoint(state, step=number).digest
            for number, state in enumerate(
                [
                    same,
                    dict(reversed(same.items())),
                    {"v": torch.ones(4), "lr": 0.1},
                    {"w": torch.ones(2, 2), "lr": 0.1},
                    {"w": torch.ones(4).int(), "lr": 0.1},
                    {"w": torch.ones(4), "lr": 0.2},
                    {"w": torch.ones(4), "lr": 0.1},
                ]
            )
        ]
        assert digests[0] == digests[-1]
        assert len(set(digests)) == len(digests) - 1

    def test_the_root_by_hand(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"b": torch.ones(2), "a": torch.zeros(3, dtype=torch.int64)})
        manifest = manifest_of(lake, saved.id)
        tree = hashlib.sha256(json.dumps(manifest.tree, separators=(",", ":")).encode()).hexdigest()
        zeros, ones = hashlib.sha256(bytes(24)).hexdigest(), hashlib.sha256(np.ones(2, "<f4").tobytes()).hexdigest()
        lines = [["", "json", [], tree], ["a", "int64", [3], zeros], ["b", "float32", [2], ones]]
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        assert saved.digest == hashlib.sha256(text.encode()).hexdigest()

    def test_nothing_but_the_checkpoint_is_left(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"w": weights(1)}, step=1)
        assert [path.name for path in (lake.path / "checkpoints").iterdir()] == [f"{saved.id}.json"]
        assert {path.name for path in (lake.path / "blobs").iterdir() if path.name[0] != "."} == {packs(lake)[0].name}
        assert not list(lake.path.rglob("*.partial"))


class TestWhatIsShared:
    def test_a_state_saved_twice_costs_nothing(self, lake: Lake, run: Run) -> None:
        state = {"w": weights(1), "b": weights(2, (3,))}
        first, second = run.save_checkpoint(state, step=1), run.save_checkpoint(state, step=2)
        assert first.stored_bytes > first.logical_bytes > 0
        assert second.stored_bytes == 0
        assert len(packs(lake)) == 1
        assert torch.equal(run.load_checkpoint(second.id)["w"], state["w"])

    def test_only_what_changed_is_written(self, lake: Lake, run: Run) -> None:
        backbone, head = weights(1, (1000, 100)), weights(2, (10, 10))
        run.save_checkpoint({"backbone": backbone, "head": head}, step=1)
        second = run.save_checkpoint({"backbone": backbone, "head": head + 1}, step=2)
        assert second.stored_bytes < 10_000
        written = lake.path / "blobs" / f"{second.id}.safetensors"
        assert set(safetensors.torch.load_file(written)) == {"head"}

    def test_across_runs_processes_names_and_dtypes(self, lake: Lake) -> None:
        values = np.arange(1000, dtype=np.float32)
        with lake.run(capture=Capture.nothing()) as first:
            first.save_checkpoint({"w": values})
        again = ckptlake.open(lake.path)
        with again.run(capture=Capture.nothing()) as second:
            saved = second.save_checkpoint({"other": values.view(np.int32).reshape(10, 100)})
            assert saved.stored_bytes == 0
            assert np.array_equal(second.load_checkpoint(saved.id)["other"], values.view(np.int32).reshape(10, 100))
        again.close()

    def test_equal_tensors_within_a_state_are_stored_once_but_loaded_apart(self, lake: Lake, run: Run) -> None:
        zeros = torch.zeros(100_000)
        saved = run.save_checkpoint({"a": zeros, "b": zeros.clone(), "n": np.zeros(100_000, "f4")})
        assert saved.stored_bytes < 410_000
        state = run.load_checkpoint(saved.id).state
        state["a"] += 1
        assert not state["b"].any()
        assert not state["n"].any()

    def test_steps_of_an_optimizer_do_not_become_one(self, run: Run) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(3):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
        saved = run.save_checkpoint(model=model, optimizer=optimizer)
        run.load_checkpoint(saved.id, into={"model": model, "optimizer": optimizer})
        optimizer.step()
        assert {float(state["step"]) for state in optimizer.state.values()} == {4.0}

    def test_small_tensors_alone_keep_no_other_pack(self, lake: Lake, run: Run) -> None:
        first = run.save_checkpoint({"w": weights(1), "step": torch.tensor(7.0), "bias": torch.ones(9)}, step=1)
        second = run.save_checkpoint({"w": weights(2), "step": torch.tensor(7.0), "bias": torch.ones(9)}, step=2)
        assert manifest_of(lake, second.id).packs == {f"blobs/{second.id}"}
        third = run.save_checkpoint({"w": weights(1), "step": torch.tensor(7.0), "more": torch.rand(9)}, step=3)
        assert manifest_of(lake, third.id).packs == {f"blobs/{first.id}", f"blobs/{third.id}"}
        by_path = {tensor.path: tensor.pack for tensor in manifest_of(lake, third.id).tensors}
        assert by_path["step"] == f"blobs/{first.id}"
        for which, seed in ((first, 1), (second, 2), (third, 1)):
            state = run.load_checkpoint(which.id, verify="digest").state
            assert torch.equal(state["w"], weights(seed))
            assert state["step"] == 7

    def test_an_index_that_is_lost_is_made_anew(self, lake: Lake, run: Run) -> None:
        state = {"w": weights(1)}
        run.save_checkpoint(state, step=1)
        (lake.path / "blobs" / ".index.sqlite").unlink()
        assert run.save_checkpoint(state, step=2).stored_bytes == 0

    @pytest.mark.parametrize("damage", [b"", b"no database at all" * 100])
    def test_a_damaged_index_is_made_anew(self, lake: Lake, damage: bytes) -> None:
        with lake.run(capture=Capture.nothing()) as first:
            first.save_checkpoint({"w": weights(1)}, step=1)
        lake.checkpoints._store.index.close()
        (lake.path / "blobs" / ".index.sqlite").write_bytes(damage)
        again = ckptlake.open(lake.path)
        with again.run(capture=Capture.nothing()) as second:
            assert second.save_checkpoint({"w": weights(1)}, step=2).stored_bytes == 0
        again.close()

    def test_a_collision_of_the_fast_key_is_no_match(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from ckptlake.checkpoints import packed, store

        monkeypatch.setattr(packed, "quick_key", lambda checks, nbytes: b"k" * 16)
        monkeypatch.setattr(store, "quick_key", lambda checks, nbytes: b"k" * 16)
        states = [{"a": weights(number), "b": weights(number + 10)} for number in range(3)]
        saved = [run.save_checkpoint(state, step=number) for number, state in enumerate(states)]
        for one, state in zip(saved, states, strict=True):
            assert all(torch.equal(run.load_checkpoint(one.id, verify="digest")[name], state[name]) for name in state)

    def test_a_pack_that_has_gone_is_not_shared(self, lake: Lake, run: Run) -> None:
        state = {"w": weights(1)}
        run.save_checkpoint(state, step=1)
        packs(lake)[0].unlink()
        second = run.save_checkpoint(state, step=2)
        assert second.stored_bytes > 0
        assert torch.equal(run.load_checkpoint(second.id, verify="digest")["w"], state["w"])


class TestWhatIsRecorded:
    def test_the_metrics_logged_at_the_step(self, lake: Lake, run: Run) -> None:
        run.log({"val/loss": 0.5}, step=3)
        run.log({"val": {"acc": 0.9}}, step=3)
        run.log({"val/loss": 0.4}, step=4)
        assert run.save_checkpoint({"w": 1}, step=3).step == 3
        assert lake.checkpoints.get(3).metrics == {"val/loss": 0.5, "val/acc": 0.9}
        assert run.save_checkpoint({"w": 1}).step == 4

    def test_given_metrics_with_values_that_json_has_not(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"w": 1}, metrics={"a": float("nan"), "b": float("inf"), "c": np.float32(0.1)})
        found = lake.checkpoints.get(saved.id).metrics
        assert np.isnan(found["a"])
        assert found["b"] == float("inf")
        assert found["c"] == float(np.float32(0.1))
        assert manifest_of(lake, saved.id).metrics["b"] == float("inf")

    def test_a_row_a_tensor_with_its_statistics(self, lake: Lake, run: Run) -> None:
        first, second = weights(1), weights(1) + 0.5
        run.save_checkpoint({"w": first, "frozen": weights(9)}, step=1)
        run.save_checkpoint({"w": second, "frozen": weights(9)}, step=2)
        rows = lake.sql("SELECT * FROM tensors ORDER BY step, path").pl().to_dicts()
        assert [(row["step"], row["path"]) for row in rows] == [(1, "frozen"), (1, "w"), (2, "frozen"), (2, "w")]
        last = rows[3]
        assert last["l2_distance"] == pytest.approx(float((second - first).norm()), rel=1e-5)
        assert last["l2_norm"] == pytest.approx(float(second.norm()), rel=1e-5)
        assert (last["shape"], last["dtype"], last["codec"]) == ([300, 70], "float32", "raw")
        assert (rows[2]["l2_distance"], rows[2]["codec"], rows[2]["stored_bytes"]) == (0.0, "shared", 0)
        assert rows[0]["l2_distance"] is None
        assert last["previous_checkpoint_id"] == rows[1]["checkpoint_id"]

    def test_pins_aliases_notes_and_epochs(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"w": 1}, step=1, epoch=2, pin=True, alias="paper", note="for the table")
        record = lake.checkpoints.get("paper")
        assert (record.id, record.epoch, record.pinned, record.note) == (saved.id, 2, True, "for the table")


class TestWhatIsRefused:
    def test_what_cannot_be_kept_names_its_path_and_leaves_nothing(self, lake: Lake, run: Run) -> None:
        with pytest.raises(InvalidInputError, match="schedule"):
            run.save_checkpoint({"w": weights(1), "more": {"schedule": lambda step: step}})
        assert not (lake.path / "blobs").exists() or not packs(lake)
        assert lake.checkpoints.list() == []

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"format": "saftensors"}, "did you mean 'safetensors'"),
            ({"digest": "md5"}, "md5"),
            ({"alias": "latest"}, "worked out"),
            ({"alias": "12"}, "looks like a step"),
            ({"step": 1.5}, "step"),
            ({"metrics": {"a": "high"}}, "'a'"),
            ({"rng": True}, "rng"),
            ({"model": torch.nn.Linear(1, 1)}, "model"),
        ],
    )
    def test_choices(self, run: Run, choices: dict[str, object], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            run.save_checkpoint({"w": 1}, **choices)

    def test_nothing_at_all(self, run: Run) -> None:
        with pytest.raises(InvalidInputError, match="state"):
            run.save_checkpoint()

    def test_a_run_that_has_ended(self, lake: Lake) -> None:
        with lake.run(capture=Capture.nothing()) as run:
            pass
        with pytest.raises(RunClosedError, match="resume"):
            run.save_checkpoint({"w": 1})


@settings(max_examples=15)
@given(
    arrays=st.lists(
        st.tuples(st.integers(0, 3000), st.sampled_from(["f4", "f2", "i8", "u1", "?", "c8"]), st.integers(0, 3)),
        max_size=8,
    ),
    big=st.integers(0, 2),
)
def test_any_arrays_come_back(tmp_path_factory: pytest.TempPathFactory, arrays: list, big: int) -> None:
    chance = np.random.default_rng(0)
    state = {
        f"{number}": np.full(size, seed).astype(kind) if seed else chance.integers(0, 99, size).astype(kind)
        for number, (size, kind, seed) in enumerate(arrays)
    }
    state |= {f"big{n}": chance.standard_normal(CHECKED_BYTES // 4 + n).astype("f4") for n in range(big)}
    with ckptlake.open(tmp_path_factory.mktemp("lake")) as lake, lake.run(capture=Capture.nothing()) as run:
        for step in range(2):
            run.save_checkpoint(state, step=step)
        loaded = run.load_checkpoint("latest", verify="digest").state
        assert loaded.keys() == state.keys()
        assert all(loaded[k].dtype == v.dtype and np.array_equal(loaded[k], v) for k, v in state.items())
        if any(array.size for array in state.values()):
            assert set(safetensors.numpy.load_file(packs(lake)[0])) <= set(state)


def test_many_threads_save_at_once(lake: Lake, run: Run) -> None:
    def save(number: int) -> None:
        run.save_checkpoint({"own": weights(number), "same": weights(99)}, step=number)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lake.checkpoints.list(run)
    assert sorted(record.step for record in found if record.step is not None) == list(range(8))
    for record in found:
        assert torch.equal(run.load_checkpoint(record.id, verify="digest")["own"], weights(record.step or 0))


def test_quick_keys_and_roots_tell_contents_apart() -> None:
    assert quick_key((1, 2), 10) != quick_key((2, 1), 10) != quick_key((2, 1), 11)
    assert root_digest({}, []) == root_digest({}, []) != root_digest([], [])


@pytest.mark.parametrize("is_refused", [False, True])
def test_nobody_goes_on_writing_once_a_save_is_over(
    lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    state = {"weights": np.random.default_rng(0).standard_normal(1 << 20)}
    advised: list[int] = []
    advise = os.posix_fadvise
    monkeypatch.setattr(os, "posix_fadvise", lambda *args: (advised.append(args[2]), advise(*args)))
    if is_refused:
        monkeypatch.setattr(CheckpointStore, "publish", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(StorageError, match="No space left"):
            run.save_checkpoint(state)
        monkeypatch.undo()
    else:
        run.save_checkpoint(state)
    assert sum(advised) == 8 << 20
    assert not [thread for thread in threading.enumerate() if thread.name == "ckptlake-write-back"]
