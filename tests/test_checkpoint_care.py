"""Checkpoints are verified, watched, protected and repaired through the lake, and the tables tell of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptlake
from ckptlake import Lake, Run
from ckptlake.catalog import care as care_module
from ckptlake.checkpoints import session as session_module
from ckptlake.config import Capture
from ckptlake.errors import CheckpointNotFoundError, InvalidInputError
from ckptlake.integrity.parity import examine, parity_path
from ckptlake.integrity.verification import VerifyProgress

FROZEN = np.arange(50_000, dtype=np.float32)


def state(step: int) -> dict[str, Any]:
    return {"frozen": FROZEN, "trained": np.full(30_000, step + 0.5, np.float32), "step": step}


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with ckptlake.open(tmp_path / "lake") as opened:
        yield opened


@contextmanager
def running(lake: Lake, experiment: str = "care") -> Iterator[Run]:
    with lake.run(experiment, capture=Capture.nothing()) as run:
        yield run


@pytest.fixture
def ids(lake: Lake) -> list[str]:
    """Save four checkpoints of one run, which share a tensor that lies in the pack of the first."""
    with running(lake) as run:
        return [run.save_checkpoint(state(step), step=step).id for step in range(4)]


def pack(lake: Lake, checkpoint_id: str) -> Path:
    return lake.path / "blobs" / f"{checkpoint_id}.safetensors"


def spoil(path: Path) -> bytes:
    """Change the last bytes of a file and return what it was: of a pack, those of `trained`."""
    before = path.read_bytes()
    path.write_bytes(before[:-4] + b"oops")
    return before


def status(lake: Lake, checkpoint_id: str) -> str:
    return lake.checkpoints.get(checkpoint_id).status


def events(lake: Lake, checkpoint_id: str) -> list[str]:
    query = "SELECT event FROM checkpoint_events WHERE checkpoint_id = $id ORDER BY ts"
    return [event for (event,) in lake.sql(query, id=checkpoint_id).fetchall()]


def checks(lake: Lake) -> list[tuple[str, str, str]]:
    query = "SELECT checkpoint_id, level, verdict FROM verifications ORDER BY ts, checkpoint_id"
    return lake.sql(query).fetchall()


# -- verifying


def test_all_are_verified_and_recorded(lake: Lake, ids: list[str]) -> None:
    found = lake.checkpoints.verify_all(level="digest")
    assert [one.checkpoint_id for one in found] == ids
    assert sum(one.bytes_read for one in found) == FROZEN.nbytes + 4 * 120_000, "what is shared is read once"
    assert sorted(checks(lake)) == sorted((name, "digest", "good") for name in ids)
    record = lake.checkpoints.get(ids[0])
    assert (record.verdict, record.verified_level, record.status) == ("good", "digest", "good")
    assert events(lake, ids[0]) == ["saved"]


def test_a_run_or_an_experiment_is_verified(lake: Lake, ids: list[str]) -> None:
    with running(lake, "care/below") as run:
        below = run.save_checkpoint(state(9), step=9).id
    with running(lake, "other") as run:
        other = run.save_checkpoint(state(8), step=8).id
        in_run = [one.checkpoint_id for one in lake.checkpoints.verify_all(run)]
    assert in_run == [other]
    assert {one.checkpoint_id for one in lake.checkpoints.verify_all(experiment="care")} == {*ids, below}
    assert len(lake.checkpoints.verify_all()) == 6


def test_samples_cover_all_in_the_end(lake: Lake, ids: list[str]) -> None:
    seen = [[one.checkpoint_id for one in lake.checkpoints.verify_all(sample=1)] for _ in range(4)]
    assert sorted(name for names in seen for name in names) == sorted(ids)
    again = [lake.checkpoints.verify_all(sample=2)[0].checkpoint_id for _ in range(2)]
    assert again == [seen[0][0], seen[2][0]], "the one verified longest ago comes first"
    assert len(lake.checkpoints.verify_all(sample=100)) == 4


def test_a_quick_look_is_not_taken_for_a_close_one(lake: Lake, ids: list[str]) -> None:
    for name in ids[:3]:
        lake.checkpoints.verify(name, level="digest")
    lake.checkpoints.verify(ids[3], level="size")
    (found,) = lake.checkpoints.verify_all(level="fast", sample=1)
    assert found.checkpoint_id == ids[3]


def test_what_cannot_be_told_closer_does_not_keep_others_waiting(lake: Lake, ids: list[str]) -> None:
    with running(lake) as run:
        run.save_checkpoint({"call": print}, step=7, format="pickle")
    seen = {lake.checkpoints.verify_all(level="loads", sample=1)[0].checkpoint_id for _ in range(5)}
    assert len(seen) == 5


def test_time_ends_a_verification(lake: Lake, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 2.0, *[99.0] * 10])
    monkeypatch.setattr(care_module.time, "monotonic", lambda: next(moments))
    assert [one.checkpoint_id for one in lake.checkpoints.verify_all(budget_s=10)] == ids[:2]
    assert len(checks(lake)) == 2


def test_progress_is_told(lake: Lake, ids: list[str]) -> None:
    told: list[VerifyProgress] = []
    lake.checkpoints.verify_all(progress=told.append)
    assert [(one.done, one.total) for one in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert told[-1].bytes_read == FROZEN.nbytes + 4 * 120_000
    assert [one.found.checkpoint_id for one in told] == ids


def test_what_was_found_before_an_interrupt_is_recorded(lake: Lake, ids: list[str]) -> None:
    def interrupt(progress: VerifyProgress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lake.checkpoints.verify_all(progress=interrupt)
    assert {name for name, _, _ in checks(lake)} == set(ids[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "deep"}, "level must be one of exists"),
        ({"sample": 0}, "sample must be positive, got 0"),
        ({"budget_s": -1.0}, "budget_s must be positive, got -1.0"),
        ({"budget_s": float("nan")}, "budget_s must be positive, got nan"),
    ],
)
def test_what_cannot_be_is_refused(lake: Lake, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        lake.checkpoints.verify_all(**arguments)


def test_a_lake_without_checkpoints_has_nothing_to_verify(lake: Lake) -> None:
    assert lake.checkpoints.verify_all(level="digest") == []
    assert lake.checkpoints.plan_repair().examined == 0
    assert lake.checkpoints.protect().written == ()
    assert lake.checkpoints.watch().step().wait_s > 0
    with pytest.raises(CheckpointNotFoundError):
        lake.checkpoints.verify("latest")


def test_damage_is_quarantined_and_not_shared_with_later_saves(lake: Lake, ids: list[str]) -> None:
    spoil(pack(lake, ids[3]))
    found = {one.checkpoint_id: one for one in lake.checkpoints.verify_all(level="digest")}
    assert [name for name, one in found.items() if not one.is_good] == [ids[3]]
    assert events(lake, ids[3]) == ["saved", "quarantined"]
    assert lake.checkpoints.get("latest").id == ids[2]
    lake.checkpoints.verify_all(level="fast")
    assert events(lake, ids[3]) == ["saved", "quarantined"], "once is enough"
    with running(lake) as run:
        saved = run.save_checkpoint(state(3), step=33)
    assert saved.stored_bytes > 120_000, "`trained` is stored again"
    assert lake.checkpoints.verify(saved.id).is_good


def test_what_is_good_again_is_released(lake: Lake, ids: list[str]) -> None:
    before = spoil(pack(lake, ids[3]))
    assert not lake.checkpoints.verify(ids[3], level="fast").is_good
    pack(lake, ids[3]).write_bytes(before)
    lake.checkpoints.verify_all(level="fast")
    assert status(lake, ids[3]) == "quarantined", "checksums alone are not enough"
    lake.checkpoints.verify_all(level="digest")
    assert status(lake, ids[3]) == "good"
    assert events(lake, ids[3]) == ["saved", "quarantined", "released"]
    assert lake.checkpoints.get("latest").id == ids[3]
    spoil(pack(lake, ids[3]))
    lake.checkpoints.verify(ids[3])
    assert status(lake, ids[3]) == "quarantined"


def test_a_checkpoint_deleted_meanwhile_is_left_out(
    lake: Lake, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = lake.checkpoints.list()
    lake.checkpoints.delete(ids[1])
    monkeypatch.setattr(lake.checkpoints, "list", lambda *_: listed)
    found = lake.checkpoints.verify_all()
    assert [one.checkpoint_id for one in found] == [ids[0], ids[2], ids[3]]
    assert {one.verdict for one in found} == {"good"}


# -- digests that were left


@pytest.fixture
def unsealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes die before they take the digests."""
    monkeypatch.setattr(session_module, "seal", lambda _, manifest, __, ___: manifest)


