"""Repair gives back every bit of which a copy is anywhere, deletes nothing, and says exactly what is lost."""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
from damaged_lakes import KINDS, FakeTables, Scene, compress, cut_short, flip, is_same, overwrite, swap
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from test_verification import DAMAGES, damage

from ckptlake.checkpoints.opened import OpenedCheckpoint
from ckptlake.errors import InvalidInputError
from ckptlake.integrity import mending as mending_module
from ckptlake.integrity import stretches
from ckptlake.integrity.parity import parity_path, protect
from ckptlake.integrity.planning import plan_repair
from ckptlake.integrity.protection import protect_checkpoints
from ckptlake.integrity.repair import Repaired, carry_out
from ckptlake.integrity.repair_plan import (
    Adopt,
    MendPack,
    RebuildFile,
    RepairPlan,
    RestoreFile,
    RestoreManifest,
    SetAside,
)
from ckptlake.integrity.verification import verify


def plan(scene: Scene, tables: FakeTables, *sources: Path) -> RepairPlan:
    return plan_repair(scene.store, tables, None, sources)


def repair(scene: Scene, tables: FakeTables, *sources: Path) -> tuple[RepairPlan, Repaired]:
    planned = plan(scene, tables, *sources)
    return planned, carry_out(scene.store, tables, planned)


def snapshot(scene: Scene) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in scene.files() if path.is_file()}


def broken(scene: Scene) -> set[str]:
    return {kind for kind in KINDS if not scene.loads(kind)}


def quarantined(scene: Scene) -> list[str]:
    folder = scene.root / "quarantine"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def tables(whole: Scene) -> FakeTables:
    return FakeTables(whole)


def test_nothing_is_done_where_nothing_is_wrong(scene: Scene, tables: FakeTables) -> None:
    before = snapshot(scene)
    planned, repaired = repair(scene, tables)
    assert planned.is_empty
    assert str(planned) == "8 checkpoints were examined and are whole"
    assert (repaired.done, repaired.failed, repaired.losses) == ((), (), ())
    assert str(repaired) == "nothing to repair"
    assert snapshot(scene) == before
    assert quarantined(scene) == []


# -- copies in the lake itself


def test_a_tensor_comes_back_from_a_plain_checkpoint_of_the_lake(scene: Scene, tables: FakeTables) -> None:
    """`frozen` is in the safetensors checkpoint too."""
    before = scene.pack("first").read_bytes()
    start = len(before) - 44_028
    overwrite(scene.pack("first"), start + 100, b"damage")
    assert broken(scene) == set(KINDS) - {"safetensors", "pickle"}
    planned, repaired = repair(scene, tables)
    (action,) = planned.actions
    assert isinstance(action, MendPack)
    assert action.sentence() == (
        f"mend 1 tensor in blobs/{scene.ids['first']} with the bytes found in "
        f"{scene.root}/checkpoints/{scene.ids['safetensors']}"
    )
    assert repaired.failed == ()
    assert broken(scene) == set()
    assert scene.pack("first").read_bytes() == before, "the file is what it was, every byte"
    kept = [name for name in quarantined(scene) if not name.endswith(".json")]
    assert len(kept) == 1
    assert b"damage" in (scene.root / "quarantine" / kept[0]).read_bytes()
    note = json.loads((scene.root / "quarantine" / f"{kept[0]}.json").read_text())
    assert note["file"] == f"blobs/{scene.ids['first']}.safetensors"


def test_a_tensor_comes_back_from_a_pickled_checkpoint_of_the_lake(scene: Scene, tables: FakeTables) -> None:
    for kind in ("first", "safetensors"):
        path = scene.pack("first") if kind == "first" else scene.manifest(kind).with_suffix(".safetensors")
        path.write_bytes(path.read_bytes().replace(scene.states["first"]["model"]["frozen"].tobytes(), bytes(24_000)))
    assert broken(scene) == set(KINDS) - {"pickle"}
    planned, _ = repair(scene, tables)
    assert f"checkpoint {scene.ids['pickle']} in {scene.root}" in str(planned)
    assert broken(scene) == set()


def test_a_damaged_header_is_written_anew(scene: Scene, tables: FakeTables) -> None:
    before = scene.pack("second").read_bytes()
    overwrite(scene.pack("second"), 40, b'"""')
    assert broken(scene) == set(), "its tensors are found without it"
    planned, _ = repair(scene, tables)
    assert [action.sentence() for action in planned.actions] == [
        f"write the header of blobs/{scene.ids['second']} anew"
    ]
    assert scene.pack("second").read_bytes() == before
    with safetensors.safe_open(scene.pack("second"), "np") as opened:
        assert "model/trained" in set(opened.keys())


