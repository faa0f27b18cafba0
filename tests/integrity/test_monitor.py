"""A monitor reads every byte within its budget, goes on where it stopped, and tells how old what it knows is."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from damaged_lakes import KINDS, Scene, compress, flip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlake.checkpoints.checksums import CHECKED_BYTES
from ckptlake.errors import InvalidInputError
from ckptlake.integrity import monitor as monitor_module
from ckptlake.integrity import pieces as pieces_module
from ckptlake.integrity import turns as turns_module
from ckptlake.integrity.coverage import Target
from ckptlake.integrity.monitor import Monitor, Scrub, Step
from ckptlake.integrity.pieces import STRETCH_BYTES, Piece, PieceReader, pieces_of
from ckptlake.integrity.turns import Pace
from ckptlake.integrity.verification import Verification

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY_S = 86_400.0


class Time:
    """A clock that stands still but for those who wait."""

    def __init__(self) -> None:
        self.now = NOON
        self.waited: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += timedelta(seconds=seconds)


class Book:
    """Checkpoints saved an hour ago, an earlier one a minute before the next, and the checks recorded of them."""

    def __init__(self, scene: Scene, kinds: Sequence[str] = KINDS) -> None:
        self.saved = {scene.ids[kind]: NOON - timedelta(minutes=60 + len(kinds) - n) for n, kind in enumerate(kinds)}
        self.found: list[Verification] = []

    def targets(self) -> list[Target]:
        since: dict[str, datetime] = {}
        for one in self.found:
            since[one.checkpoint_id] = one.verified_at - timedelta(seconds=one.duration_s)
        return [Target(name, at, since.get(name)) for name, at in self.saved.items()]

    def record(self, found: Verification) -> Verification | None:
        if found.checkpoint_id not in self.saved:
            return None
        self.found.append(found)
        return found


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Piece, int, int]]:
    """Collect what is read of the store."""
    seen: list[tuple[Piece, int, int]] = []
    blocks = PieceReader.blocks

    def counted(self: PieceReader, piece: Piece, start: int, stop: int) -> Iterator[memoryview]:
        seen.append((piece, start, stop))
        return blocks(self, piece, start, stop)

    monkeypatch.setattr(PieceReader, "blocks", counted)
    return seen


@pytest.fixture
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 16 KB be read at once, so that small tensors take several steps; checksums then cover too much."""
    for module in (pieces_module, turns_module, monitor_module):
        monkeypatch.setattr(module, "STRETCH_BYTES", 16_384)


def distinct(scene: Scene, kinds: Sequence[str] = KINDS) -> dict[Piece, int]:
    return {p: p.nbytes for kind in kinds for p in pieces_of(scene.store.read_manifest(scene.ids[kind]))}


def watch(scene: Scene, book: Book, time: Time, **scrub: object) -> Monitor:
    options = {"bytes_per_s": 1e9, "every_s": DAY_S, **scrub}
    return Monitor(scene.store, book, Scrub(**options), now=time, wait=time.wait)  # type: ignore[arg-type]


def steps(monitor: Monitor, time: Time) -> Iterator[Step]:
    """Take steps, waiting for the budget, until there is nothing to do for long."""
    while True:
        step = monitor.step()
        if step.wait_s > 30:
            return
        time.wait(step.wait_s)
        yield step


@pytest.mark.parametrize("level", ["fast", "digest"])
def test_everything_is_read_once_a_period(
    scene: Scene, time: Time, reads: list[tuple[Piece, int, int]], level: str
) -> None:
    book = Book(scene)
    monitor = watch(scene, book, time, level=level)
    assert monitor.status().coverage == 0
    taken = list(steps(monitor, time))
    total = sum(distinct(scene).values())
    assert sum(stop - start for _, start, stop in reads) == sum(step.bytes_read for step in taken) == total
    assert sorted(one.checkpoint_id for one in book.found) == sorted(scene.ids.values())
    assert all(one.is_good and one.level == level for one in book.found)
    assert sum(one.bytes_read for one in book.found) == total
    status = monitor.status()
    assert (status.coverage, status.verified_bytes, status.bytes_read) == (1.0, total, total)
    assert (status.total_bytes, status.checkpoints, status.damaged) == (total, len(KINDS), ())
    time.wait(DAY_S / 2)
    assert sum(step.bytes_read for step in steps(monitor, time)) == 0, "half a day later nothing is due"
    time.wait(DAY_S / 2)
    assert sum(step.bytes_read for step in steps(monitor, time)) == total