@pytest.mark.usefixtures("unsealed")
def test_digests_are_taken_for_a_process_that_is_gone(lake: Lake) -> None:
    with running(lake) as run:
        first = run.save_checkpoint(state(1), step=1).id
        saved = run.save_checkpoint(state(2), step=2, digest="deferred")
        found = lake.checkpoints.verify(saved.id)
        assert (found.level, found.verdict) == ("fast", "good")
        assert "is not known yet" in str(found.finding)
        assert lake.checkpoints.get(saved.id).digest is None, "its process may be taking them just now"
    assert lake.checkpoints.verify(saved.id, level="fast").finding is None
    assert lake.checkpoints.get(saved.id).digest is None
    found = lake.checkpoints.verify(saved.id)
    assert (found.level, found.verdict, found.finding) == ("digest", "good", None)
    sealed = lake.checkpoints.get(saved.id)
    assert sealed.digest is not None
    assert "sealed" in events(lake, saved.id)
    query = "SELECT path, previous_checkpoint_id FROM tensors WHERE checkpoint_id = $id ORDER BY path"
    assert lake.sql(query, id=saved.id).fetchall() == [("frozen", first), ("trained", first)]
    with running(lake) as run:
        again = run.save_checkpoint(state(2), step=2)
    assert again.digest == sealed.digest
    assert again.stored_bytes == 0, "now its tensors are shared"


