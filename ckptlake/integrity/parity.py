"""Parity for checkpoint files: a file beside each that can give back up to a twentieth of its bytes.

`protect` writes it, `examine` says what is damaged and whether it can be given back, `rebuild` gives it back. The
parity is P+Q as in RAID-6 over columns of 40 blocks of 4 KB that lie far apart in the file (`parity_file` has the
layout, `galois` the arithmetic): two blocks a column can be lost, wherever they lie, together with any number of
others in other columns. It takes 5.2 % of the size of a large file and two blocks and a little of a tiny one.
Files are read and written in one pass in runs of columns, within 64 MB of memory whatever their size.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckptlake._internal.files import storage_errors, sync_directory
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, NotFoundError
from ckptlake.integrity.galois import Mask, Words, encode, recover
from ckptlake.integrity.parity_file import (
    BLOCK_BYTES,
    DataDigest,
    Header,
    Layout,
    Numbers,
    ParityFile,
    Sums,
    checksums,
    pack_records,
    read_blocks,
    slot_checksums,
)

Ranges = tuple[tuple[int, int], ...]

_SOLVED_TOGETHER = 16
"""Columns summed at once: their 42 x 16 blocks stay in a processor's cache."""
_RANGES_NAMED = 8


@dataclass(frozen=True, slots=True)
class Protection:
    """A parity file that has been written.

    Attributes:
        path: the parity file.
        data_bytes: size of the file it protects.
        parity_bytes: its own size.
    """

    path: Path
    data_bytes: int
    parity_bytes: int


@dataclass(frozen=True, slots=True)
class Damage:
    """What differs from the day the parity was written.

    Attributes:
        data_blocks: numbers of the damaged or missing 4 KB blocks of the data file, rising.
        parity_blocks: those of the parity file; of column c of n, P has the number c and Q the number n + c.
        size_difference: bytes of the data file now, less those it had: negative if it was cut short. A tail that
            was added damages no block and is left out when the file is rebuilt.
        index_faults: damaged copies of the parity file's header and checksum records, all of which it has twice;
            what is left of it can be trusted, and `protect` makes it whole again.
        unrepairable_bytes: ranges (start, stop), stop not included, of the data file that cannot be given back.
    """

    data_blocks: tuple[int, ...]
    parity_blocks: tuple[int, ...]
    size_difference: int
    index_faults: int
    unrepairable_bytes: Ranges

    @property
    def is_clean(self) -> bool:
        """Whether both files are exactly as they were written."""
        found = (self.data_blocks, self.parity_blocks, self.size_difference, self.index_faults)
        return self.is_repairable and not any(found)

    @property
    def is_repairable(self) -> bool:
        """Whether `rebuild` can give back the whole data file."""
        return not self.unrepairable_bytes


def parity_path(path: Path) -> Path:
    """Return where the parity file of `path` stands.

    >>> parity_path(Path("packs/a.safetensors")).name
    'a.safetensors.pq'
    """
    return path.with_name(f"{path.name}.pq")