def test_the_newest_unverified_come_first_then_the_longest_verified(scene: Scene, time: Time) -> None:
    book = Book(scene, KINDS[:3])
    list(steps(watch(scene, book, time), time))
    assert [one.checkpoint_id for one in book.found] == [scene.ids[kind] for kind in ("same", "second", "first")]
    book.found = []
    for kind, hours in (("first", 30), ("same", 60), ("second", 40)):
        at = NOON - timedelta(hours=hours)
        book.found.append(Verification(scene.ids[kind], None, None, "fast", "good", None, (), 0, 0.0, at))
    before = len(book.found)
    book.saved |= Book(scene, KINDS[:4]).saved
    list(steps(watch(scene, book, time), time))
    found = [one.checkpoint_id for one in book.found[before:]]
    assert found[0] == scene.ids["third"], "never verified"
    assert found[1] == scene.ids["same"], "verified the longest ago; it shares all with `second`, which was read since"


@pytest.mark.usefixtures("small_stretches")
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(1e3, 1e6), st.lists(st.integers(1, 12), max_size=6))
def test_the_budget_is_kept_across_restarts(fresh: Callable[[], Scene], rate: float, lives: list[int]) -> None:
    """However often it is restarted, it reads no more than the time allows, and everything in the end."""
    scene, time = fresh(), Time()
    book = Book(scene)
    read = 0
    for life in [*lives, 10**6]:
        monitor = watch(scene, book, time, bytes_per_s=rate, level="digest")
        begun, before = time.now, read
        for step in itertools.islice(steps(monitor, time), life):
            read += step.bytes_read
            assert read - before <= rate * (time.now - begun).total_seconds() + 1
    total = sum(distinct(scene).values())
    assert {one.checkpoint_id for one in book.found} == set(scene.ids.values())
    again = len(lives) * max(distinct(scene).values())
    assert total <= read <= total + again, "no more than a tensor is read again for each restart"
    assert monitor.status().coverage == 1


def big_lake(scene: Scene, size: int) -> str:
    """Replace a checkpoint by one with a tensor of `size` bytes, of which nothing is zero."""
    import numpy as np

    from ckptlake.checkpoints.checksums import check, spans
    from ckptlake.checkpoints.dtypes import DTYPES
    from ckptlake.checkpoints.manifest import StoredTensor
    from ckptlake.checkpoints.rawpack import RawPackWriter, header, place

    name = scene.ids["first"]
    data = memoryview(np.random.default_rng(0).integers(1, 255, size, np.uint8).tobytes())
    checks = tuple(check(data[start:stop]) for start, stop in spans(size))
    slots = place([("big", DTYPES["uint8"], (size,), size)])
    pack = f"blobs/{name}x"
    text = header(slots, {})
    writer = RawPackWriter(scene.store.pack_path(pack), len(text), size)
    writer.write(data, 0)
    writer.publish(text)
    manifest = scene.store.read_manifest(name)
    tensor = StoredTensor("big", "uint8", (size,), None, checks, pack, 0)
    scene.store.replace_manifest(replace(manifest, tensors=(tensor,)))
    return name


def test_a_large_tensor_goes_on_where_it_stopped(scene: Scene, time: Time, reads: list[tuple[Piece, int, int]]) -> None:
    size = 2 * STRETCH_BYTES + CHECKED_BYTES // 2
    name = big_lake(scene, size)
    book = Book(scene, ["first"])
    begun = time.now
    for number in range(3):
        time.wait(60)
        monitor = watch(scene, book, time, bytes_per_s=1e6)
        step = monitor.step()
        assert step.bytes_read == 0
        time.wait(step.wait_s)
        step = monitor.step()
        assert (step.found is not None) == (number == 2)
    assert [(start, stop) for _, start, stop in reads] == [
        (0, STRETCH_BYTES),
        (STRETCH_BYTES, 2 * STRETCH_BYTES),
        (2 * STRETCH_BYTES, size),
    ]
    (found,) = book.found
    assert (found.checkpoint_id, found.verdict) == (name, "good")
    first_read = begun + timedelta(seconds=60 + STRETCH_BYTES / 1e6)
    assert found.verified_at - timedelta(seconds=found.duration_s) <= first_read + timedelta(seconds=1)
    assert found.bytes_read == size - 2 * STRETCH_BYTES, "what the one before has read was not read again"