@pytest.mark.usefixtures("unsealed")
def test_damage_before_the_digests_were_taken_is_found(lake: Lake) -> None:
    with running(lake) as run:
        saved = run.save_checkpoint(state(2), step=2, digest="deferred")
    spoil(pack(lake, saved.id))
    (found,) = lake.checkpoints.verify_all(level="digest")
    assert found.verdict == "damaged"
    assert lake.checkpoints.get(saved.id).digest is None


# -- watching


def test_a_monitor_records_what_it_finds(lake: Lake, ids: list[str]) -> None:
    spoil(pack(lake, ids[3]))
    monitor = lake.checkpoints.watch(bytes_per_s=1e12)
    while monitor.step().wait_s < 1:
        pass
    found = monitor.status()
    assert (found.coverage, found.checkpoints) == (1.0, 4)
    assert [name for name, _ in found.damaged] == [ids[3]]
    assert found.sentence().endswith("; 1 found damaged")
    assert status(lake, ids[3]) == "quarantined"
    assert {name for name, _, _ in checks(lake)} == set(ids)
    assert found.bytes_read >= found.total_bytes == FROZEN.nbytes + 4 * 120_000


def test_another_monitor_knows_what_was_read(lake: Lake, ids: list[str]) -> None:
    lake.checkpoints.verify_all(level="digest")
    monitor = lake.checkpoints.watch(bytes_per_s=1e12)
    assert monitor.step().bytes_read == 0
    assert monitor.status().coverage == 1
    assert lake.checkpoints.watch(level="digest").status().coverage == 1
    lake.checkpoints.delete(ids[3])
    assert monitor.status().checkpoints == 3


def test_a_monitor_watches_over_a_run_alone(lake: Lake, ids: list[str]) -> None:
    with running(lake, "other") as run:
        run.save_checkpoint(state(8), step=8)
    assert lake.checkpoints.watch(run).status().checkpoints == 1
    assert lake.checkpoints.watch(experiment="care").status().checkpoints == 4


def test_a_monitor_runs_in_a_thread_beside_saves(lake: Lake) -> None:
    monitor = lake.checkpoints.watch(bytes_per_s=1e12)
    thread = threading.Thread(target=monitor.run)
    thread.start()
    with running(lake) as run:
        saved = [run.save_checkpoint(state(step), step=step).id for step in range(5)]
    monitor.stop()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert all(one.verdict in (None, "good") for one in lake.checkpoints.list())
    assert len(lake.checkpoints.list()) == len(saved)


# -- protecting


def test_parity_is_written_once(lake: Lake, ids: list[str]) -> None:
    told: list[tuple[int, int]] = []
    protected = lake.checkpoints.protect(progress=lambda done, total: told.append((done, total)))
    assert {Path(file.path).name for file in protected.written} == {pack(lake, name).name for name in ids}
    sizes = [parity_path(pack(lake, name)).stat().st_size for name in ids]
    assert protected.added_bytes == sum(sizes)
    assert all(examine(pack(lake, name), parity_path(pack(lake, name))).is_clean for name in ids)
    total = sum(pack(lake, name).stat().st_size for name in ids)
    assert told[-1] == (total, total)
    assert told == sorted(told)
    again = lake.checkpoints.protect()
    assert (again.written, again.added_bytes) == ((), 0)
    assert set(again.fresh) == {f"blobs/{name}.safetensors" for name in ids}
    assert again.sentence().endswith("; 4 files had it already")