def protect(path: Path, parity: Path | None = None, progress: Callable[[int], None] | None = None) -> Protection:
    """Write the parity file of `path`, whole or not at all; one that is there already is replaced.

    Args:
        path: the file to protect; nobody may write to it meanwhile.
        parity: where to write, by default `parity_path` of `path`.
        progress: called now and then with the number of bytes protected so far.

    Raises:
        NotFoundError: there is no file at `path`, or no folder to write in.
        InvalidInputError: one of the paths is no regular file, or both are the same.
        DamagedCheckpointError: `path` cannot be read to its end.
        StorageError: the disk refused.

    >>> path = Path("weights.bin")
    >>> path.write_bytes(bytes(range(256)) * 65536)
    16777216
    >>> protection = protect(path)
    >>> protection.path.name, f"{protection.parity_bytes / protection.data_bytes:.1%}"
    ('weights.bin.pq', '5.2%')
    """
    parity = parity or parity_path(path)
    _check_apart(path, parity)
    failing = storage_errors("write the parity of the file", path)
    with failing, _opened(path) as source, _written(parity, source) as target:
        layout = Layout(os.fstat(source).st_size)
        digest, slots = DataDigest(layout), layout.new_slots()
        for first, count in layout.runs():
            run = slots[:, :count]
            if not _read_data(source, layout, first, run[1:-1]).all():
                raise DamagedCheckpointError(
                    f"{path} cannot be read to its end at byte {layout.data_bytes}; "
                    "protect it once it is whole and nobody writes to it"
                )
            digest.update(first, run[1:-1])
            for start in range(0, count, _SOLVED_TOGETHER):
                encode(run[:, start : start + _SOLVED_TOGETHER])
            _write_parity(target, layout, first, run)
            if progress is not None:
                progress(layout.data_bytes * (first + count) // layout.columns)
        header = Header(layout.data_bytes, digest.digest()).pack()
        for at in layout.headers_at:
            _write_at(target, header, at)
    return Protection(parity, layout.data_bytes, layout.parity_bytes)


def examine(path: Path, parity: Path) -> Damage:
    """Return what is damaged in a file and in its parity file; nothing is written.

    The damaged blocks are solved for as in `rebuild`, so what is called repairable has been seen to have its old
    checksums and digest.

    Raises:
        NotFoundError: one of the files does not exist.
        InvalidInputError: one of the paths is no regular file.
        DamagedCheckpointError: the parity file is none, or both copies of a part of its index are damaged.
        LakeFormatError: a newer ckptlake wrote the parity file.
        StorageError: the disk refused; a part that it cannot read counts as damaged instead.
    """
    with storage_errors("examine the file", path), _opened(path) as source, _opened(parity) as descriptor:
        return _inspect(source, ParityFile(descriptor, parity), lambda *_: None)


def rebuild(path: Path, parity: Path, out: Path) -> Damage:
    """Write to `out` the file that `path` was when it was protected, whole or not at all.

    Args:
        path: the damaged file.
        parity: its parity file.
        out: where to write; may be `path`, which is then replaced.

    Returns:
        What was damaged. Damage of the parity file itself stays: `protect` the new file.

    Raises:
        DamagedCheckpointError: some bytes are lost, and the message says which; or as for `examine`.
        NotFoundError: one of the files does not exist, or the folder to write in.
        InvalidInputError: one of the paths is no regular file, or `out` is the parity file.
        LakeFormatError: a newer ckptlake wrote the parity file.
        StorageError: the disk refused.

    >>> path, sound = Path("weights.bin"), bytes(range(256)) * 4096
    >>> parity = Path("weights.bin.pq")
    >>> path.write_bytes(sound)
    1048576
    >>> protection = protect(path, parity)
    >>> path.write_bytes(sound[:1_036_000])
    1036000
    >>> damage = rebuild(path, parity, out=path)
    >>> damage.data_blocks, damage.size_difference, path.read_bytes() == sound
    ((252, 253, 254, 255), -12576, True)
    """
    _check_apart(out, parity)
    with storage_errors("rebuild the file", path), _opened(path) as source, _opened(parity) as descriptor:
        file = ParityFile(descriptor, parity)
        with _written(out, source) as target:

            def write(first: int, data: Words) -> None:
                for blocks, (start, stop) in zip(data, file.layout.spans(first, data.shape[1]), strict=True):
                    _write_at(target, blocks.data.cast("B")[: stop - start], start)

            damage = _inspect(source, file, write)
            if not damage.is_repairable:
                raise DamagedCheckpointError(
                    f"{path} cannot be rebuilt from {parity}: {_named(damage.unrepairable_bytes)}; "
                    "restore it from another copy"
                )
    return damage


def _inspect(source: int, file: ParityFile, write: Callable[[int, Words], None]) -> Damage:
    """Return the damage; `write` gets every run of data, mended, for as long as none is lost."""
    layout = file.layout
    digest, slots = DataDigest(layout), layout.new_slots()
    data: list[Numbers] = []
    parity: list[Numbers] = []
    lost: list[Numbers] = []
    for first, count in layout.runs():
        run, sums = slots[:, :count], file.read_sums(first, count)
        numbers = layout.block_numbers(first, count)
        bad = ~_read_run(source, file, first, run) | (slot_checksums(run) != sums)
        bad[1:-1] &= numbers < layout.blocks
        data.append(numbers[bad[1:-1]])
        parity.append(layout.parity_numbers(first, count)[bad[[0, -1]]])
        if (gone := _mend(run, bad, sums)).any():
            lost.append(numbers[gone])
        if not lost:
            digest.update(first, run[1:-1])
            write(first, run[1:-1])
    unrepairable = _ranges(_rising(lost), layout.data_bytes)
    if not unrepairable and digest.digest() != file.header.digest:
        unrepairable = ((0, layout.data_bytes),)  # a checksum agrees by chance with a damaged block: no telling which
    difference = os.fstat(source).st_size - layout.data_bytes
    return Damage(tuple(_rising(data).tolist()), tuple(_rising(parity).tolist()), difference, file.faults, unrepairable)


def _read_data(descriptor: int, layout: Layout, first: int, data: Words) -> Mask:
    """Read the columns from `first` on into `data`; return which blocks are whole, shape (rows, columns)."""
    spans = layout.spans(first, data.shape[1])
    return np.stack([read_blocks(descriptor, row, *span) for row, span in zip(data, spans, strict=True)])


def _read_run(descriptor: int, file: ParityFile, first: int, run: Words) -> Mask:
    data = _read_data(descriptor, file.layout, first, run[1:-1])
    p_and_q = file.read_parity(first, run)
    return np.concatenate([p_and_q[:1], data, p_and_q[1:]])


def _mend(run: Words, bad: Mask, sums: Sums) -> Mask:
    """Solve `run` for its bad data blocks; return which of them are lost, shape (rows, columns)."""
    solvable = bad.sum(axis=0) <= 2
    columns = np.flatnonzero(bad[1:-1].any(axis=0) & solvable)
    for start in range(0, len(columns), _SOLVED_TOGETHER):
        chosen = columns[start : start + _SOLVED_TOGETHER]
        slots = run[:, chosen]
        recover(slots, bad[:, chosen])
        run[:, chosen] = slots
    rows, places = np.nonzero(bad[1:-1] & solvable)
    wrong = checksums(run[1:-1][rows, places]) != sums[1:-1][rows, places]
    solvable[places[wrong]] = False
    lost: Mask = bad[1:-1] & ~solvable
    return lost


def _write_parity(descriptor: int, layout: Layout, first: int, run: Words) -> None:
    for at, blocks in ((layout.p_at, run[0]), (layout.q_at, run[-1])):
        _write_at(descriptor, blocks.data.cast("B"), at + first * BLOCK_BYTES)
    records = pack_records(layout, first, slot_checksums(run))
    for at in layout.records_at:
        _write_at(descriptor, records, at + first * layout.record.itemsize)


def _write_at(descriptor: int, payload: bytes | memoryview, offset: int) -> None:
    view = memoryview(payload)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _rising(parts: list[Numbers]) -> Numbers:
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))