def test_a_renamed_tensor_in_a_header_is_seen(scene: Scene, tables: FakeTables) -> None:
    before = scene.pack("second").read_bytes()
    at = before.index(b'"model/trained":{')
    overwrite(scene.pack("second"), at, b'"model/drained":{')
    repair(scene, tables)
    assert scene.pack("second").read_bytes() == before


def test_a_damaged_length_of_a_header_is_mended(scene: Scene, tables: FakeTables) -> None:
    """The tensors are still there, but nothing tells where any more, save what the manifest tells."""
    before = scene.pack("third").read_bytes()
    flip(scene.pack("third"), 8)
    assert broken(scene) == {"third", "delta"}
    planned, _ = repair(scene, tables)
    assert planned.losses == ()
    assert broken(scene) == set()
    assert scene.pack("third").read_bytes() == before


def test_a_damaged_raw_pack_is_mended_from_its_compressed_twin(scene: Scene, tables: FakeTables) -> None:
    """Compression that is cut short leaves both."""
    raw = scene.pack("second")
    before = raw.read_bytes()
    twin = compress(scene, "second")
    raw.write_bytes(before[:-20_100] + bytes(20_100))
    assert broken(scene) == {"second", "same"}
    planned, _ = repair(scene, tables)
    assert str(twin) in str(planned)
    assert broken(scene) == set()
    assert raw.read_bytes() == before


def test_swapped_packs_find_each_other(scene: Scene, tables: FakeTables, tmp_path: Path) -> None:
    swap(scene.pack("planes"), scene.pack("delta"))
    planned, repaired = repair(scene, tables)
    assert planned.losses == ()
    assert repaired.failed == ()
    assert broken(scene) == set()


def test_swapped_uncompressed_packs_find_each_other(scene: Scene, tables: FakeTables) -> None:
    before = snapshot(scene)
    swap(scene.pack("second"), scene.pack("third"))
    planned, repaired = repair(scene, tables)
    assert planned.losses == ()
    assert repaired.failed == ()
    assert snapshot(scene) == before


def test_swapped_plain_files_find_each_other(tmp_path: Path) -> None:
    from damaged_lakes import STATES

    import ckptlake
    from ckptlake.config import Capture

    with ckptlake.open(tmp_path / "lake") as lake, lake.run("care", capture=Capture.nothing()) as run:
        saved = [run.save_checkpoint(STATES[kind], step=1, format="pickle").id for kind in ("first", "third")]
        paths = [lake.path / "checkpoints" / f"{name}.pkl" for name in saved]
        before = [path.read_bytes() for path in paths]
        swap(*paths)
        repaired = lake.checkpoints.repair(lake.checkpoints.plan_repair())
    assert repaired.failed == ()
    assert [path.read_bytes() for path in paths] == before


def test_what_was_moved_to_quarantine_helps(scene: Scene, tables: FakeTables) -> None:
    (scene.root / "quarantine").mkdir()
    scene.pack("second").rename(scene.root / "quarantine" / "set-aside.safetensors")
    _, repaired = repair(scene, tables)
    assert repaired.failed == ()
    assert broken(scene) == set()


# -- manifests


def test_a_manifest_comes_back_from_its_pack(scene: Scene, tables: FakeTables) -> None:
    for kind in ("first", "planes", "safetensors"):
        before = scene.manifest(kind).read_bytes()
        scene.manifest(kind).unlink()
        planned, repaired = repair(scene, tables)
        assert [type(action) for action in planned.actions] == [RestoreManifest]
        assert repaired.failed == ()
        assert scene.manifest(kind).read_bytes() == before
    assert broken(scene) == set()


def test_a_damaged_manifest_is_replaced_and_kept(scene: Scene, tables: FakeTables) -> None:
    before = scene.manifest("second").read_bytes()
    cut_short(scene.manifest("second"), 500)
    repair(scene, tables)
    assert scene.manifest("second").read_bytes() == before
    kept = [path.stat().st_size for path in (scene.root / "quarantine").glob(f"{scene.ids['second']}.*.json")]
    assert 500 in kept


def test_swapped_manifests_come_back(scene: Scene, tables: FakeTables) -> None:
    before = snapshot(scene)
    swap(scene.manifest("first"), scene.manifest("planes"))
    repair(scene, tables)
    assert snapshot(scene) == before