def test_only_what_is_asked_for_is_protected(lake: Lake, ids: list[str]) -> None:
    protected = lake.checkpoints.protect(ids[2])
    assert {Path(file.path).stem for file in protected.written} == {ids[0], ids[2]}, "with the pack it shares"


def test_files_of_other_formats_are_protected_with_their_manifests(lake: Lake) -> None:
    with running(lake) as run:
        plain = run.save_checkpoint(state(1), step=1, format="pickle").id
        alone = run.save_checkpoint(state(2), step=2, format="safetensors").id
    protected = lake.checkpoints.protect()
    names = {file.path for file in protected.written}
    assert names == {f"checkpoints/{plain}.pkl", f"checkpoints/{plain}.json", f"checkpoints/{alone}.safetensors"}
    assert lake.checkpoints.gc(grace_s=0).files == (), "no sweep takes it for left over"


def test_a_touched_file_is_compared_and_a_changed_one_protected_anew(lake: Lake, ids: list[str]) -> None:
    import os

    lake.checkpoints.protect()
    path = pack(lake, ids[0])
    later = path.stat().st_mtime_ns + 10**12
    os.utime(path, ns=(later, later))
    assert lake.checkpoints.protect().written == ()
    parity = parity_path(pack(lake, ids[1]))
    parity.write_bytes(parity_path(pack(lake, ids[2])).read_bytes()[:100])
    (file,) = lake.checkpoints.protect().written
    assert file.path == f"blobs/{ids[1]}.safetensors"
    assert examine(pack(lake, ids[1]), parity).is_clean


def test_damage_is_not_protected(lake: Lake, ids: list[str]) -> None:
    spoil(pack(lake, ids[3]))
    (lake.path / "checkpoints" / f"{ids[2]}.json").write_text("{")
    protected = lake.checkpoints.protect()
    assert dict(protected.refused).keys() == {f"blobs/{ids[3]}.safetensors", f"checkpoints/{ids[2]}.json"}
    assert not parity_path(pack(lake, ids[3])).exists()
    assert "2 files not protected because of damage: repair first" in protected.sentence()


# -- repairing


def test_repair_releases_what_it_saves(lake: Lake, ids: list[str]) -> None:
    lake.checkpoints.protect()
    before = spoil(pack(lake, ids[3]))
    lake.checkpoints.verify_all(level="digest")
    assert status(lake, ids[3]) == "quarantined"
    plan = lake.checkpoints.plan_repair()
    assert status(lake, ids[3]) == "quarantined", "a plan changes nothing"
    repaired = lake.checkpoints.repair(plan)
    assert [one.verdict for one in repaired.found] == ["good"]
    assert str(repaired).endswith("1 of 1 checkpoints concerned are whole now")
    assert status(lake, ids[3]) == "good"
    assert pack(lake, ids[3]).read_bytes() == before
    loaded = lake.checkpoints.load(ids[3])
    assert (loaded["trained"] == state(3)["trained"]).all()
    with running(lake) as run:
        again = run.save_checkpoint(state(3), step=3)
    assert again.stored_bytes == 0, "its tensors are shared again"
    assert lake.checkpoints.plan_repair().is_empty


def test_a_quarantined_checkpoint_that_is_whole_is_released(lake: Lake, ids: list[str]) -> None:
    before = spoil(pack(lake, ids[3]))
    lake.checkpoints.verify(ids[3])
    pack(lake, ids[3]).write_bytes(before)
    plan = lake.checkpoints.plan_repair()
    assert str(plan) == f"release checkpoint {ids[3]} from quarantine: every byte of it is right"
    lake.checkpoints.repair(plan)
    assert status(lake, ids[3]) == "good"