def test_a_digest_begins_its_tensor_anew_after_a_restart(scene: Scene, time: Time) -> None:
    big_lake(scene, STRETCH_BYTES + 8)
    manifest = scene.store.read_manifest(scene.ids["first"])
    path = scene.store.pack_path(manifest.tensors[0].pack)
    import hashlib

    digest = hashlib.sha256(path.read_bytes()[-(STRETCH_BYTES + 8) :]).hexdigest()
    scene.store.replace_manifest(manifest.sealed({"big": digest}))
    book = Book(scene, ["first"])
    for _ in range(2):
        monitor = watch(scene, book, time, level="digest")
        time.wait(1)
        assert monitor.step().bytes_read == STRETCH_BYTES
    time.wait(1)
    assert monitor.step().found is not None
    assert book.found[0].is_good
    assert book.found[0].level == "digest"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"checkpoint_id": "x", "pieces": 1, "good": [], "partial": null}',
        '{"checkpoint_id": "ID", "pieces": 3, "good": [[7, "2026-11-23T12:00:00+00:00"]], "partial": null}',
        '{"checkpoint_id": "ID", "pieces": 3, "good": [[0, "2026-11-23T12:00:00"]], "partial": null}',
        '{"checkpoint_id": "ID", "pieces": 3, "good": [], "partial": [9, 4194304, "2026-11-23T12:00:00+00:00"]}',
        '{"checkpoint_id": "ID", "pieces": 3, "good": [], "partial": [0, -5, "2026-11-23T12:00:00+00:00"]}',
        '{"checkpoint_id": "ID", "pieces": 3, "good": [], "partial": [0, 1e999, "2026-11-23T12:00:00+00:00"]}',
        '{"checkpoint_id": "ID", "pieces": 3, "good": 5, "partial": {}}',
    ],
)
def test_a_cursor_that_makes_no_sense_is_as_none(scene: Scene, time: Time, text: str) -> None:
    (scene.root / "cache").mkdir(exist_ok=True)
    (scene.root / "cache" / "scrub-fast.json").write_text(text.replace("ID", scene.ids["first"]))
    book = Book(scene)
    assert sum(step.bytes_read for step in steps(watch(scene, book, time), time)) == sum(distinct(scene).values())
    assert len(book.found) == len(KINDS)


@pytest.mark.usefixtures("small_stretches")
def test_the_cursor_is_gone_once_a_checkpoint_is_done(scene: Scene, time: Time) -> None:
    cursor = scene.root / "cache" / "scrub-digest.json"
    monitor = watch(scene, Book(scene, ["first"]), time, bytes_per_s=16_384, level="digest")
    kept = []
    for _ in steps(monitor, time):
        kept.append(cursor.exists() and json.loads(cursor.read_text())["checkpoint_id"])
    assert kept[:2] == [False, scene.ids["first"]]
    assert kept[-1] is False


# -- how old what is known is


def test_the_age_counts_from_when_a_byte_was_saved_until_it_is_read(scene: Scene, time: Time) -> None:
    book = Book(scene, KINDS[:3])
    monitor = watch(scene, book, time)
    oldest = min(book.saved.values())
    assert monitor.status().oldest_unverified_age_s == (NOON - oldest).total_seconds()
    time.wait(1)
    list(steps(monitor, time))
    age_s = monitor.status().oldest_unverified_age_s
    assert age_s is not None
    assert 0 <= age_s <= (time.now - NOON).total_seconds()
    time.wait(1000)
    assert monitor.status().oldest_unverified_age_s == pytest.approx(age_s + 1000)


def test_one_unread_byte_keeps_the_age(scene: Scene, time: Time) -> None:
    book = Book(scene, ["first", "second"])
    monitor = watch(scene, book, time)
    time.wait(1)
    while not book.found:
        time.wait(monitor.step().wait_s)
    assert book.found[0].checkpoint_id == scene.ids["second"]
    age_s = monitor.status().oldest_unverified_age_s
    assert age_s == (time.now - book.saved[scene.ids["first"]]).total_seconds()
    assert 0 < monitor.status().coverage < 1


def test_the_age_survives_a_restart(scene: Scene, time: Time) -> None:
    book = Book(scene)
    list(steps(watch(scene, book, time), time))
    begun = min(one.verified_at - timedelta(seconds=one.duration_s) for one in book.found)
    time.wait(5000)
    status = watch(scene, book, time).status()
    assert status.oldest_unverified_age_s == pytest.approx((time.now - begun).total_seconds())
    assert (status.coverage, status.bytes_read) == (1.0, 0)


