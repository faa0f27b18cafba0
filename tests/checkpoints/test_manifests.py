"""Manifests as they are written, read, kept in memory, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError
from ckptlake.tables.layout import Layout

DIGEST = "0123456789abcdef" * 4
FIRST = StoredTensor("model/w", "float32", (2, 3), DIGEST, (7,), "blobs/a", 64)


def manifest_of(*tensors: StoredTensor, checkpoint_id: str = "20260101-000000-aaaaaaaaaa") -> Manifest:
    return Manifest(
        checkpoint_id, "lake", "run", "e", 1, 5, None, "packed", datetime(2026, 1, 1, tzinfo=UTC), {"dict": []}, tensors
    )


paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
tensors = st.builds(
    StoredTensor,
    path=paths,
    dtype=st.sampled_from(["float32", "bool", "complex128"]),
    shape=st.lists(st.integers(1, 40), max_size=3).map(tuple),
    digest=st.sampled_from([None, DIGEST]),
    checks=st.integers(0, 2**64 - 1).map(lambda value: (value,)),
    pack=st.sampled_from(["blobs/a", "blobs/b-1", "checkpoints/c"]),
    offset=st.integers(0, 2**50),
)


@given(st.lists(tensors, max_size=8))
def test_what_is_written_is_read(given_tensors: list[StoredTensor]) -> None:
    manifest = manifest_of(*given_tensors)
    read = Manifest.decode(manifest.encode(), "here")
    assert tuple(read.tensors) == tuple(given_tensors)
    assert list(read.paths) == [tensor.path for tensor in given_tensors]
    assert replace(read, tensors=tuple(read.tensors)) == manifest


def test_a_digest_that_comes_later_takes_no_more_room() -> None:
    """A pack's header holds the manifest, and is written in its place once the digests are known."""
    unknown = manifest_of(replace(FIRST, digest=None))
    assert len(unknown.encode()) == len(manifest_of(FIRST).encode())


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = manifest_of(FIRST, replace(FIRST, path="model/b", pack="blobs/b")).fields()
    change(fields["tensors"])  # type: ignore[arg-type]
    body = json.dumps(fields, separators=(",", ":"))
    return f'{{"check":"{xxhash.xxh3_64_hexdigest(body.encode())}","manifest":{body}}}\n'.encode()


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a column is missing": lambda columns: columns.pop("offset"),
    "a column is shorter": lambda columns: columns["shape"].pop(),
    "a column is a text": lambda columns: columns.update(dtype="ab"),
    "a column is an object": lambda columns: columns.update(digest={"0": DIGEST, "1": DIGEST}),
    "a path is a number": lambda columns: columns.update(path=["a", 3]),
    "no packs": lambda columns: columns.update(packs=[]),
    "packs are an object": lambda columns: columns.update(packs={"0": "blobs/a", "1": "blobs/b"}),
    "a pack before the first": lambda columns: columns.update(pack=[-1, 0]),
    "a pack behind the last": lambda columns: columns.update(pack=[0, 2]),
    "a pack by a flag": lambda columns: columns.update(pack=[0, True]),
    "a pack outside": lambda columns: columns.update(packs=["blobs/a", "blobs/../../b"]),
    "a shape is no list": lambda columns: columns.update(shape=[[2, 3], 6]),
    "too few checksums": lambda columns: columns.update(checks=["", ""]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_tensors_that_are_not_described_as_they_should_be_are_damage(damage: Callable[[Any], object]) -> None:
    assert len(Manifest.decode(changed(lambda _: None), "here").tensors) == 2
    with pytest.raises(DamagedCheckpointError, match="the manifest here is damaged"):
        list(Manifest.decode(changed(damage), "here").tensors)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    made = CheckpointStore(Layout(tmp_path), "lake")
    made.prepare()
    return made


class TestRecalling:
    def test_a_file_that_is_the_same_is_read_once(
        self, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.publish(manifest_of(FIRST))
        first = store.recall_manifest("20260101-000000-aaaaaaaaaa")
        monkeypatch.setattr(store, "read_manifest", lambda _: pytest.fail("it was read again"))
        assert store.recall_manifest("20260101-000000-aaaaaaaaaa") is first

    def test_one_that_was_replaced_is_read_again(self, store: CheckpointStore) -> None:
        unknown = manifest_of(replace(FIRST, digest=None))
        store.publish(unknown)
        assert store.recall_manifest(unknown.checkpoint_id).digest is None
        store.replace_manifest(manifest_of(FIRST))
        assert store.recall_manifest(unknown.checkpoint_id).tensors[0].digest == DIGEST

    def test_one_that_is_gone_is_not_recalled(self, store: CheckpointStore) -> None:
        store.publish(manifest_of(FIRST))
        store.recall_manifest("20260101-000000-aaaaaaaaaa")
        store.manifest_path("20260101-000000-aaaaaaaaaa").unlink()
        with pytest.raises(CheckpointNotFoundError):
            store.recall_manifest("20260101-000000-aaaaaaaaaa")

    def test_a_few_are_kept(self, store: CheckpointStore) -> None:
        ids = [f"20260101-000000-{letter * 10}" for letter in "abcdefghijkl"]
        for checkpoint_id in ids:
            store.publish(manifest_of(FIRST, checkpoint_id=checkpoint_id))
        found = [store.recall_manifest(checkpoint_id) for checkpoint_id in ids]
        assert store.recall_manifest(ids[-1]) is found[-1]
        assert store.recall_manifest(ids[0]) is not found[0]
        assert store.recall_manifest(ids[0]) == found[0]