def test_what_is_lost_is_recorded_and_the_rest_salvaged(lake: Lake, ids: list[str]) -> None:
    spoil(pack(lake, ids[3]))
    plan = lake.checkpoints.plan_repair()
    assert [(loss.checkpoint_id, loss.tensors, loss.num_left) for loss in plan.losses] == [(ids[3], ("trained",), 1)]
    repaired = lake.checkpoints.repair(plan)
    assert [one.tensors_lost for one in repaired.found] == [("trained",)]
    assert status(lake, ids[3]) == "quarantined"
    rest, lost = lake.checkpoints.open(ids[3]).salvage()
    assert (rest["frozen"] == FROZEN).all()
    assert lost.keys() == {"trained"}
    assert lake.checkpoints.get("latest").id == ids[2]


def test_a_row_without_files_is_marked_with_what_is_lost(lake: Lake, ids: list[str]) -> None:
    (lake.path / "checkpoints" / f"{ids[3]}.json").unlink()
    pack(lake, ids[3]).unlink()
    repaired = lake.checkpoints.repair(lake.checkpoints.plan_repair())
    (found,) = repaired.found
    assert (found.verdict, found.tensors_lost) == ("missing", ("frozen", "trained"))
    assert status(lake, ids[3]) == "quarantined"
    query = "SELECT tensors_lost, finding FROM verifications WHERE checkpoint_id = $id"
    ((tensors, finding),) = lake.sql(query, id=ids[3]).fetchall()
    assert tensors == ["frozen", "trained"]
    assert "is missing" in finding
    assert finding.endswith("; lost are frozen, trained")
    lake.checkpoints.repair(lake.checkpoints.plan_repair())
    assert events(lake, ids[3]) == ["saved", "quarantined"]


