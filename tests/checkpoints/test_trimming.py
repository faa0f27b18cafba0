"""Optimizer state left out of older checkpoints: the rest loads as before, and the bytes are free."""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
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
    same,
    save,
    train,
)
from hypothesis import given
from hypothesis import strategies as st

from ckptlake import Lake
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.restore import unflatten
from ckptlake.checkpoints.tree import flatten, read_bytes
from ckptlake.checkpoints.trimming import OPTIMIZER_NAMES, trimmed
from ckptlake.errors import InvalidInputError


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with quiet_lake(tmp_path / "lake") as opened:
        yield opened


def lean(state: State) -> State:
    return {name: part for name, part in state.items() if name not in OPTIMIZER_NAMES}


def manifest_of(state: object, **choices: Any) -> tuple[Manifest, list[bytes]]:
    """Return the manifest that a state would have, and the bytes of its leaves."""
    flat = flatten(state)
    contents = [bytes(read_bytes(leaf)) for leaf in flat.leaves]
    tensors = tuple(
        StoredTensor(leaf.path, leaf.dtype.name, leaf.shape, f"{number:064x}", (0,), "blobs/p", number)
        for number, leaf in enumerate(flat.leaves)
    )
    fields = {
        "checkpoint_id": "c", "lake_id": "l", "run_id": "r", "experiment": "e", "attempt": 1, "step": 1, "epoch": None,
        "format": "packed", "created_at": None, "tree": flat.tree, "tensors": tensors,
    }  # fmt: skip
    return Manifest(**(fields | choices)), contents


def restored(manifest: Manifest, contents: list[bytes]) -> Any:
    """Return the state of a manifest, whose tensors remember their places in `contents` as their offsets."""
    from ckptlake.checkpoints.dtypes import get_dtype

    infos = [LeafInfo(tensor.path, get_dtype(tensor.dtype), tensor.shape) for tensor in manifest.tensors]
    tree = json.loads(json.dumps(manifest.tree))
    return unflatten(tree, infos, lambda number: memoryview(bytearray(contents[manifest.tensors[number].offset])))


arrays = st.builds(lambda seed, n: np.random.default_rng(seed).random(n), st.integers(0, 5), st.integers(1, 4))
parts = st.recursive(
    arrays | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "optim", "opt"]), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(["model", "ema", "optimizer", "optim", "opt", "optimizer_states", "step"])


class TestTrees:
    @given(st.dictionaries(names, parts))
    def test_what_is_left_is_the_state_without_the_optimizer(self, state: State) -> None:
        manifest, contents = manifest_of(state)
        before = copy.deepcopy(manifest)
        found = trimmed(manifest)
        gone = {name: part for name, part in state.items() if name in OPTIMIZER_NAMES}
        assert (found is None) == (not flatten(gone).leaves)
        assert manifest == before, "the manifest given stays as it is"
        if found is not None:
            assert same_state(restored(found, contents), lean(state))
            assert len(found.tensors) == len(flatten(lean(state)).leaves)
            assert found.digest != manifest.digest

    @pytest.mark.parametrize(
        "container",
        [
            OrderedDict,
            lambda pairs: defaultdict(list, pairs),
            lambda pairs: SimpleNamespace(**dict(pairs)),
            lambda pairs: Namespace(**dict(pairs)),
        ],
    )
    def test_other_containers_with_names(self, container: Any) -> None:
        manifest, contents = manifest_of(container({"optimizer": np.ones(3), "model": np.zeros(4)}))
        found = trimmed(manifest)
        assert found is not None
        whole = restored(found, contents)
        inside = whole if isinstance(whole, dict) else vars(whole)
        assert type(whole) is type(container({}))
        assert list(inside) == ["model"]
        assert inside["model"].tolist() == [0, 0, 0, 0]

    def test_an_ordered_dict_with_metadata(self) -> None:
        state = OrderedDict(weights=torch.ones(3), opt=torch.zeros(2))
        state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
        found = trimmed(manifest_of(state)[0])
        assert found is not None
        whole = restored(found, [bytes(12), bytes(8)])
        assert list(whole) == ["weights"]
        assert whole._metadata == {"": {"version": 1}}

    def test_memory_that_the_model_shares_with_the_optimizer_stays(self) -> None:
        flat = torch.arange(10.0)
        state = {"optimizer": {"flat": flat, "moment": torch.ones(4)}, "model": {"a": flat[2:5], "b": torch.zeros(2)}}
        manifest, contents = manifest_of(state)
        assert [tensor.path for tensor in manifest.tensors] == ["optimizer/flat", "optimizer/moment", "model/b"]
        found = trimmed(manifest)
        assert found is not None
        assert [tensor.path for tensor in found.tensors] == ["optimizer/flat", "model/b"]
        assert restored(found, contents)["model"]["a"].tolist() == [2, 3, 4]

    @pytest.mark.parametrize("state", [[np.ones(3)], np.ones(3), {"model": {"optimizer": np.ones(3)}}, {"optim": 1}, 5])
    def test_states_without_an_optimizer_at_the_top(self, state: object) -> None:
        assert trimmed(manifest_of(state)[0]) is None

    def test_what_cannot_be_rewritten_is_left_alone(self) -> None:
        state = {"model": np.ones(3), "optimizer": np.zeros(3)}
        assert trimmed(manifest_of(state)[0]) is not None
        assert trimmed(manifest_of(state, format="safetensors")[0]) is None
        manifest, _ = manifest_of(state)
        first = StoredTensor("model", "float64", (3,), None, (0,), "blobs/p", 0)
        assert trimmed(replace(manifest, tensors=(first, manifest.tensors[1]))) is None