def test_what_is_shared_is_as_old_as_its_reading(scene: Scene, time: Time) -> None:
    """A checkpoint that shares everything is verified without a read; that makes nothing younger than it is."""
    book = Book(scene, ["second"])
    monitor = watch(scene, book, time)
    list(steps(monitor, time))
    time.wait(DAY_S / 2)
    book.saved[scene.ids["same"]] = time.now
    assert sum(step.bytes_read for step in steps(monitor, time)) == 0
    assert book.found[-1].checkpoint_id == scene.ids["same"]
    restarted = watch(scene, book, time).status()
    assert restarted.oldest_unverified_age_s is not None
    assert restarted.oldest_unverified_age_s >= DAY_S / 2


def test_no_checkpoints_have_no_age(scene: Scene, time: Time) -> None:
    status = watch(scene, Book(scene, []), time).status()
    assert (status.oldest_unverified_age_s, status.coverage, status.total_bytes) == (None, 1.0, 0)
    assert status.sentence() == "there are no checkpoints to watch over"


# -- damage


def test_damage_is_found_and_told_of_all_that_share_it(scene: Scene, time: Time) -> None:
    path = scene.pack("first")
    flip(path, 8 * (path.stat().st_size - 20_100))  # in what is saved once and shared by all
    book = Book(scene)
    monitor = watch(scene, book, time)
    taken = list(steps(monitor, time))
    bad = {one.checkpoint_id: one for one in book.found if not one.is_good}
    assert bad.keys() == {scene.ids[kind] for kind in KINDS if kind not in ("safetensors", "pickle")}
    assert dict(monitor.status().damaged).keys() == bad.keys()
    assert all("damaged between" in str(one.finding) for one in bad.values())
    assert len([step for step in taken if step.found is not None]) == len(KINDS)


def test_those_that_share_damage_are_looked_at_next(scene: Scene, time: Time) -> None:
    book = Book(scene)
    list(steps(watch(scene, book, time), time))
    book.found = [replace(one, verified_at=NOON) for one in book.found]
    late = next(n for n, one in enumerate(book.found) if one.checkpoint_id == scene.ids["second"])
    book.found[late] = replace(book.found[late], verified_at=NOON - timedelta(days=2))
    scene.pack("first").unlink()
    same = next(n for n, one in enumerate(book.found) if one.checkpoint_id == scene.ids["first"])
    book.found[same] = replace(book.found[same], verified_at=NOON - timedelta(days=3))
    before = len(book.found)
    monitor = watch(scene, book, time)
    for _ in steps(monitor, time):
        if len(book.found) >= before + 6:
            break
    told = [one.checkpoint_id for one in book.found[before:]]
    packed = [scene.ids[kind] for kind in KINDS if kind not in ("safetensors", "pickle")]
    assert sorted(told) == sorted(packed), "all of them use a tensor of the pack that is gone"
    assert not any(one.is_good for one in book.found[before:])


def test_what_was_repaired_is_good_again(scene: Scene, time: Time) -> None:
    payload = scene.pack("second").read_bytes()
    scene.pack("second").write_bytes(payload[:-1] + b"\0")
    book = Book(scene, ["second"])
    monitor = watch(scene, book, time)
    list(steps(monitor, time))
    assert [one.verdict for one in book.found] == ["damaged"]
    scene.pack("second").write_bytes(payload)
    time.wait(DAY_S)
    list(steps(monitor, time))
    assert [one.verdict for one in book.found] == ["damaged", "good"]
    assert monitor.status().damaged == ()


def test_a_missing_manifest_is_told_once_a_period(scene: Scene, time: Time) -> None:
    scene.manifest("first").unlink()
    book = Book(scene, ["first"])
    monitor = watch(scene, book, time)
    list(steps(monitor, time))
    time.wait(100)
    list(steps(monitor, time))
    assert [one.verdict for one in book.found] == ["missing"]
    time.wait(DAY_S)
    list(steps(monitor, time))
    assert len(book.found) == 2


# -- a lake at work