def test_a_manifest_that_no_pack_holds_is_lost_but_for_its_parity(scene: Scene, tables: FakeTables) -> None:
    """A checkpoint that shared everything has no pack of its own."""
    before = scene.manifest("same").read_bytes()
    protect_checkpoints(scene.store, [scene.ids["same"]])
    scene.manifest("same").unlink()
    parity = parity_path(scene.manifest("same"))
    without = parity.rename(scene.root / "away")
    planned, _ = repair(scene, tables)
    (loss,) = planned.losses
    assert loss.checkpoint_id == scene.ids["same"]
    assert set(loss.tensors) == {"model/bias", "model/frozen", "model/none", "model/trained"}
    assert planned.concerned == (scene.ids["same"],)
    without.rename(parity)
    planned, _ = repair(scene, tables)
    assert planned.losses == ()
    assert scene.manifest("same").read_bytes() == before


def test_unsealed_copies_of_a_manifest_are_sealed_by_the_tables(scene: Scene, tables: FakeTables) -> None:
    manifest = scene.store.read_manifest(scene.ids["second"])
    unsealed = replace(manifest, tensors=tuple(replace(t, digest=None) for t in manifest.tensors))
    path, before = scene.pack("second"), scene.manifest("second").read_bytes()
    old, new = manifest.encode().rstrip(), unsealed.encode().rstrip()
    assert len(old) == len(new)
    quoted = [json.dumps(text.decode()).encode() for text in (old, new)]
    path.write_bytes(path.read_bytes().replace(*quoted))
    scene.manifest("second").unlink()
    repair(scene, tables)
    assert scene.manifest("second").read_bytes() == before


def test_a_copy_that_the_tables_contradict_is_not_used(scene: Scene, tables: FakeTables, tmp_path: Path) -> None:
    manifest = scene.store.read_manifest(scene.ids["same"])
    other = tmp_path / "copies" / scene.manifest("same").name
    other.parent.mkdir()
    other.write_bytes(replace(manifest, tree={"dict": []}).encode())
    scene.manifest("same").unlink()
    planned, _ = repair(scene, tables, other.parent)
    assert [loss.checkpoint_id for loss in planned.losses] == [scene.ids["same"]]
    other.write_bytes(manifest.encode())
    assert plan(scene, tables, other.parent).losses == ()


# -- what no row tells of


def test_a_whole_checkpoint_without_a_row_is_listed(scene: Scene, whole: Scene) -> None:
    tables = FakeTables(whole, [kind for kind in KINDS if kind not in ("second", "pickle")])
    planned, repaired = repair(scene, tables)
    assert [type(action) for action in planned.actions] == [Adopt, Adopt]
    assert repaired.failed == ()
    manifest = scene.store.read_manifest(scene.ids["second"])
    saved = {row["checkpoint_id"]: row for table, row in tables.rows if table == "checkpoints"}
    assert saved.keys() == {scene.ids["second"], scene.ids["pickle"]}
    row = saved[scene.ids["second"]]
    assert (row["event"], row["digest"], row["ts"]) == ("saved", manifest.digest, manifest.created_at)
    assert (row["step"], row["num_tensors"]) == (1, 4)
    assert row["stored_bytes"] == scene.pack("second").stat().st_size
    tensors = {row["path"]: row for table, row in tables.rows if table == "tensors" and row["step"] == 1}
    trained = scene.states["second"]["model"]["trained"]
    assert tensors["model/trained"]["max"] == trained.max()
    assert tensors["model/trained"]["digest"] == next(t.digest for t in manifest.tensors if t.path == "model/trained")
    found = scene.store.index.find([str(tensors["model/trained"]["digest"])])
    assert len(found) == 1, "later saves share it"


def test_a_pack_without_a_manifest_is_listed_if_it_is_whole(scene: Scene, whole: Scene) -> None:
    tables = FakeTables(whole, [kind for kind in KINDS if kind not in ("second", "planes")])
    for kind in ("second", "planes"):
        scene.manifest(kind).unlink()
    flip(scene.pack("planes"), 8 * 100)
    planned, _ = repair(scene, tables)
    assert [action.sentence().partition(" from ")[0] for action in planned.actions] == [
        f"restore the manifest of checkpoint {scene.ids['second']}",
        f"list checkpoint {scene.ids['second']}, which is whole and which no row tells of",
    ]
    assert scene.loads("second")
    assert scene.pack("planes").exists()
    assert not scene.manifest("planes").exists()


