"""Segments that were cut, zeroed, flipped or forged: whole frames before the damage, never a wrong row."""

from __future__ import annotations

import json
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from scenes import NOTHING, left_by_a_kill, open_lake, points_of, run_script, segments, statuses, steps_of

from ckptlake import DamagedSegmentError
from ckptlake.runs.wal import read_segment

HEAD = struct.Struct("<4sIIQ")
POINTS = [("loss", step, step / 7) for step in range(6)]
EXACT = [("victim", metric, step, struct.pack("<d", value)) for metric, step, value in POINTS]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str, bytes, list[int]]:
    """lake.json, the segment's name and bytes, and where each of its frames ends."""
    root = tmp_path_factory.mktemp("original")
    left_by_a_kill(root, POINTS)
    (path,) = segments(root)
    data, ends, offset = path.read_bytes(), [], 0
    while offset < len(data):
        offset += HEAD.size + HEAD.unpack_from(data, offset)[1]
        ends.append(offset)
    assert len(ends) == 2 + len(POINTS)
    return (root / "lake.json").read_bytes(), path.name, data, ends


def lake_with(root: Path, original: tuple[bytes, str, bytes, list[int]], data: bytes) -> Path:
    identity, name, _, _ = original
    (root / "wal").mkdir(parents=True)
    (root / "lake.json").write_bytes(identity)
    (root / "wal" / name).write_bytes(data)
    return root


def frames_before(ends: list[int], first_bad_byte: int) -> int:
    """Return how many frames behind the header are whole, or -1 if not even that is."""
    return sum(end <= first_bad_byte for end in ends) - 1


def check_segment(path: Path, data: bytes, whole: int) -> None:
    path.write_bytes(data)
    if whole < 0:
        with pytest.raises(DamagedSegmentError):
            read_segment(path)
        return
    found = read_segment(path)
    assert [number for number, _ in found.frames] == list(range(1, whole + 1))


def check_recovery(root: Path, whole: int, *, damaged: bool) -> None:
    """Recover and look: the points of whole frames, once, and what else there was set aside."""
    lake = open_lake(root)
    expected = EXACT[: max(whole - 1, 0)]
    assert sorted(points_of(lake).elements()) == expected
    found = lake.recover()
    assert sorted(points_of(lake).elements()) == expected
    assert bool(found.quarantined) == damaged
    assert all(path.exists() and path.parent == root / "quarantine" for path in found.quarantined)
    assert not segments(root)
    if whole >= 1:
        assert statuses(lake) == {"victim": "killed"}
    with lake.run(capture=NOTHING) as run:
        run.log({"after": 1.0}, step=99)
    assert 99 in steps_of(lake)


def test_cut_at_every_byte(original: tuple[bytes, str, bytes, list[int]], tmp_path: Path) -> None:
    _, name, data, ends = original
    for size in sorted({*range(ends[2] + 1), *range(ends[2], len(data), 7), *ends, len(data) - 1}):
        check_segment(tmp_path / name, data[:size], frames_before(ends, size))


def test_zeroed_from_any_byte(original: tuple[bytes, str, bytes, list[int]], tmp_path: Path) -> None:
    _, name, data, ends = original
    for start in range(0, len(data), 9):
        first_bad = next((at for at in range(start, len(data)) if data[at]), len(data))
        for size in (len(data) - start, 4096 + len(data) - start):
            check_segment(tmp_path / name, data[:start] + bytes(size), frames_before(ends, first_bad))