def _ranges(blocks: Numbers, end: int) -> Ranges:
    """Return the bytes of these rising blocks of a file of `end` bytes as few ranges (start, stop)."""
    cuts = np.flatnonzero(np.diff(blocks) > 1) + 1
    return tuple(
        (int(part[0]) * BLOCK_BYTES, min(end, (int(part[-1]) + 1) * BLOCK_BYTES))
        for part in np.split(blocks, cuts)
        if len(part)
    )


def _named(ranges: Ranges) -> str:
    lost = sum(stop - start for start, stop in ranges)
    places = [f"from {start} up to {stop}" for start, stop in ranges[:_RANGES_NAMED]]
    if len(ranges) > _RANGES_NAMED:
        places.append(f"and in {len(ranges) - _RANGES_NAMED} more places")
    return f"{lost} bytes are lost, {', '.join(places)}"


def _check_apart(path: Path, parity: Path) -> None:
    if path.absolute() == parity.absolute() or (path.exists() and parity.exists() and path.samefile(parity)):
        raise InvalidInputError(f"{path} cannot be a file and its parity file at once; give two paths")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Give a descriptor to read a regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no file at {path}; check the path") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidInputError(f"{path} is no regular file; give the path of one")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _written(path: Path, like: int) -> Iterator[int]:
    """Give a descriptor to write a file that takes its name, and replaces what had it, once it is on the disk.

    No one may read it who may not read the file `like`.
    """
    if not path.parent.is_dir():
        raise NotFoundError(f"there is no folder {path.parent} to write {path.name} in; create it first")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    mode = stat.S_IMODE(os.fstat(like).st_mode) & 0o666
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        yield descriptor
        os.fsync(descriptor)
        partial.rename(path)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)