def same_state(one: object, other: object) -> bool:
    if isinstance(one, dict | list) and type(one) is type(other):
        pairs = one.items() if isinstance(one, dict) else enumerate(one)
        others = dict(other.items() if isinstance(other, dict) else enumerate(other))  # type: ignore[attr-defined]
        return len(one) == len(others) and all(key in others and same_state(part, others[key]) for key, part in pairs)
    return same(one, other)


class TestLakes:
    def test_the_newest_keep_their_optimizer_and_the_bytes_of_the_others_are_free(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 5)
            ids = list(states)
            before = sum((lake.path / name).stat().st_size for name in files_of(lake))
            plan = lake.checkpoints.plan_retention("latest(9)", keep_optimizer=2)
            assert [decision.checkpoint_id for decision in plan.trim] == ids[:3]
            done = lake.checkpoints.apply(plan)
            after = sum((lake.path / name).stat().st_size for name in files_of(lake))
            kept = {one: lean(state) if one in ids[:3] else state for one, state in states.items()}
            assert done.trimmed == tuple(ids[:3])
            assert done.deleted == ()
            assert_holds(lake, kept)
            assert files_of(lake) == needed_files(lake)
            assert done.freed_bytes > 3 * 2 * 20_000
            manifests = sum((lake.path / "checkpoints" / f"{one}.json").stat().st_size for one in ids)
            assert before - after == pytest.approx(done.freed_bytes, abs=manifests)
            assert done.freed_bytes >= plan.freed_bytes

    def test_what_the_tables_say_afterwards(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 2)
            first, _ = states
            whole = lake.checkpoints.get(first)
            lake.checkpoints.apply(lake.checkpoints.plan_retention("latest(9)", keep_optimizer=1))
            record = lake.checkpoints.get(first)
            manifest = lake._checkpoint_store.read_manifest(first)
            assert record.digest == manifest.digest != whole.digest
            assert (record.num_tensors, record.logical_bytes) == (2, 40_000)
            assert record.stored_bytes == (lake.path / "blobs" / f"{first}.ckpk").stat().st_size
            assert codecs(lake, first) == {
                "model/frozen": "planes",
                "model/weights": "planes",
                "optimizer/first": "trimmed",
                "optimizer/second": "trimmed",
            }
            means = lake.sql("SELECT count(mean) FROM tensors WHERE checkpoint_id = $id", id=first).fetchall()
            assert means == [(4,)], "what was known of the moments can still be asked for"
            assert lake.checkpoints.verify(first, level="loads").is_good

    def test_loading_a_trimmed_optimizer_names_what_is_there(self, lake: Lake) -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(40, 30)
        optimizer = torch.optim.AdamW(model.parameters())
        weights = []
        with lake.run(experiment="x", capture=NOTHING) as run:
            for step in range(2):
                model(torch.ones(1, 40)).sum().backward()
                optimizer.step()
                weights.append(model.weight.detach().clone())
                run.save_checkpoint(model=model, optimizer=optimizer, step=step)
            lake.checkpoints.apply(lake.checkpoints.plan_retention("latest(9)", keep_optimizer=1))
            again = torch.nn.Linear(40, 30)
            run.load_checkpoint(0, into={"model": again})
            assert torch.equal(again.weight, weights[0])
            with pytest.raises(InvalidInputError, match="holds no 'optimizer'; it holds model"):
                run.load_checkpoint(0, into={"model": again, "optimizer": torch.optim.AdamW(again.parameters())})
            run.load_checkpoint(1, into={"model": again, "optimizer": torch.optim.AdamW(again.parameters())})
            assert torch.equal(again.weight, weights[1])

    def test_protected_ones_stay_whole(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            training = Training()
            states = [training.next_state() for _ in range(4)]
            found = {save(run, states[0], pin=True): states[0], save(run, states[1], alias="mine"): states[1]}
            found |= {save(run, state): state for state in states[2:]}
            plan = lake.checkpoints.plan_retention("latest(9)", keep_optimizer=1)
            third = list(found)[2]
            assert [decision.checkpoint_id for decision in plan.trim] == [third]
            lake.checkpoints.pin(third)
            done = lake.checkpoints.apply(plan)
            assert done.trimmed == ()
            assert "pinned" in done.spared[third]
            assert_holds(lake, found)

    def test_moments_that_another_checkpoint_shares_stay(self, lake: Lake) -> None:
        with lake.run(experiment="x", run_id="one", capture=NOTHING) as run:
            states = train(run, 1)
            (first,) = states
            shared = dict(states[first], step=2)
        with lake.run(experiment="x", run_id="two", capture=NOTHING) as run:
            states[save(run, shared)] = shared
        with lake.run(resume="one", capture=NOTHING) as run:
            later = Training(5).next_state()
            states[save(run, later, step=3)] = later
            lake.checkpoints.apply(lake.checkpoints.plan_retention("latest(9)", keep_optimizer=1, run="one"))
            states[first] = lean(states[first])
            assert_holds(lake, states)
            assert files_of(lake) == needed_files(lake)

    def test_deltas_of_newer_moments_keep_their_bases(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 4)
            lake.checkpoints.compact(keep_raw=0)
            ids = list(states)
            plan = lake.checkpoints.plan_retention("latest(9)", keep_optimizer=2)
            assert plan.freed_bytes == 0, "the moments are the bases of later ones"
            lake.checkpoints.apply(plan)
            kept = {one: lean(state) if one in ids[:2] else state for one, state in states.items()}
            assert_holds(lake, kept)
            lake.checkpoints.compact(keep_raw=0)
            assert_holds(lake, kept)
            assert files_of(lake) == needed_files(lake)

    def test_a_plan_applied_twice(self, lake: Lake) -> None:
        with lake.run(experiment="x", capture=NOTHING) as run:
            states = train(run, 3)
            plan = lake.checkpoints.plan_retention("latest(9)", keep_optimizer=1)
            lake.checkpoints.apply(plan)
            before = files_of(lake)
            assert lake.checkpoints.apply(plan).trimmed == ()
            assert files_of(lake) == before
            assert {one: len(lake.checkpoints.open(one).paths) for one in states} == dict(
                zip(states, (2, 2, 4), strict=True)
            )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, dict[str, State]]:
    """A closed lake with three checkpoints."""
    path = tmp_path_factory.mktemp("scene") / "lake"
    with quiet_lake(path) as lake, lake.run(experiment="x", capture=NOTHING) as run:
        states = train(run, 3)
    return lake, states