def test_every_bit_of_every_head_and_many_others(original: tuple[bytes, str, bytes, list[int]], tmp_path: Path) -> None:
    _, name, data, ends = original
    starts = [0, *ends[:-1]]
    bits = {8 * (start + byte) + bit for start in starts for byte in range(HEAD.size) for bit in range(8)}
    bits |= set(random.Random(3).sample(range(8 * len(data)), 1500))
    for bit in sorted(bits):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        check_segment(tmp_path / name, bytes(flipped), frames_before(ends, bit // 8))


@pytest.mark.parametrize("end", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["cut", "zeroed", "flipped"])
def test_a_lake_recovers_what_is_whole_and_sets_the_rest_aside(
    original: tuple[bytes, str, bytes, list[int]], tmp_path: Path, kind: str, end: int
) -> None:
    _, _, data, ends = original
    at = (ends[end] if end < len(ends) else len(data) - 9) - 7
    if kind == "cut":
        damaged = data[:at]
    elif kind == "zeroed":
        at = max(0, at - 30)
        damaged = data[:at] + bytes(len(data) - at)
    else:
        damaged = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
    check_recovery(lake_with(tmp_path / "lake", original, damaged), frames_before(ends, at), damaged=True)


def test_damage_while_the_writer_lives_is_told_and_set_aside(tmp_path: Path) -> None:
    """What a disk spoils between the flush and the commit must not vanish without a word."""
    lake = open_lake(tmp_path)
    run = lake.run(capture=NOTHING, run_id="victim")
    for metric, step, value in POINTS:
        run.log({metric: value}, step=step)
        run.flush()
    (path,) = segments(tmp_path)
    with path.open("r+b") as file:
        file.seek(-400, 2)
        byte = file.read(1)
        file.seek(-400, 2)
        file.write(bytes([byte[0] ^ 1]))
    told = False
    try:
        run.finish()
        lake.commit()
    except Exception as error:
        told = "damage" in str(error) or "checksum" in str(error)
    kept = sorted(points_of(open_lake(tmp_path)).elements())
    set_aside = any((tmp_path / "quarantine").glob("*")) if (tmp_path / "quarantine").exists() else False
    assert kept == EXACT or ((told or set_aside) and kept == EXACT[: len(kept)]), (
        "acknowledged rows are gone, and nothing was reported or set aside"
    )
    assert kept == EXACT or set_aside or segments(tmp_path), "the damaged bytes were deleted"


def frame(magic: bytes, number: int, payload: bytes, *, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    checksum = zlib.crc32(payload, zlib.crc32(struct.pack("<IQ", size, number)))
    return HEAD.pack(magic, size, checksum, number) + payload


def header(lake_id: str, **changed: object) -> bytes:
    fields = {"format_version": 1, "lake_id": lake_id, "writer": "forged", "host": "h", "pid": 1, "first_frame": 1,
              "open_runs": []}  # fmt: skip
    return frame(b"CKLH", 1, json.dumps(fields | changed).encode())


def stream(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def calls(metadata: dict[str, str] | None = None, **columns: pa.Array) -> pa.RecordBatch:
    """Return a batch as `log` calls are packed, with what is to be wrong in it."""
    values = pa.array([[1.0]], pa.list_(pa.field("item", pa.float64(), nullable=False)))
    right = {"run": pa.array([0], pa.int32()), "keyset": pa.array([0], pa.int32()), "step": pa.array([0], pa.int64()),
             "ts": pa.array([0], pa.int64()), "values": values}  # fmt: skip
    told = {"table": "metrics", "streams": '[["r", "default", 1]]', "keysets": '[["m"]]'}
    made = right | columns
    schema = pa.schema([pa.field(name, column.type) for name, column in made.items()])
    return pa.RecordBatch.from_arrays(list(made.values()), schema=schema.with_metadata(told | (metadata or {})))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


FORGED: dict[str, Callable[[str], bytes]] = {
    "empty file": lambda lake: b"",
    "text": lambda lake: b"hello, this is no segment\n" * 20,
    "header of 4 GiB": lambda lake: frame(b"CKLH", 1, b"{}", length=(1 << 32) - 1),
    "header of 1 GiB": lambda lake: frame(b"CKLH", 1, b"{}", length=1 << 30),
    "header that is no JSON": lambda lake: frame(b"CKLH", 1, b"\xff\xfe{"),
    "header that is a list": lambda lake: frame(b"CKLH", 1, b"[1, 2]"),
    "header that is a number": lambda lake: frame(b"CKLH", 1, b"17"),
    "header nested without end": lambda lake: frame(b"CKLH", 1, nested(100_000).encode()),
    "header with an endless number": lambda lake: frame(b"CKLH", 1, b'{"format_version": ' + b"9" * 5000 + b"}"),
    "infinite attempt": lambda lake: header(lake, open_runs=[["r", float("inf")]]),
    "attempt beyond int32": lambda lake: header(lake, open_runs=[["r", 2**70]]),
    "run ids that are none": lambda lake: header(lake, open_runs=[["../../r\0", 1]]),
    "first frame that is text": lambda lake: header(lake, first_frame="1"),
    "first frame beyond int64": lambda lake: header(lake, first_frame=2**70),
    "another lake's": lambda lake: header("20260101-000000-aaaaaaaaaa") + frame(b"CKL1", 1, stream(calls())),
    "another writer's": lambda lake: header(lake, writer="other") + frame(b"CKL1", 1, stream(calls())),
    "frame of 4 GiB": lambda lake: header(lake) + frame(b"CKL1", 1, b"", length=(1 << 32) - 1),
    "frame number beyond int64": lambda lake: header(lake) + frame(b"CKL1", 2**64 - 1, stream(calls())),
    "garbage": lambda lake: header(lake) + frame(b"CKL1", 1, bytes(range(256)) * 4),
    "stream without a batch": lambda lake: header(lake) + frame(b"CKL1", 1, stream(calls())[:300]),
    "no metadata": lambda lake: header(lake) + frame(b"CKL1", 1, stream(calls().replace_schema_metadata(None))),
    "unknown table": lambda lake: header(lake) + frame(b"CKL1", 1, stream(calls({"table": "nothing"}))),
    "table name that is no UTF-8": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls().replace_schema_metadata({b"table": b"\xff"})))
    ),
    "streams that are no JSON": lambda lake: header(lake) + frame(b"CKL1", 1, stream(calls({"streams": "{{"}))),
    "streams nested without end": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls({"streams": nested(100_000)})))
    ),
    "streams of the wrong kind": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls({"streams": '[[1, null, "x"]]'})))
    ),
    "no streams": lambda lake: header(lake) + frame(b"CKL1", 1, stream(calls({"streams": "[]"}))),
    "keysets of the wrong size": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls({"keysets": '[["a", "b", "c"]]'})))
    ),
    "keyset index out of range": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls(keyset=pa.array([7], pa.int32()))))
    ),
    "negative keyset index": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls(keyset=pa.array([-1], pa.int32()))))
    ),
    "run index out of range": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls(run=pa.array([9], pa.int32()))))
    ),
    "nulls where none can be": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls(step=pa.array([None], pa.int64()))))
    ),
    "columns of other types": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls(step=pa.array(["x"]), values=pa.array(["y"]))))
    ),
    "rows of another schema": lambda lake: (
        header(lake) + frame(b"CKL1", 1, stream(calls().replace_schema_metadata({"table": "runs"})))
    ),
    "a gigabyte in a few bytes": lambda lake: (
        header(lake)
        + frame(
            b"CKL1",
            1,
            stream(
                calls(values=pa.array([[0.0] * (1 << 22)], pa.list_(pa.float64()))),
                pa.ipc.IpcWriteOptions(compression="zstd"),
            ),
        )
    ),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_segment_harms_nobody(tmp_path: Path, kind: str) -> None:
    lake = open_lake(tmp_path)
    with lake.run(run_id="good", capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=1)
    data = FORGED[kind](lake.id)
    place = tmp_path / "wal" / "forged.00000000.wal"
    place.write_bytes(data)
    began = time.monotonic()
    assert steps_of(open_lake(tmp_path)) == [1], "a forged row is shown"
    found = open_lake(tmp_path).recover()
    reader = open_lake(tmp_path)
    assert steps_of(reader) == [1], "a forged row was committed"
    if kind not in {"infinite attempt", "attempt beyond int32", "run ids that are none"}:
        assert statuses(reader) == {"good": "finished"}
    assert time.monotonic() - began < 20
    if place.exists():
        assert found.quarantined == ()
        assert kind in {"first frame beyond int64", "frame number beyond int64"}
    elif data[:4] != b"CKLH" or len(data) > 400:
        assert found.quarantined, "neither committed nor set aside"
    with reader.run(capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=2)
    assert steps_of(reader) == [1, 2]


