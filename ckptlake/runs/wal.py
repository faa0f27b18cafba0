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
from ckptlake._internal.ids import check_run_id
from ckptlake._internal.locks import release, try_lock
from ckptlake.errors import DamagedSegmentError, InvalidInputError, LakeFormatError
from ckptlake.runs.frames import check_packed

FORMAT_VERSION = 1
MAX_PAYLOAD_BYTES = 1 << 30
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
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
        """Return the header that a payload tells.

        Raises:
            NewerSegmentError: a newer ckptlake wrote it.
            ValueError: it tells none (or another error of what is expected there).
        """
        fields: dict[str, Any] = json.loads(payload)
        if fields["format_version"] > FORMAT_VERSION:
            raise NewerSegmentError(f"segment format {fields['format_version']} is newer than this ckptlake reads")
        lake_id, writer, host = (_text(fields[name]) for name in ("lake_id", "writer", "host"))
        open_runs = tuple(
            (check_run_id(run), _whole(attempt, 31), _text(who)) for run, attempt, who in fields["open_runs"]
        )
        return cls(lake_id, writer, host, _whole(fields["pid"], 62), _whole(fields["first_frame"], 62), open_runs)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} where a text should be")
    return value


def _whole(value: object, bits: int) -> int:
    if type(value) is not int or not 0 <= value < 2**bits:
        raise TypeError(f"{value!r:.60} where a number of at most {bits} bits should be")
    return value


class NewerSegmentError(ValueError):
    """A segment of a format that this ckptlake does not know."""


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
        self._first_unsynced = self.next_frame

    @property
    def num_frames(self) -> int:
        return self.next_frame - self._first_frame

    def append(self, batch: pa.RecordBatch) -> None:
        """Write one frame; on failure the file is cut back to the frame before."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        payload = memoryview(sink.getvalue())
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidInputError(f"a frame of {len(payload)} bytes is too big; at most {MAX_PAYLOAD_BYTES} are kept")
        try:
            for piece in encode(_FRAME_MAGIC, self.next_frame, payload):
                write_all(self._descriptor, piece)
        except BaseException:
            self._cut_back(self._written)
            raise
        self._written += _HEAD.size + len(payload)
        self.next_frame += 1

    def sync(self) -> None:
        """Force all frames to the disk; on failure those since the last sync must be written anew."""
        try:
            sync_data(self._descriptor)
        except BaseException:
            self.broken = True
            self._cut_back(self._synced)
            raise
        self._synced = self._written
        self._first_unsynced = self.next_frame

    def take_back(self) -> bool:
        """Cut off the frames since the last sync; False if they may still be there, the segment is `broken` then."""
        self._cut_back(self._synced)
        if not self.broken:
            try:
                sync_data(self._descriptor)
            except OSError:
                self.broken = True
        if not self.broken:
            self._written, self.next_frame = self._synced, self._first_unsynced
        return not self.broken

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
    start: int = 0

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
        self.damage = f"{damage} at byte {self.start + self.offset}"
        return None


def read_header(path: Path, lake_id: str | None = None) -> tuple[SegmentName, SegmentHeader, int]:
    """Return a segment's name, header and the offset of its first frame.

    Args:
        path: the segment.
        lake_id: the lake it must belong to, if that matters.

    Raises:
        DamagedSegmentError: the header is missing, damaged, or not of this lake and writer.
        LakeFormatError: a newer ckptlake wrote it.
        FileNotFoundError: the segment was committed and dropped meanwhile.
    """
    name = SegmentName.parse(path.name)
    if name is None:
        raise DamagedSegmentError(f"{path} is not named as a write-ahead segment")
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        length = _HEAD.unpack(head)[1] if len(head) == _HEAD.size else 0
        rest = min(length, os.fstat(file.fileno()).st_size)
        reader = _Reader(memoryview(head + file.read(rest)))
    frame = reader.next(_HEADER_MAGIC)
    if frame is None:
        raise DamagedSegmentError(f"the header of {path} is damaged: {reader.damage or 'the file is empty'}")
    try:
        header = SegmentHeader.parse(bytes(frame[1]))
    except NewerSegmentError as error:
        raise LakeFormatError(
            f"{path} stays as it is: {error}; update it with `pip install --upgrade ckptlake`"
        ) from error
    except _UNREADABLE as error:
        raise DamagedSegmentError(f"the header of {path} cannot be read: {error!s:.200}") from error
    if header.writer != name.writer or lake_id not in (None, header.lake_id):
        raise DamagedSegmentError(
            f"{path} is of writer {header.writer:.80} and lake {header.lake_id:.80}, not of this one"
        )
    return name, header, reader.offset


def read_frames(path: Path, offset: int) -> tuple[list[tuple[int, pa.RecordBatch]], int, int, str | None]:
    """Return the sound frames from `offset` on, the offset behind them, the file's size, and any damage."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    reader = _Reader(memoryview(data), start=offset)
    frames: list[tuple[int, pa.RecordBatch]] = []
    sound = 0
    while (frame := reader.next(_FRAME_MAGIC)) is not None:
        number, payload = frame
        try:
            with pa.ipc.open_stream(pa.py_buffer(bytes(payload))) as stream:  # a copy, for Arrow wants it aligned
                batch = stream.read_next_batch()
            if number >= 2**62 or (frames and number <= frames[-1][0]):
                raise ValueError(f"number {number} does not rise")
            check_packed(batch, len(payload))
        except (*_UNREADABLE, pa.ArrowException, OSError, StopIteration) as error:
            reader.damage = f"frame {number} holds no readable batch ({error!s:.200})"
            break
        frames.append((number, batch))
        sound = reader.offset
    return frames, offset + sound, offset + len(data), reader.damage


def read_segment(path: Path, lake_id: str | None = None) -> SegmentContents:
    """Read a whole segment; damage ends it early and is told, it never makes a wrong row.

    Raises:
        DamagedSegmentError: not even the header can be read, or it is not of this lake.
        LakeFormatError: a newer ckptlake wrote it.
        FileNotFoundError: the segment was committed and dropped meanwhile.
    """
    name, header, offset = read_header(path, lake_id)
    frames, sound, size, damage = read_frames(path, offset)
    return SegmentContents(name, header, tuple(frames), sound, size, damage)