def test_a_crash_at_any_step(scene: tuple[Lake, dict[str, State]], tmp_path: Path) -> None:
    """Every checkpoint is whole or trimmed, and a sweep and another try end what was begun."""
    original, states = scene
    at, crashed = 0, True
    while crashed:
        at += 1
        with copy_of(original, tmp_path / str(at)) as lake:
            crash = Crash(at)
            with crash.expected(lake):
                lake.checkpoints.apply(lake.checkpoints.plan_retention("latest(9)", keep_optimizer=1))
            crashed = crash.came
            lake.checkpoints.gc(0, dry_run=False)
            assert files_of(lake) == needed_files(lake), at
            ids = list(states)
            found = {one: len(lake.checkpoints.open(one).paths) for one in ids}
            assert_holds(lake, {one: states[one] if found[one] == 4 else lean(states[one]) for one in ids})
            for record in lake.checkpoints.list():
                manifest = lake._checkpoint_store.read_manifest(record.id)
                assert (record.digest, record.num_tensors) == (manifest.digest, len(manifest.tensors)), at
            lake.checkpoints.apply(lake.checkpoints.plan_retention("latest(9)", keep_optimizer=1))
            lake.checkpoints.compact()
            assert_holds(lake, {one: states[one] if one == ids[-1] else lean(states[one]) for one in ids})
            assert files_of(lake) == needed_files(lake), at
            for one in ids[:-1]:
                assert len(lake._checkpoint_store.read_manifest(one).tensors) == 2
                assert (lake.path / "blobs" / f"{one}.ckpk").stat().st_size < 45_000, at
    assert at > 12