def test_checkpoints_without_rows_are_listed(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    """The files of another lake, put into this one by hand."""
    with ckptlake.open(tmp_path / "other") as other, other.run("moved", capture=Capture.nothing()) as run:
        moved = run.save_checkpoint(state(11), step=11, metrics={"loss": 0.5}).id
    for name in (f"checkpoints/{moved}.json", f"blobs/{moved}.safetensors"):
        (tmp_path / "other" / name).rename(lake.path / name)
    assert lake.checkpoints.find(moved) is None
    repaired = lake.checkpoints.repair(lake.checkpoints.plan_repair())
    assert repaired.failed == ()
    record = lake.checkpoints.get(moved)
    assert (record.step, record.experiment, dict(record.metrics)) == (11, "moved", {"loss": 0.5})
    assert lake.checkpoints.verify(moved, level="loads").is_good
    query = 'SELECT path, "max" FROM tensors WHERE checkpoint_id = $id ORDER BY path'
    assert lake.sql(query, id=moved).fetchall() == [("frozen", 49_999.0), ("trained", 11.5)]


def test_deleted_checkpoints_are_not_brought_back(lake: Lake, ids: list[str]) -> None:
    manifest = lake.path / "checkpoints" / f"{ids[3]}.json"
    kept = manifest.read_bytes(), pack(lake, ids[3]).read_bytes()
    lake.checkpoints.delete(ids[3])
    manifest.write_bytes(kept[0])
    pack(lake, ids[3]).write_bytes(kept[1])
    assert lake.checkpoints.plan_repair().is_empty
    assert lake.checkpoints.find(ids[3]) is None


def test_trimmed_checkpoints_are_repaired_as_they_are(lake: Lake) -> None:
    with running(lake) as run:
        for step in range(2):
            parts = {"model": state(step)["trained"], "optimizer": {"m": np.full(9_000, step + 0.25)}}
            run.save_checkpoint(parts, step=step)
    plan = lake.checkpoints.plan_retention("latest(2)", keep_optimizer=1)
    lake.checkpoints.apply(plan)
    (oldest, _) = lake.checkpoints.list()
    manifest = lake.path / "checkpoints" / f"{oldest.id}.json"
    before = manifest.read_bytes()
    assert lake.checkpoints.plan_repair().is_empty
    manifest.unlink()
    repaired = lake.checkpoints.repair(lake.checkpoints.plan_repair())
    assert repaired.failed == ()
    assert manifest.read_bytes() == before
    assert "optimizer" not in lake.checkpoints.load(oldest.id).state


def test_compressed_packs_are_verified_protected_and_repaired(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    import shutil

    lake.checkpoints.compact(keep_raw=0)
    archives = sorted((lake.path / "blobs").glob("*.ckpk"))
    assert len(archives) == 4
    assert all(one.is_good for one in lake.checkpoints.verify_all(level="loads"))
    shutil.copytree(lake.path, tmp_path / "backup")
    assert len(lake.checkpoints.protect(ids[3]).written) >= 2, "a pack and those its deltas need"
    for path in archives:
        spoil(path)
    assert len([one for one in lake.checkpoints.verify_all() if not one.is_good]) == 4
    repaired = lake.checkpoints.repair(lake.checkpoints.plan_repair(sources=[tmp_path / "backup"]))
    assert repaired.failed == ()
    assert [one.verdict for one in repaired.found] == ["good"] * 4
    assert {one.status for one in lake.checkpoints.list()} == {"good"}
    assert lake.checkpoints.gc(grace_s=0).files == ()
    assert all((lake.checkpoints.load(name)["trained"] == step + 0.5).all() for step, name in enumerate(ids))
    lake.checkpoints.compact(keep_raw=0)
    assert all(one.is_good for one in lake.checkpoints.verify_all(level="digest"))


def test_a_lake_without_its_packs_comes_back_from_a_copy(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    import shutil

    (lake.path / "blobs").rename(tmp_path / "copy")
    assert {one.verdict for one in lake.checkpoints.verify_all()} == {"missing"}
    lake.checkpoints.repair(lake.checkpoints.plan_repair(sources=[tmp_path / "copy"]))
    assert {one.verdict for one in lake.checkpoints.verify_all(level="loads")} == {"good"}
    for name in ids:
        assert pack(lake, name).read_bytes() == (tmp_path / "copy" / pack(lake, name).name).read_bytes()
    shutil.rmtree(lake.path / "checkpoints")
    repaired = lake.checkpoints.repair(lake.checkpoints.plan_repair())
    assert {one.verdict for one in repaired.found} == {"good"}, "manifests stand in the packs too"


def test_one_checkpoint_is_repaired_alone(lake: Lake, ids: list[str]) -> None:
    for name in ids[2:]:
        (lake.path / "checkpoints" / f"{name}.json").unlink()
    plan = lake.checkpoints.plan_repair(ids[3])
    assert (plan.examined, plan.concerned) == (1, (ids[3],))
    lake.checkpoints.repair(plan)
    assert [(lake.path / "checkpoints" / f"{name}.json").exists() for name in ids] == [True, True, False, True]


def jsonable(value: object) -> Any:
    return json.loads(json.dumps(asdict(value), default=str))  # type: ignore[call-overload]


def test_results_are_plain_values(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    spoil(pack(lake, ids[3]))
    (found,) = [one for one in lake.checkpoints.verify_all() if not one.is_good]
    assert jsonable(found)["tensors_lost"] == ["trained"]
    assert jsonable(lake.checkpoints.protect())["refused"][0][0] == f"blobs/{ids[3]}.safetensors"
    plan = lake.checkpoints.plan_repair()
    assert jsonable(plan)["losses"][0]["checkpoint_id"] == ids[3]
    assert jsonable(lake.checkpoints.repair(plan))["found"][0]["verdict"] == "damaged"
    monitor = lake.checkpoints.watch(bytes_per_s=1e12)
    assert jsonable(monitor.status())["checkpoints"] == 4
    assert jsonable(monitor.step())["bytes_read"] == 0


def test_repair_beside_saves_keeps_everything(lake: Lake, ids: list[str]) -> None:
    """While one thread repairs, another saves what shares tensors with the pack that is repaired."""
    lake.checkpoints.protect()
    for name in ids:
        spoil(pack(lake, name))
    saved: list[str] = []
    failed: list[BaseException] = []

    def save() -> None:
        try:
            with running(lake) as run:
                for step in range(8):
                    saved.append(run.save_checkpoint(state(step % 4), step=step).id)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=save)
    thread.start()
    lake.checkpoints.repair(lake.checkpoints.plan_repair())
    thread.join()
    assert failed == []
    assert len(saved) == 8
    lake.checkpoints.repair(lake.checkpoints.plan_repair())
    assert all(one.is_good for one in lake.checkpoints.verify_all(level="loads"))


def test_finding_what_to_do_needs_no_torch(lake: Lake, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real: Callable[..., Any] = builtins.__import__

    def without_torch(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    spoil(pack(lake, ids[3]))
    (lake.path / "x.pt").write_bytes(b"PK\x03\x04 not read without torch")
    plan = lake.checkpoints.plan_repair(sources=[lake.path / "x.pt"])
    assert [loss.tensors for loss in plan.losses] == [("trained",)]
