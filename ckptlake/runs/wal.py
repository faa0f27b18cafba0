"""Write-ahead segments: append-only files of checksummed frames, one live file a writer.

A segment is a header frame and then numbered frames. Each frame is a fixed head (magic, payload length,
CRC-32, number) and a payload: JSON in the header, an Arrow stream of one record batch in the others. The
checksum covers number, length and payload, because an Arrow stream alone does not notice a zeroed tail or
a flipped bit. Frame numbers rise without end over all segments of a writer; they are what commits record.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ckptlake._internal.files import sync_data, sync_directory, write_all
from ckptlake._internal.locks import release, try_lock
from ckptlake.errors import DamagedSegmentError

FORMAT_VERSION = 1
MAX_PAYLOAD_BYTES = 1 << 30
_HEAD = struct.Struct("<4sIIQ")
_COVERED = struct.Struct("<IQ")
_HEADER_MAGIC, _FRAME_MAGIC = b"CKLH", b"CKL1"
_NAME = re.compile(r"(?P<writer>[0-9A-Za-z-]+)\.(?P<sequence>\d{8})\.wal")


OpenRuns = tuple[tuple[str, int, str], ...]
"""Open runs as (run_id, attempt, participant): the same run may be open several times."""


def encode(magic: bytes, number: int, payload: bytes | memoryview) -> list[bytes | memoryview]:
    """Return a frame as the pieces to write one after the other."""
    covered = zlib.crc32(payload, zlib.crc32(_COVERED.pack(len(payload), number)))
    return [_HEAD.pack(magic, len(payload), covered, number), payload]


@dataclass(frozen=True, slots=True)
class SegmentName:
    """The writer and the place in its sequence that a segment's file name tells."""

    writer: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.writer}.{self.sequence:08}.wal"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        match = _NAME.fullmatch(name)
        return cls(match["writer"], int(match["sequence"])) if match else None


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of its writer, with the runs that were open when it began."""

    lake_id: str
    writer: str
    host: str
    pid: int
    first_frame: int
    open_runs: OpenRuns = ()

    def payload(self) -> bytes:
        fields = {
            "format_version": FORMAT_VERSION,
            "lake_id": self.lake_id,
            "writer": self.writer,
            "host": self.host,
            "pid": self.pid,
            "first_frame": self.first_frame,
            "open_runs": self.open_runs,
        }
        return json.dumps(fields).encode()

    @classmethod
    def parse(cls, payload: bytes) -> SegmentHeader:
        fields: dict[str, Any] = json.loads(payload)
        if fields["format_version"] > FORMAT_VERSION:
            raise ValueError(f"segment format {fields['format_version']} is newer than this ckptlake reads")
        open_runs = tuple((str(run), int(attempt), str(who)) for run, attempt, who in fields["open_runs"])
        return cls(fields["lake_id"], fields["writer"], fields["host"], fields["pid"], fields["first_frame"], open_runs)


class SegmentWriter:
    """The live segment of one writer; it holds the file's lock until `release`.

    Frames count as written once `sync` returns. After a failed write or sync the file ends at the last
    good frame, or the segment is `broken` and a new one must be begun.
    """

    def __init__(self, directory: Path, name: SegmentName, header: SegmentHeader) -> None:
        self.path = directory / str(name)
        self.name = name
        self.next_frame = self._first_frame = header.first_frame
        self.broken = False
        directory.mkdir(exist_ok=True)
        partial = directory / f".{name}.partial"
        self._descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try_lock(self._descriptor)
            for piece in encode(_HEADER_MAGIC, header.first_frame, header.payload()):
                write_all(self._descriptor, piece)
            sync_data(self._descriptor)
            partial.rename(self.path)
            sync_directory(directory)
        except BaseException:
            release(self._descriptor)
            partial.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            raise
        self._written = self._synced = os.lseek(self._descriptor, 0, os.SEEK_CUR)

    @property
    def num_frames(self) -> int:
        return self.next_frame - self._first_frame

    def append(self, batch: pa.RecordBatch) -> None:
        """Write one frame; on failure the file is cut back to the frame before."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        payload = memoryview(sink.getvalue())
        try:
            for piece in encode(_FRAME_MAGIC, self.next_frame, payload):
                write_all(self._descriptor, piece)
        except OSError:
            self._cut_back(self._written)
            raise
        self._written += _HEAD.size + len(payload)
        self.next_frame += 1

    def sync(self) -> None:
        """Force all frames to the disk; on failure those since the last sync must be written anew."""
        try:
            sync_data(self._descriptor)
        except OSError:
            self.broken = True
            self._cut_back(self._synced)
            raise
        self._synced = self._written

    def _cut_back(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
        except OSError:
            self.broken = True

    def release(self) -> None:
        """Close the file and give up its lock; the segment stays for whoever commits it."""
        release(self._descriptor)


@dataclass(frozen=True, slots=True)
class SegmentContents:
    """What could be read of a segment: whole frames in order, up to the first that is not sound."""

    name: SegmentName
    header: SegmentHeader
    frames: tuple[tuple[int, pa.RecordBatch], ...]
    sound_bytes: int
    size_bytes: int
    damage: str | None = None

    @property
    def last_frame(self) -> int:
        return self.frames[-1][0] if self.frames else self.header.first_frame - 1


@dataclass(slots=True)
class _Reader:
    data: memoryview
    offset: int = 0
    damage: str | None = None

    def next(self, magic: bytes) -> tuple[int, memoryview] | None:
        """Return the next frame's number and payload, or None at the end or at damage."""
        rest = len(self.data) - self.offset
        if rest == 0:
            return None
        if rest < _HEAD.size:
            return self._stopped(f"{rest} bytes of a frame's head")
        found, length, checksum, number = _HEAD.unpack_from(self.data, self.offset)
        if found != magic or length > MAX_PAYLOAD_BYTES:
            return self._stopped("no frame where one should begin")
        start = self.offset + _HEAD.size
        payload = self.data[start : start + length]
        if len(payload) < length:
            return self._stopped(f"{len(payload)} of a frame's {length} bytes")
        if zlib.crc32(payload, zlib.crc32(_COVERED.pack(length, number))) != checksum:
            return self._stopped(f"frame {number} fails its checksum")
        self.offset = start + length
        return number, payload

    def _stopped(self, damage: str) -> tuple[int, memoryview] | None:
        self.damage = f"{damage} at byte {self.offset}"
        return None


def read_header(path: Path) -> tuple[SegmentName, SegmentHeader, int]:
    """Return a segment's name, header and the offset of its first frame.

    Raises:
        DamagedSegmentError: the header is missing or damaged.
        FileNotFoundError: the segment was committed and dropped meanwhile.
    """
    name = SegmentName.parse(path.name)
    if name is None:
        raise DamagedSegmentError(f"{path} is not named as a write-ahead segment")
    with path.open("rb") as file:
        reader = _Reader(memoryview(file.read(1 << 16)))
        head = reader.next(_HEADER_MAGIC)
        if head is None and reader.damage and "bytes" in reader.damage:
            reader = _Reader(memoryview(reader.data.tobytes() + file.read(MAX_PAYLOAD_BYTES)))
            head = reader.next(_HEADER_MAGIC)
    if head is None:
        raise DamagedSegmentError(f"the header of {path} is damaged: {reader.damage or 'the file is empty'}")
    try:
        return name, SegmentHeader.parse(bytes(head[1])), reader.offset
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedSegmentError(f"the header of {path} cannot be read: {error}") from error


def read_frames(path: Path, offset: int) -> tuple[list[tuple[int, pa.RecordBatch]], int, int, str | None]:
    """Return the sound frames from `offset` on, the offset behind them, the file's size, and any damage."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    reader = _Reader(memoryview(data))
    frames: list[tuple[int, pa.RecordBatch]] = []
    sound = 0
    while (frame := reader.next(_FRAME_MAGIC)) is not None:
        number, payload = frame
        try:
            with pa.ipc.open_stream(pa.py_buffer(payload)) as stream:
                batch = stream.read_next_batch()
            if frames and number <= frames[-1][0]:
                raise pa.ArrowInvalid(f"number {number} does not rise")
            batch.validate()
        except (pa.ArrowException, OSError, StopIteration) as error:
            reader.damage = f"frame {number} holds no readable batch ({error})"
            break
        frames.append((number, batch))
        sound = reader.offset
    return frames, offset + sound, offset + len(data), reader.damage


def read_segment(path: Path) -> SegmentContents:
    """Read a whole segment; damage ends it early and is told, it never makes a wrong row.

    Raises:
        DamagedSegmentError: not even the header can be read.
        FileNotFoundError: the segment was committed and dropped meanwhile.
    """
    name, header, offset = read_header(path)
    frames, sound, size, damage = read_frames(path, offset)
    return SegmentContents(name, header, tuple(frames), sound, size, damage)