def test_new_checkpoints_are_seen(scene: Scene, time: Time) -> None:
    book = Book(scene, ["first"])
    monitor = watch(scene, book, time)
    list(steps(monitor, time))
    book.saved[scene.ids["third"]] = time.now
    time.wait(monitor.step().wait_s)
    list(steps(monitor, time))
    assert book.found[-1].checkpoint_id == scene.ids["third"]


def test_a_checkpoint_deleted_while_it_is_read_is_forgotten(scene: Scene, time: Time) -> None:
    book = Book(scene, ["second"])
    monitor = watch(scene, book, time)
    monitor.status()
    scene.manifest("second").unlink()
    scene.pack("second").unlink()
    book.saved.clear()
    taken = list(steps(monitor, time))
    assert book.found == []
    assert [step.found for step in taken if step.found] == []
    time.wait(100)
    list(steps(monitor, time))
    assert monitor.status().damaged == ()


def test_a_pack_compressed_meanwhile_is_not_damaged(scene: Scene, time: Time) -> None:
    book = Book(scene)
    monitor = watch(scene, book, time)
    monitor.status()
    compress(scene, "second")
    list(steps(monitor, time))
    assert {one.verdict for one in book.found} == {"good"}


def test_trimmed_checkpoints_are_seen_as_they_are(scene: Scene, time: Time) -> None:
    book = Book(scene, ["first"])
    monitor = watch(scene, book, time)
    list(steps(monitor, time))
    manifest = scene.store.read_manifest(scene.ids["first"])
    scene.store.replace_manifest(replace(manifest, tensors=manifest.tensors[1:]))
    assert monitor.status().total_bytes == manifest.logical_bytes - manifest.tensors[0].nbytes


# -- running


def test_run_waits_for_the_budget_and_stops_at_its_end(scene: Scene, time: Time) -> None:
    book = Book(scene)
    monitor = watch(scene, book, time, bytes_per_s=10_000.0)
    end = NOON + timedelta(seconds=5)
    monitor.run(until=end)
    assert end <= time.now <= end + timedelta(seconds=1)
    assert 0 < monitor.status().bytes_read <= 50_000
    assert all(wait > 0 for wait in time.waited), "every wait waits, so nothing is asked again and again"
    monitor.run(until=NOON + timedelta(hours=1))
    assert monitor.status().coverage == 1
    assert len(time.waited) < 1000


def test_run_is_stopped_from_another_thread(scene: Scene) -> None:
    book = Book(scene)
    monitor = Monitor(scene.store, book, Scrub(bytes_per_s=1e12))
    thread = threading.Thread(target=monitor.run)
    thread.start()
    while len(book.found) < len(KINDS):
        threading.Event().wait(0.001)
    monitor.stop()
    thread.join(timeout=30)
    assert not thread.is_alive()
    monitor.run()
    assert len(book.found) == len(KINDS), "a stopped monitor stays so"


@pytest.mark.parametrize(
    ("scrub", "message"),
    [
        ({"level": "loads"}, "must be 'fast' or 'digest', got 'loads'"),
        ({"bytes_per_s": 0}, "bytes_per_s must lie between 0 and 1e15, got 0"),
        ({"bytes_per_s": float("nan")}, "bytes_per_s must lie between"),
        ({"every_s": -1.0}, "every_s must lie between 0 and 1e15, got -1.0"),
    ],
)
def test_what_cannot_be_is_refused(scrub: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Scrub(**scrub)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(-5, 50), st.integers(1, STRETCH_BYTES)), max_size=50), st.floats(1.0, 1e9))
def test_a_pace_is_never_exceeded(moves: list[tuple[float, int]], rate: float) -> None:
    """Also where the clock is set back, what is allowed is at most what the time that passed allows."""
    now = latest = NOON
    pace = Pace(rate, now)
    allowed = 0
    for seconds, nbytes in moves:
        now += timedelta(seconds=seconds)
        latest = max(latest, now)
        wait_s = pace.wait_s(nbytes, now)
        assert wait_s >= 0
        if wait_s == 0:
            pace.spend(nbytes)
            allowed += nbytes
        assert allowed <= rate * (latest - NOON).total_seconds() * (1 + 1e-9) + 1


def test_a_pace_saves_up_no_more_than_a_stretch() -> None:
    pace = Pace(10.0, NOON)
    later = NOON + timedelta(days=365)
    assert pace.wait_s(STRETCH_BYTES, later) == 0
    pace.spend(STRETCH_BYTES)
    assert pace.wait_s(1, later) == pytest.approx(0.1)