def test_a_manifest_without_a_row_that_is_not_whole_is_set_aside(scene: Scene, whole: Scene) -> None:
    tables = FakeTables(whole, [kind for kind in KINDS if kind not in ("second", "third")])
    scene.pack("second").unlink()
    cut_short(scene.manifest("third"), 10)
    scene.pack("third").unlink()
    planned, _ = repair(scene, tables)
    aside = {action.checkpoint_id: action for action in planned.actions if isinstance(action, SetAside)}
    assert aside.keys() == {scene.ids["second"], scene.ids["third"]}
    assert "is missing" in aside[scene.ids["second"]].reason
    for kind in ("second", "third"):
        assert not scene.manifest(kind).exists()
        assert any(name.startswith(scene.ids[kind]) for name in quarantined(scene))


def test_what_was_deleted_stays_deleted(scene: Scene, whole: Scene) -> None:
    tables = FakeTables(whole)
    listed = dict(tables.listed())
    listed[scene.ids["second"]] = replace(listed[scene.ids["second"]], is_deleted=True)
    tables._listed = listed
    scene.pack("second").unlink()
    assert plan(scene, tables).actions == ()


def test_a_save_under_way_is_not_taken_for_one_without_rows(scene: Scene, whole: Scene) -> None:
    """Whoever saves holds the gate from the manifest to the rows; the plan waits for that."""
    import threading

    tables = FakeTables(whole, [kind for kind in KINDS if kind != "second"])
    listed, saved = threading.Event(), threading.Event()

    def save() -> None:
        with scene.store.gate.together():
            saved.set()
            listed.wait()
            tables._listed[scene.ids["second"]] = FakeTables(whole).listed()[scene.ids["second"]]

    saver = threading.Thread(target=save)
    saver.start()
    saved.wait()
    plans: list[RepairPlan] = []
    planner = threading.Thread(target=lambda: plans.append(plan(scene, tables)))
    planner.start()
    listed.set()
    saver.join()
    planner.join()
    assert plans[0].is_empty


# -- other places


@pytest.fixture
def gone(scene: Scene) -> Scene:
    """A lake that has lost a pack of which nothing else has the content."""
    scene.pack("second").unlink()
    assert broken(scene) == {"second", "same"}
    return scene


def test_another_lake_helps(gone: Scene, whole: Scene, tables: FakeTables) -> None:
    before = whole.pack("second").read_bytes()
    planned, repaired = repair(gone, tables, whole.root)
    assert repaired.failed == ()
    assert broken(gone) == set()
    assert gone.pack("second").read_bytes() == before, "the header too is made anew"
    assert planned.concerned == (gone.ids["second"], gone.ids["same"])


def test_a_copy_of_the_folders_helps(gone: Scene, whole: Scene, tables: FakeTables, tmp_path: Path) -> None:
    shutil.copytree(whole.root / "blobs", tmp_path / "backup" / "blobs")
    repair(gone, tables, tmp_path / "backup")
    assert broken(gone) == set()


def test_an_exported_safetensors_file_helps(gone: Scene, tables: FakeTables, tmp_path: Path) -> None:
    model = gone.states["second"]["model"]
    save_file({"a.b": model["trained"], "c": model["bias"], "d": np.zeros(5000, "f4")}, tmp_path / "export.safetensors")
    planned, _ = repair(gone, tables, tmp_path / "export.safetensors")
    assert planned.losses == ()
    assert broken(gone) == set()


def test_a_torch_file_helps(gone: Scene, tables: FakeTables, tmp_path: Path) -> None:
    import torch

    model = {name: torch.from_numpy(value) for name, value in gone.states["second"]["model"].items()}
    (tmp_path / "folder" / "below").mkdir(parents=True)
    torch.save({"net": model}, tmp_path / "folder" / "below" / "last.pt")
    repair(gone, tables, tmp_path / "folder")
    assert broken(gone) == set()


def test_a_compressed_pack_helps(scene: Scene, whole: Scene, tables: FakeTables, tmp_path: Path) -> None:
    copy = tmp_path / "x.ckpk"
    shutil.copy(scene.pack("delta"), copy)
    scene.pack("delta").unlink()
    planned, _ = repair(scene, tables, copy)
    assert "and its base in" in str(planned)
    assert broken(scene) == set()


