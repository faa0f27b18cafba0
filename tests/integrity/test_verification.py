"""Verification tells every damage by name, and no damage where a checkpoint loads as it was saved."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from damaged_lakes import KINDS, Scene, cut_short, flip, overwrite, swap
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlake.checkpoints.codec import archive as archive_module
from ckptlake.errors import InvalidInputError, LakeFormatError
from ckptlake.integrity import pieces as pieces_module
from ckptlake.integrity import stretches
from ckptlake.integrity.pieces import LEVELS, Level, pieces_of
from ckptlake.integrity.verification import Verification, Verifier, levels_from, verify

each_level = pytest.mark.parametrize("level", LEVELS)
CLOSE = levels_from("fast")


def check(scene: Scene, kind: str, level: Level = "digest") -> Verification:
    return verify(scene.store, scene.ids[kind], level)


def verdicts(scene: Scene, level: Level = "digest") -> dict[str, str]:
    found = Verifier(scene.store, level).check(scene.ids.values())
    return dict(zip(scene.ids, (one.verdict for one in found), strict=True))


def damaged(scene: Scene, level: Level = "digest") -> set[str]:
    return {kind for kind, verdict in verdicts(scene, level).items() if verdict != "good"}


# -- nothing is wrong


@each_level
def test_whole_checkpoints_are_good_at_every_level(whole: Scene, level: Level) -> None:
    for kind in KINDS:
        found = check(whole, kind, level)
        assert (found.verdict, found.finding, found.tensors_lost, found.level) == ("good", None, (), level)
        assert found.duration_s >= 0
        assert found.verified_at.tzinfo is not None
        manifest = whole.store.read_manifest(whole.ids[kind])
        assert (found.run_id, found.experiment) == (manifest.run_id, "care")
        expected = manifest.logical_bytes if manifest.file is None else manifest.file.size_bytes
        assert found.bytes_read == (expected if level in CLOSE else 0)


def test_shared_bytes_are_read_once_a_call(whole: Scene) -> None:
    found = list(Verifier(whole.store, "digest").check(whole.ids.values()))
    distinct = {p: p.nbytes for name in whole.ids.values() for p in pieces_of(whole.store.read_manifest(name))}
    assert sum(one.bytes_read for one in found) == sum(distinct.values())
    assert found[2].bytes_read == 0, "everything in it was read for the one before"


def test_what_was_read_for_others_counts_in_the_duration(whole: Scene) -> None:
    moments = iter(datetime(2026, 11, 23, tzinfo=UTC) + timedelta(hours=hour) for hour in range(100))
    verifier = Verifier(whole.store, "digest", lambda: next(moments))
    (first,) = verifier.check([whole.ids["second"]])
    (same,) = verifier.check([whole.ids["same"]])
    assert same.verified_at - timedelta(seconds=same.duration_s) < first.verified_at < same.verified_at


def test_an_unknown_level_is_refused(whole: Scene) -> None:
    with pytest.raises(InvalidInputError, match="exists, size, fast, digest, loads, got 'deep'"):
        check(whole, "first", "deep")  # type: ignore[arg-type]


def test_many_checkpoints_are_checked_in_batches(whole: Scene) -> None:
    names = [whole.ids[kind] for kind in KINDS] * 5
    found = list(Verifier(whole.store, "fast").check(names))
    assert [one.checkpoint_id for one in found] == names
    assert {one.verdict for one in found} == {"good"}


def test_checking_stops_with_its_caller(whole: Scene) -> None:
    asked: list[str] = []

    def names() -> Iterator[str]:
        for name in [whole.ids["first"]] * 100:
            asked.append(name)
            yield name

    for _ in Verifier(whole.store, "fast").check(names()):
        break
    assert len(asked) < 50


# -- each kind of damage by its name


def test_a_flipped_bit_is_told_with_its_tensor(scene: Scene) -> None:
    path = scene.pack("second")
    manifest = scene.store.read_manifest(scene.ids["second"])
    trained = next(t for t in manifest.tensors if t.path == "model/trained")
    data_start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    flip(path, 8 * (data_start + trained.offset + 1000))
    assert damaged(scene, "size") == set()
    assert damaged(scene, "fast") == damaged(scene, "digest") == {"second", "same"}
    found = check(scene, "second")
    assert found.verdict == "damaged"
    assert found.tensors_lost == ("model/trained",)
    assert found.finding is not None
    assert "tensor 'model/trained'" in found.finding
    assert f"do not have the SHA-256 {trained.digest}" in found.finding
    fast = check(scene, "second", "fast")
    assert fast.finding is not None
    assert "damaged between 0 and 20000 of them" in fast.finding


@pytest.mark.parametrize("kind", ["first", "planes", "delta", "safetensors", "pickle"])
def test_truncation_is_told_by_size(scene: Scene, kind: str) -> None:
    path = scene.manifest(kind).with_suffix(".pkl") if kind == "pickle" else None
    path = path or (scene.manifest(kind).with_suffix(".safetensors") if kind == "safetensors" else scene.pack(kind))
    cut_short(path, path.stat().st_size - 100)
    assert check(scene, kind, "exists").is_good
    for level in LEVELS[1:]:
        found = check(scene, kind, level)
        assert found.verdict == "damaged"
        assert found.tensors_lost
        assert found.finding is not None
        assert path.name.partition(".")[0] in found.finding
        assert any(words in found.finding for words in ("cut short", "no whole pack", "bytes where"))


def test_an_empty_pack_is_cut_short(scene: Scene) -> None:
    cut_short(scene.pack("first"), 0)
    assert damaged(scene) == set(KINDS) - {"safetensors", "pickle"}
    assert "cut short" in str(check(scene, "first").finding)


def test_a_wrong_digest_in_a_manifest_is_told(scene: Scene) -> None:
    manifest = scene.store.read_manifest(scene.ids["first"])
    wrong = hashlib.sha256(b"something else").hexdigest()
    tensors = tuple(replace(t, digest=wrong) if t.path == "model/bias" else t for t in manifest.tensors)
    scene.store.replace_manifest(replace(manifest, tensors=tensors))
    assert check(scene, "first", "fast").is_good
    found = check(scene, "first", "digest")
    assert (found.verdict, found.tensors_lost) == ("damaged", ("model/bias",))
    assert f"do not have the SHA-256 {wrong}" in str(found.finding)


def test_two_packs_swapped_are_told(scene: Scene) -> None:
    one, other = scene.pack("second"), scene.pack("third")
    assert one.stat().st_size == other.stat().st_size
    swap(one, other)
    assert damaged(scene) == {"second", "same", "third", "delta"}
    assert check(scene, "third").tensors_lost == ("model/trained", "model/bias")


def test_two_compressed_packs_swapped_are_told(scene: Scene) -> None:
    swap(scene.pack("planes"), scene.pack("delta"))
    assert damaged(scene, "size") == damaged(scene) == {"planes", "delta"}
    assert "does not hold" in str(check(scene, "delta").finding)


def test_two_manifests_swapped_are_told(scene: Scene) -> None:
    swap(scene.manifest("first"), scene.manifest("second"))
    assert damaged(scene, "exists") == {"first", "second"}
    assert f"that of another checkpoint, {scene.ids['second']}" in str(check(scene, "first").finding)


@each_level
def test_a_missing_pack_is_told_once(scene: Scene, level: Level) -> None:
    scene.pack("first").unlink()
    found = check(scene, "first", level)
    assert found.verdict == "missing"
    assert str(found.finding).count("is missing") == 1
    assert found.tensors_lost == ("model/frozen", "model/trained", "model/bias")
    assert check(scene, "second", level).tensors_lost == ("model/frozen",)


@each_level
def test_a_missing_manifest_is_told(scene: Scene, level: Level) -> None:
    scene.manifest("first").unlink()
    found = check(scene, "first", level)
    assert (found.verdict, found.run_id) == ("missing", None)
    assert f"the manifest {scene.manifest('first')} is missing" in str(found.finding)
    assert check(scene, "second", level).is_good


@each_level
def test_a_manifest_cut_short_is_told(scene: Scene, level: Level) -> None:
    cut_short(scene.manifest("first"), 700)
    found = check(scene, "first", level)
    assert found.verdict == "damaged"
    assert "is damaged" in str(found.finding)


def test_a_replaced_plain_file_is_told(scene: Scene) -> None:
    path = scene.manifest("pickle").with_suffix(".pkl")
    size = path.stat().st_size
    path.write_bytes(os.urandom(size))
    assert check(scene, "pickle", "size").is_good
    assert "damaged between" in str(check(scene, "pickle", "fast").finding)
    found = check(scene, "pickle")
    assert found.verdict == "damaged"
    assert len(found.tensors_lost) == 4
    path.write_bytes(os.urandom(size + 1))
    assert f"has {size + 1} bytes where {size} were written" in str(check(scene, "pickle", "size").finding)
    path.unlink()
    assert check(scene, "pickle", "exists").verdict == "missing"


@contextmanager
def without_privileges(root: Path) -> Iterator[None]:
    """Be somebody else for the block, where the tests run as root, whom no permission stops."""
    if os.geteuid() != 0:
        yield
        return
    above = [parent for parent in root.parents if parent.stat().st_uid == 0]
    modes = {parent: parent.stat().st_mode for parent in above}
    for parent in above:
        parent.chmod(modes[parent] | 0o011)
    for path in (root, *root.rglob("*")):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for parent, mode in modes.items():
            parent.chmod(mode)


@pytest.mark.parametrize("level", LEVELS[1:])
def test_an_unreadable_file_is_told(scene: Scene, level: Level) -> None:
    scene.pack("second").chmod(0)
    scene.manifest("third").chmod(0)
    with without_privileges(scene.root):
        found, other, good = (check(scene, kind, level) for kind in ("second", "third", "first"))
    assert found.verdict == other.verdict == "damaged"
    assert "cannot be read: Permission denied" in str(found.finding)
    assert "cannot be read: Permission denied" in str(other.finding)
    assert good.is_good


@each_level
def test_a_directory_in_the_place_of_a_pack_is_told(scene: Scene, level: Level) -> None:
    path = scene.pack("second")
    path.unlink()
    path.mkdir()
    found = check(scene, "second", level)
    assert found.verdict == "damaged"
    assert f"{path} is a directory, not a file" in str(found.finding)


@each_level
@pytest.mark.parametrize("what", ["pack", "manifest", "archive", "plain"])
def test_a_link_out_of_the_lake_is_not_followed(scene: Scene, tmp_path: Path, what: str, level: Level) -> None:
    kind, path = {
        "pack": ("second", scene.pack("second")),
        "manifest": ("second", scene.manifest("second")),
        "archive": ("planes", scene.pack("planes")),
        "plain": ("pickle", scene.manifest("pickle").with_suffix(".pkl")),
    }[what]
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    found = check(scene, kind, level)
    assert found.verdict == "damaged"
    assert f"{path} is a link out of the lake, to {elsewhere}, and is not followed" in str(found.finding)


def test_links_within_the_lake_are_followed(scene: Scene) -> None:
    path = scene.pack("second")
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))
    assert damaged(scene) == set()


def test_a_lake_whose_folder_is_a_link_is_whole(scene: Scene, tmp_path: Path) -> None:
    (scene.root / "blobs").rename(tmp_path / "other-disk")
    (scene.root / "blobs").symlink_to(tmp_path / "other-disk")
    assert damaged(scene) == set()


def test_a_missing_folder_is_told(scene: Scene, tmp_path: Path) -> None:
    (scene.root / "blobs").rename(tmp_path / "away")
    assert verdicts(scene, "exists") == {k: "good" if k in ("safetensors", "pickle") else "missing" for k in KINDS}


def test_sectors_that_a_disk_cannot_read_are_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = scene.pack("second").stat().st_ino
    readable = os.preadv

    def read(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return readable(descriptor, buffers, offset)

    monkeypatch.setattr(stretches.os, "preadv", read)
    monkeypatch.setattr(stretches, "mapped_stretch", lambda *_: None)  # as where a page cannot be brought into memory
    found = check(scene, "second")
    assert found.verdict == "damaged"
    assert f"{scene.pack('second')} cannot be read: Input/output error" in str(found.finding)
    assert check(scene, "first").is_good


def test_a_base_that_is_damaged_damages_what_is_stored_as_differences(scene: Scene) -> None:
    path = scene.pack("third")
    path.write_bytes(path.read_bytes()[:-21000] + bytes(21000))
    assert damaged(scene) == {"third", "delta"}
    assert check(scene, "delta").tensors_lost == ("model/trained",)


def test_many_findings_are_counted(scene: Scene) -> None:
    manifest = scene.store.read_manifest(scene.ids["first"])
    frozen = manifest.tensors[0]
    many = tuple(replace(frozen, path=f"model/{n}", offset=4 * n, shape=(1,), digest="0" * 64) for n in range(1, 21))
    many = tuple(replace(t, checks=(t.checks[0],)) for t in many)
    scene.store.replace_manifest(replace(manifest, tensors=many))
    found = check(scene, "first")
    assert len(found.tensors_lost) == 20
    assert str(found.finding).endswith("; and 12 more findings of this kind")


# -- what cannot be told


def test_unknown_digests_lower_the_level(scene: Scene) -> None:
    manifest = scene.store.read_manifest(scene.ids["first"])
    tensors = tuple(replace(t, digest=None) for t in manifest.tensors)
    scene.store.replace_manifest(replace(manifest, tensors=tensors))
    assert check(scene, "first", "fast").finding is None
    found = check(scene, "first", "digest")
    assert (found.verdict, found.level) == ("good", "fast")
    assert found.finding == "the SHA-256 of 3 tensors is not known yet: they were compared with their checksums"
    overwrite(scene.pack("first"), scene.pack("first").stat().st_size - 100, bytes(100))
    assert check(scene, "first", "digest").verdict == "damaged"


def test_a_file_that_would_run_code_is_whole_and_not_loaded(tmp_path: Path) -> None:
    import ckptlake
    from ckptlake.config import Capture

    with ckptlake.open(tmp_path / "lake") as lake, lake.run("care", capture=Capture.nothing()) as run:
        saved = run.save_checkpoint({"path": Path("x"), "call": os.getcwd}, step=1, format="pickle")
        found = verify(lake.checkpoints._store, saved.id, "loads")
    assert (found.verdict, found.level) == ("good", "digest")
    assert "its bytes are right, but it was not loaded" in str(found.finding)


def test_a_tree_that_no_state_can_be_made_of_is_found_by_loading(scene: Scene) -> None:
    manifest = scene.store.read_manifest(scene.ids["first"])
    scene.store.replace_manifest(replace(manifest, tree={"no such": "container"}))
    assert check(scene, "first", "digest").is_good
    found = check(scene, "first", "loads")
    assert (found.verdict, found.level) == ("damaged", "loads")


def test_a_pack_of_a_newer_format_is_no_damage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: object) -> None:
        raise LakeFormatError("pack format 9 is newer than this ckptlake reads")

    monkeypatch.setattr(archive_module, "parse", parse)
    with pytest.raises(LakeFormatError, match="pack format 9"):
        check(scene, "planes")


def test_a_plain_file_with_too_few_checksums_is_damaged(scene: Scene) -> None:
    manifest = scene.store.read_manifest(scene.ids["pickle"])
    assert manifest.file is not None
    scene.store.replace_manifest(replace(manifest, file=replace(manifest.file, checks=())))
    assert "0 checksums for" in str(check(scene, "pickle", "fast").finding)


# -- a lake that others change meanwhile


def test_a_checkpoint_that_is_compressed_meanwhile_is_not_damaged(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from damaged_lakes import compress

    examine = pieces_module.examine
    compressed: list[str] = []

    def slow(reader: pieces_module.PieceReader, piece: pieces_module.Piece, level: Level) -> pieces_module.Fault | None:
        if not compressed and piece.file.endswith(scene.ids["second"]):
            reader.reach(piece)
            compressed.append(str(compress(scene, "second")))
        return examine(reader, piece, level)

    monkeypatch.setattr(pieces_module, "examine", slow)
    found = check(scene, "second")
    assert compressed
    assert found.is_good


def test_the_gate_is_held_only_to_look_again(scene: Scene) -> None:
    with scene.store.gate.alone():
        assert check(scene, "first").is_good


def test_a_lake_that_cannot_be_written_is_verified(scene: Scene) -> None:
    scene.pack("second").unlink()
    for path in (scene.root / "blobs").iterdir():
        path.chmod(0o444)
    (scene.root / "blobs").chmod(0o555)
    with without_privileges(scene.root):
        found, good = check(scene, "second"), check(scene, "first")
    assert (found.verdict, good.verdict) == ("missing", "good")


# -- properties

DAMAGES = st.sampled_from(["flip", "truncate", "swap", "delete", "zero", "append", "copy over"])


def damage(scene: Scene, how: str, which: int, other: int, where: int) -> None:
    """Damage one file under blobs/ or checkpoints/, whichever it is."""
    files = scene.files()
    path, second = files[which % len(files)], files[other % len(files)]
    size = path.stat().st_size
    if how == "flip":
        flip(path, where)
    elif how == "truncate":
        cut_short(path, where % max(size, 1))
    elif how == "delete":
        path.unlink()
    elif how == "zero":
        start = where % max(size, 1)
        overwrite(path, start, bytes(min(512, size - start)))
    elif how == "append":
        path.write_bytes(path.read_bytes() + os.urandom(where % 100))
    elif how == "copy over":
        path.write_bytes(second.read_bytes())
    elif path != second:
        swap(path, second)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(DAMAGES, st.integers(0, 100), st.integers(0, 100), st.integers(0, 2**31)), min_size=1, max_size=3
    )
)
def test_good_means_that_it_loads_and_damaged_that_it_does_not(
    fresh: Callable[[], Scene], damages: list[tuple[str, int, int, int]]
) -> None:
    scene = fresh()
    for how, which, other, where in damages:
        damage(scene, how, which, other, where)
    for kind, found in zip(KINDS, Verifier(scene.store, "digest").check(scene.ids.values()), strict=True):
        assert found.is_good == scene.loads(kind), (kind, found.finding)
        assert found.is_good == (found.finding is None)
    loaded = Verifier(scene.store, "loads").check(scene.ids.values())
    assert [one.is_good for one in loaded] == [scene.loads(kind) for kind in KINDS]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAMAGES, st.integers(0, 100), st.integers(0, 100), st.integers(0, 2**31))
def test_a_closer_look_finds_whatever_a_quick_one_does(
    fresh: Callable[[], Scene], how: str, which: int, other: int, where: int
) -> None:
    scene = fresh()
    damage(scene, how, which, other, where)
    found = [damaged(scene, level) for level in LEVELS]
    for quick, close in itertools.pairwise(found):
        assert quick <= close
    assert found[2] == found[3], "nothing but SHA-256 differs between these levels"