def test_a_forged_segment_does_not_stop_the_commits_of_a_live_writer(tmp_path: Path) -> None:
    program = """
        import sys, time, pathlib, ckptlake
        root = pathlib.Path(sys.argv[1])
        lake = ckptlake.open(root, settings=ckptlake.Settings(flush_interval_s=0.02, commit_interval_s=0.05))
        run = lake.run(capture=ckptlake.Capture.nothing())
        run.log({"loss": 1.0}, step=0)
        run.flush()
        (root / "wal" / "forged.00000000.wal").write_bytes(pathlib.Path(sys.argv[2]).read_bytes())
        def committed():
            return sum(file.num_records for file in lake.table("metrics").files())
        for step in range(1, 4):
            before = committed()
            time.sleep(0.2)
            run.log({"loss": 1.0}, step=step)
            deadline = time.monotonic() + 10
            while committed() == before and time.monotonic() < deadline:
                time.sleep(0.02)
            assert committed() > before, "no commits any more"
        run.finish()
    """
    lake = open_lake(tmp_path / "lake")
    forged = tmp_path / "forged"
    forged.write_bytes(header(lake.id) + frame(b"CKL1", 1, stream(calls().replace_schema_metadata(None))))
    ended = run_script(program, str(tmp_path / "lake"), str(forged))
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_reading_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """Length fields and compressed buffers are claims; memory follows the file's size."""
    program = """
        import resource, sys, pathlib
        import ckptlake, duckdb, pyarrow, deltalake
        lake = ckptlake.open(sys.argv[1])
        lake.sql("SELECT count(*) FROM metrics_raw").fetchall()
        (pathlib.Path(sys.argv[1]) / "wal").mkdir(exist_ok=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number, path in enumerate(sys.argv[2:]):
            place = pathlib.Path(sys.argv[1]) / "wal" / f"forged{number}.00000000.wal"
            place.write_bytes(pathlib.Path(path).read_bytes())
        lake.sql("SELECT count(*) FROM metrics_raw").fetchall()
        lake.recover()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        assert grown < 120, f"{grown} MB more for files of a few KB"
    """
    lake = open_lake(tmp_path / "lake")
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    bomb = calls(values=pa.array([[0.0] * (1 << 25)], pa.list_(pa.float64())))
    hostile = {
        "bomb": header(lake.id) + frame(b"CKL1", 1, stream(bomb, options)),
        "long": header(lake.id) + frame(b"CKL1", 1, b"", length=1 << 30),
        "head": frame(b"CKLH", 1, b"{}", length=1 << 30),
    }
    for name, data in hostile.items():
        assert len(data) < 200_000
        (tmp_path / name).write_bytes(data)
    ended = run_script(program, str(tmp_path / "lake"), *(str(tmp_path / name) for name in hostile))
    assert ended.returncode == 0, ended.stderr[-2000:]