def test_a_plain_file_comes_back_from_any_copy_of_it(scene: Scene, whole: Scene, tables: FakeTables) -> None:
    path = scene.manifest("pickle").with_suffix(".pkl")
    before = path.read_bytes()
    flip(path, 12_345)
    planned, _ = repair(scene, tables)
    assert [loss.checkpoint_id for loss in planned.losses] == [scene.ids["pickle"]]
    assert path.read_bytes() != before
    copy = scene.root.parent / "elsewhere.pkl"
    copy.write_bytes(before)
    planned, _ = repair(scene, tables, copy)
    assert [type(action) for action in planned.actions] == [RestoreFile]
    assert path.read_bytes() == before


def test_files_that_are_none_of_these_are_passed_over(gone: Scene, tables: FakeTables, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for suffix in ("safetensors", "pt", "ckpk", "json", "txt"):
        (folder / f"x.{suffix}").write_bytes(b"nothing of use")
    (folder / "dir.safetensors").mkdir()
    planned = plan(gone, tables, folder)
    assert {loss.checkpoint_id for loss in planned.losses} == {gone.ids["second"], gone.ids["same"]}


def test_a_pickle_among_the_sources_is_not_run(gone: Scene, tables: FakeTables, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    plan(gone, tables, tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_source_that_does_not_exist_is_refused(gone: Scene, tables: FakeTables, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"there is nothing at .*/no to repair from"):
        plan(gone, tables, tmp_path / "no")


def test_wrong_bytes_under_the_right_name_are_not_taken(
    gone: Scene, whole: Scene, tables: FakeTables, tmp_path: Path
) -> None:
    other = whole.copy(tmp_path / "other")
    overwrite(other.pack("second"), other.pack("second").stat().st_size - 20_000, bytes(8))
    planned, _ = repair(gone, tables, other.root)
    assert [loss.tensors for loss in planned.losses] == [("model/trained",), ("model/trained",)]
    assert broken(gone) == {"second", "same"}


# -- parity and deltas


@pytest.mark.parametrize("kind", ["second", "planes", "delta", "safetensors", "pickle"])
def test_parity_gives_back_a_file(scene: Scene, tables: FakeTables, kind: str) -> None:
    suffix = {"safetensors": ".safetensors", "pickle": ".pkl"}.get(kind)
    path = scene.manifest(kind).with_suffix(suffix) if suffix else scene.pack(kind)
    before = path.read_bytes()
    protect_checkpoints(scene.store, [scene.ids[kind]])
    place = (
        before.index(scene.states[kind]["model"]["trained"].tobytes()[:64]) if kind not in ("planes", "delta") else 99
    )
    overwrite(path, place, b"damage")
    assert kind in broken(scene)
    planned, repaired = repair(scene, tables)
    assert [type(action) for action in planned.actions] == [RebuildFile]
    assert planned.actions[0].sentence() == f"rebuild {path} from its parity"
    assert repaired.failed == ()
    assert path.read_bytes() == before
    assert parity_path(path).exists(), "it still fits"
    assert broken(scene) == set()


def test_stale_parity_is_not_believed(scene: Scene, tables: FakeTables) -> None:
    """Parity of another file of the same size gives back that file; it must not take the place of anything."""
    path = scene.pack("second")
    before = path.read_bytes()
    path.write_bytes(scene.pack("third").read_bytes())
    protect(path)
    path.write_bytes(before[:-1000] + bytes(1000))
    damaged = path.read_bytes()
    planned, repaired = repair(scene, tables)
    if planned.actions:
        assert "is that of another file" in repaired.failed[0][1]
    assert path.read_bytes() == damaged
    assert broken(scene) == {"second", "same"}


def test_a_damaged_base_comes_back_with_what_depends_on_it(scene: Scene, tables: FakeTables, tmp_path: Path) -> None:
    save_file({"x": scene.states["third"]["model"]["trained"]}, tmp_path / "x.safetensors")
    path = scene.pack("third")
    before = path.read_bytes(), scene.pack("delta").read_bytes()
    overwrite(path, len(before[0]) - 20_000, bytes(100))
    assert broken(scene) == {"third", "delta"}
    planned, repaired = repair(scene, tables, tmp_path / "x.safetensors")
    assert planned.losses == ()
    assert repaired.failed == ()
    assert broken(scene) == set()
    assert (path.read_bytes(), scene.pack("delta").read_bytes()) == before, "the differences were never damaged"


def test_a_base_that_is_gone_is_not_needed_where_a_copy_of_it_is(
    scene: Scene, tables: FakeTables, tmp_path: Path
) -> None:
    """The pack of the base is beyond repair, but its tensor stands in another file."""
    model = scene.states["third"]["model"]
    save_file({"x": model["trained"]}, tmp_path / "x.safetensors")
    scene.pack("third").unlink()
    planned, repaired = repair(scene, tables, tmp_path / "x.safetensors")
    assert repaired.failed == ()
    assert broken(scene) == {"third"}, "its bias is lost"
    assert [loss.tensors for loss in planned.losses] == [("model/bias",)]
    assert planned.losses[0].checkpoint_id == scene.ids["third"]


# -- what is lost


def test_what_is_lost_is_told_and_the_rest_is_salvaged(scene: Scene, tables: FakeTables) -> None:
    path = scene.pack("second")
    overwrite(path, path.stat().st_size - 20_020, b"damage")
    before = path.read_bytes()
    planned, repaired = repair(scene, tables)
    assert planned.actions == repaired.done == ()
    assert {loss.checkpoint_id: loss.tensors for loss in planned.losses} == {
        scene.ids["second"]: ("model/trained",),
        scene.ids["same"]: ("model/trained",),
    }
    assert "; `salvage()` of it loads the 3 tensors left" in planned.losses[0].sentence()
    assert path.read_bytes() == before
    with OpenedCheckpoint(scene.store, scene.store.read_manifest(scene.ids["second"])) as opened:
        rest, lost = opened.salvage()
    model = {name: value for name, value in scene.states["second"]["model"].items() if name != "trained"}
    assert lost.keys() == {"model/trained"}
    assert rest["model"].keys() == model.keys()
    assert all(is_same(rest["model"][name], value) for name, value in model.items())


def test_what_can_be_saved_of_a_pack_is(scene: Scene, tables: FakeTables, tmp_path: Path) -> None:
    save_file({"b": scene.states["second"]["model"]["bias"]}, tmp_path / "b.safetensors")
    path = scene.pack("second")
    overwrite(path, path.stat().st_size - 20_020, b"damage")
    overwrite(path, path.stat().st_size - 20, b"damage")
    planned, repaired = repair(scene, tables, tmp_path / "b.safetensors")
    assert [len(action.copies) for action in planned.actions if isinstance(action, MendPack)] == [1]
    assert repaired.failed == ()
    assert verify(scene.store, scene.ids["second"]).tensors_lost == ("model/trained",)


def test_a_pack_that_is_gone_comes_back_in_part_without_inventing_bytes(
    scene: Scene, tables: FakeTables, tmp_path: Path
) -> None:
    save_file({"b": scene.states["second"]["model"]["trained"]}, tmp_path / "b.safetensors")
    scene.pack("second").unlink()
    planned, _ = repair(scene, tables, tmp_path / "b.safetensors")
    assert [loss.tensors for loss in planned.losses] == [("model/bias",), ("model/bias",)]
    assert scene.pack("second").suffix == ".ckpk"
    assert verify(scene.store, scene.ids["second"]).tensors_lost == ("model/bias",)


def test_a_truncated_pack_keeps_its_place_and_kind(scene: Scene, whole: Scene, tables: FakeTables) -> None:
    before = scene.pack("third").read_bytes()
    cut_short(scene.pack("third"), len(before) - 15_000)
    repair(scene, tables, whole.root)
    assert scene.pack("third").read_bytes() == before


def test_a_pack_without_footer_is_written_anew(scene: Scene, whole: Scene, tables: FakeTables) -> None:
    cut_short(scene.pack("delta"), 9000)
    _, repaired = repair(scene, tables, whole.root)
    assert repaired.failed == ()
    assert broken(scene) == set()
    assert scene.pack("delta").suffix == ".ckpk"


@pytest.mark.parametrize("kind", ["second", "planes"])
def test_what_stands_in_the_way_is_moved(scene: Scene, whole: Scene, tables: FakeTables, kind: str) -> None:
    path = scene.pack(kind)
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")
    _, repaired = repair(scene, tables, whole.root)
    assert repaired.failed == ()
    assert scene.loads(kind)
    kept = [name for name in quarantined(scene) if name.startswith(path.stem) and name.endswith(path.suffix)]
    assert (scene.root / "quarantine" / kept[0] / "inside").read_text() == "x"


def test_a_link_out_of_the_lake_is_replaced_by_a_file(
    scene: Scene, whole: Scene, tables: FakeTables, tmp_path: Path
) -> None:
    for path in (scene.pack("second"), scene.manifest("third")):
        elsewhere = tmp_path / path.name
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    _, repaired = repair(scene, tables, whole.root)
    assert repaired.failed == ()
    assert broken(scene) == set()
    assert not scene.pack("second").is_symlink()
    assert (tmp_path / scene.pack("second").name).read_bytes() == whole.pack("second").read_bytes()


def test_sectors_that_cannot_be_read_cost_no_others(
    scene: Scene, whole: Scene, tables: FakeTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk fails at one place, what is read around it is kept."""
    path = scene.pack("first")
    bad, size = path.stat().st_ino, path.stat().st_size
    page = (size - 20) // 4096 * 4096
    readable, readable_into = os.pread, os.preadv

    def check(descriptor: int, start: int, stop: int) -> None:
        if os.fstat(descriptor).st_ino == bad and start < page + 4096 and stop > page:
            raise OSError(errno.EIO, "Input/output error")

    def read(descriptor: int, length: int, offset: int) -> bytes:
        check(descriptor, offset, offset + length)
        return readable(descriptor, length, offset)

    def read_into(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        check(descriptor, offset, offset + sum(map(len, buffers)))
        return readable_into(descriptor, buffers, offset)

    def map_into(descriptor: int, start: int, stop: int) -> mmap.mmap | None:
        try:
            check(descriptor, start, stop)
        except OSError:  # as the system says when it cannot bring a page into memory
            return None
        return mappable(descriptor, start, stop)

    mappable = stretches.mapped_stretch
    monkeypatch.setattr(stretches, "mapped_stretch", map_into)
    monkeypatch.setattr(os, "pread", read)
    monkeypatch.setattr(os, "preadv", read_into)
    planned = plan(scene, tables, whole.root)
    assert [len(action.copies) for action in planned.actions if isinstance(action, MendPack)] == [2]
    repaired = carry_out(scene.store, tables, planned)
    monkeypatch.undo()
    assert repaired.failed == ()
    assert scene.pack("first").read_bytes() == whole.pack("first").read_bytes()


# -- with care


def test_repairing_twice_is_repairing_once(scene: Scene, whole: Scene, tables: FakeTables) -> None:
    overwrite(scene.pack("second"), scene.pack("second").stat().st_size - 9000, bytes(100))
    scene.pack("planes").unlink()
    scene.manifest("first").unlink()
    planned, _ = repair(scene, tables, whole.root)
    after, kept = snapshot(scene), quarantined(scene)
    again = carry_out(scene.store, tables, planned)
    assert again.failed == ()
    assert plan(scene, tables, whole.root).is_empty
    assert (snapshot(scene), quarantined(scene)) == (after, kept)


def test_a_plan_changes_nothing(scene: Scene, whole: Scene, tables: FakeTables) -> None:
    scene.pack("second").unlink()
    cut_short(scene.manifest("third"), 100)
    before = snapshot(scene)
    planned = plan(scene, tables, whole.root)
    assert not planned.is_empty
    assert snapshot(scene) == before
    assert quarantined(scene) == []
    assert asdict(planned)["examined"] == len(KINDS)
    assert str(planned).count("\n") == len(planned.sentences()) - 1


def test_a_copy_that_changed_since_the_plan_is_not_used(
    gone: Scene, whole: Scene, tables: FakeTables, tmp_path: Path
) -> None:
    other = whole.copy(tmp_path / "other")
    planned = plan(gone, tables, other.root)
    overwrite(other.pack("second"), other.pack("second").stat().st_size - 20_000, bytes(8))
    before = snapshot(gone)
    repaired = carry_out(gone.store, tables, planned)
    assert [type(action) for action, _ in repaired.failed] == [MendPack]
    assert "has changed since the repair was planned" in repaired.failed[0][1]
    assert snapshot(gone) == before
    assert not list((gone.root / "blobs").glob("*.partial"))
    assert "not done: mend" in str(repaired)


def test_a_pack_changed_by_somebody_else_is_left_alone(
    scene: Scene, whole: Scene, tables: FakeTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scene.pack("second")
    overwrite(path, path.stat().st_size - 9000, bytes(100))
    planned = plan(scene, tables, whole.root)
    write = mending_module._write_raw

    def meanwhile(*arguments: object) -> int:
        path.write_bytes(whole.pack("second").read_bytes() + b" ")
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mending_module, "_write_raw", meanwhile)
    repaired = carry_out(scene.store, tables, planned)
    assert "was changed while it was repaired" in repaired.failed[0][1]
    assert path.read_bytes() == whole.pack("second").read_bytes() + b" "


def test_a_full_disk_leaves_everything_as_it_was(
    scene: Scene, whole: Scene, tables: FakeTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite(scene.pack("second"), scene.pack("second").stat().st_size - 9000, bytes(100))
    before = snapshot(scene)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    planned = plan(scene, tables, whole.root)
    monkeypatch.setattr(mending_module.os, "pwrite", full)
    repaired = carry_out(scene.store, tables, planned)
    monkeypatch.undo()
    assert "No space left" in repaired.failed[0][1]
    assert snapshot(scene) == before


@pytest.mark.parametrize("number", range(1, 14))
def test_a_repair_that_is_interrupted_can_be_repeated(
    scene: Scene, whole: Scene, tables: FakeTables, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Wherever it ends, what was good is good, and the next repair does the rest."""
    overwrite(scene.pack("second"), scene.pack("second").stat().st_size - 9000, bytes(100))
    cut_short(scene.pack("planes"), 9000)
    cut_short(scene.manifest("third"), 10)
    overwrite(scene.manifest("pickle").with_suffix(".pkl"), 500, bytes(100))
    bad = broken(scene)
    planned = plan(scene, tables, whole.root)
    assert len(planned.actions) == 4
    calls = 0

    def interrupting(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                raise KeyboardInterrupt
            return call(*arguments, **more)

        return counted

    monkeypatch.setattr(Path, "rename", interrupting(Path.rename))
    monkeypatch.setattr(os, "link", interrupting(os.link))
    monkeypatch.setattr(os, "fsync", interrupting(os.fsync))
    with pytest.raises(KeyboardInterrupt):
        carry_out(scene.store, tables, planned)
    monkeypatch.undo()
    assert broken(scene) <= bad
    _, repaired = repair(scene, tables, whole.root)
    assert repaired.failed == ()
    assert broken(scene) == set()


def test_only_what_is_asked_for_is_looked_at(scene: Scene, whole: Scene, tables: FakeTables) -> None:
    scene.pack("second").unlink()
    scene.pack("planes").unlink()
    planned = plan_repair(scene.store, tables, [scene.ids["planes"]], [whole.root])
    assert planned.examined == 1
    assert [action.pack for action in planned.actions if isinstance(action, MendPack)] == [
        f"blobs/{scene.ids['planes']}"
    ]
    carry_out(scene.store, tables, planned)
    assert broken(scene) == {"second", "same"}


def test_index_and_lock_files_are_no_checkpoints(scene: Scene, tables: FakeTables) -> None:
    (scene.root / "blobs" / ".index.sqlite").write_bytes(b"")
    (scene.root / "blobs" / ".x.safetensors.partial").write_bytes(b"")
    assert plan(scene, tables).is_empty


# -- properties


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damages=st.lists(
        st.tuples(DAMAGES, st.integers(0, 100), st.integers(0, 100), st.integers(0, 2**31)), min_size=1, max_size=4
    )
)
def test_whatever_has_a_copy_comes_back(
    whole: Scene, fresh: Callable[[], Scene], damages: list[tuple[str, int, int, int]]
) -> None:
    scene, tables = fresh(), FakeTables(whole)
    for how, which, other, where in damages:
        damage(scene, how, which, other, where)
    planned, repaired = repair(scene, tables, whole.root)
    assert planned.losses == ()
    assert repaired.failed == ()
    assert broken(scene) == set()
    assert plan(scene, tables).is_empty


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damages=st.lists(
        st.tuples(DAMAGES, st.integers(0, 100), st.integers(0, 100), st.integers(0, 2**31)), min_size=1, max_size=3
    ),
    protected=st.booleans(),
)
def test_what_is_told_lost_is_lost_and_nothing_else(
    whole: Scene, fresh: Callable[[], Scene], damages: list[tuple[str, int, int, int]], protected: bool
) -> None:
    scene, tables = fresh(), FakeTables(whole)
    if protected:
        protect_checkpoints(scene.store, scene.ids.values())
    for how, which, other, where in damages:
        damage(scene, how, which, other, where)
    good_before = set(KINDS) - broken(scene)
    planned, repaired = repair(scene, tables)
    lost = {loss.checkpoint_id: set(loss.tensors) for loss in planned.losses}
    assert repaired.failed == ()
    assert {scene.ids[kind] for kind in broken(scene)} == lost.keys()
    assert good_before.isdisjoint(broken(scene))
    for name, tensors in lost.items():
        found = verify(scene.store, name)
        if found.tensors_lost:
            assert set(found.tensors_lost) == tensors
    state = snapshot(scene)
    again, _ = repair(scene, tables)
    assert again.actions == ()
    assert {loss.checkpoint_id: set(loss.tensors) for loss in again.losses} == lost
    assert snapshot(scene) == state
