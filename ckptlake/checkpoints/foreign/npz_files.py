"""Archives of numpy, without pickle: arrays are mapped where they are stored, inflated onto the disk where not."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ckptlake.checkpoints.arrays import over
from ckptlake.checkpoints.foreign.origin import Foreign, count_of, mapped, nested, parse_json
from ckptlake.checkpoints.foreign.scratch import Scratch
from ckptlake.errors import CkptlakeError, DamagedCheckpointError, InvalidInputError, UnsafeFileError

_INFLATED, _SPARE_BYTES = 64, 64 << 20
_MOST_ENTRIES = 1_000_000
_LOCAL = struct.Struct("<4s22xHH")
_PIECE = 1 << 20
_ENCRYPTED = 1
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, LookupError, TypeError, OverflowError, EOFError,
    NotImplementedError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError,
)  # fmt: skip
_HEADERS: dict[tuple[int, int], Callable[[BinaryIO], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path, scratch: Scratch) -> Foreign:
    """Return what an .npz holds.

    Args:
        path: the file.
        scratch: where compressed arrays are inflated to.

    Raises:
        UnsafeFileError: an array is pickled, or it inflates to more than its size can explain.
        DamagedCheckpointError: the archive is cut, or an entry is no array of the bytes it claims.
        InvalidInputError: it cannot be opened.
    """
    data = mapped(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            comment = archive.comment
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    _check_sizes(path, infos, len(data))
    told: dict[str, Any] = parse_json(comment, str(path)) if comment.startswith(b'{"ckptlake.') else {}

    def read() -> dict[str, Any]:
        with zipfile.ZipFile(path) as archive:
            return nested({_name(info): _array(path, archive, info, data, scratch) for info in infos}, told)

    step, epoch = count_of(told.get("ckptlake.step")), count_of(told.get("ckptlake.epoch"))
    return Foreign("npz", len(infos), read, step=step, epoch=epoch)


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo], size: int) -> None:
    names = {_name(info) for info in infos}
    if len(names) != len(infos) or not all(info.filename.endswith(".npy") for info in infos):
        raise InvalidInputError(
            f"{str(path)!r} is a zip archive, but its entries are no arrays with names of their own"
        )
    if any(not 0 <= info.header_offset < size for info in infos):
        raise _damaged(path, ValueError("an entry lies outside of the file"))
    stored = sum(info.compress_size for info in infos)
    inflated = sum(info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED)
    if stored > size or len(infos) > _MOST_ENTRIES:
        raise UnsafeFileError(f"{str(path)!r} claims {stored} stored bytes in {len(infos)} entries, it has {size}")
    if inflated > _INFLATED * size + _SPARE_BYTES:
        raise UnsafeFileError(f"{str(path)!r} claims to inflate from {size} to {inflated} bytes, which is a bomb")


def _array(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, data: memoryview, scratch: Scratch
) -> npt.NDArray[Any]:
    try:
        with archive.open(info) as member:
            version = np.lib.format.read_magic(cast(Any, member))
            if version not in _HEADERS:
                raise ValueError(f"numpy's format version {version}")
            shape, fortran, dtype = _HEADERS[version](cast(BinaryIO, member))
            if dtype.hasobject:
                raise UnsafeFileError(
                    f"{str(path)!r}: array {_name(info)!r:.200} is a pickle of Python objects, which would be run; "
                    "save it with a dtype of numbers"
                )
            nbytes, begin = math.prod(shape) * dtype.itemsize, member.tell()
            if any(length < 0 for length in shape) or nbytes != info.file_size - begin:
                raise ValueError(f"{info.file_size - begin} bytes for the shape {shape!s:.80} of {dtype!s:.80}")
            if info.compress_type == zipfile.ZIP_STORED:
                content = _stored(info, data)[begin:]
            else:
                content = _inflated(cast(BinaryIO, member), nbytes, scratch)
    except CkptlakeError:
        raise
    except _UNREADABLE as error:
        raise _damaged(path, error, _name(info)) from error
    array = over(content, dtype, tuple(reversed(shape)) if fortran else shape)
    return array.T if fortran else array


def _stored(info: zipfile.ZipInfo, data: memoryview) -> memoryview:
    signature, name_bytes, extra_bytes = _LOCAL.unpack_from(data, info.header_offset)
    start = info.header_offset + _LOCAL.size + name_bytes + extra_bytes
    found = data[start : start + info.file_size]
    if signature != b"PK\x03\x04" or len(found) != info.file_size or info.flag_bits & _ENCRYPTED:
        raise ValueError("it is not where the directory says")
    if zlib.crc32(found) != info.CRC:
        raise ValueError("its checksum does not match")
    return found


def _inflated(member: BinaryIO, nbytes: int, scratch: Scratch) -> memoryview:
    taken = scratch.take(nbytes)
    place = 0
    while piece := member.read(_PIECE):
        if place + len(piece) > nbytes:
            raise ValueError("it inflates to more than it claims")
        taken[place : place + len(piece)] = piece
        place += len(piece)
    if place != nbytes:
        raise ValueError(f"it inflates to {place} of the {nbytes} bytes it claims")
    return taken


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _damaged(path: Path, error: BaseException, name: str | None = None) -> DamagedCheckpointError:
    where = f"{str(path)!r}" if name is None else f"{str(path)!r}: array {name!r:.200}"
    return DamagedCheckpointError(f"{where} cannot be read as numpy's: {error!s:.200}; take an intact copy of it")
