"""One pass over the bytes of tensors: digest, statistics and write, each byte read from memory once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ckptlake.checkpoints.checksums import check, spans
from ckptlake.checkpoints.dtypes import DTYPES, DType
from ckptlake.checkpoints.manifest import StoredTensor
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.small_statistics import SMALL_BYTES, describe_small
from ckptlake.checkpoints.sources import Source, changed
from ckptlake.checkpoints.statistics import Accumulator, TensorStatistics
from ckptlake.errors import DamagedCheckpointError

_FEW_BYTES = 64

Write = Callable[[memoryview, int], None]
"""Stores bytes at an offset of the tensor."""
ReadPrevious = Callable[[int, int], memoryview]
"""Returns bytes of the same tensor in the previous checkpoint."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a pass has found out about a tensor."""

    digest: str
    statistics: TensorStatistics


@dataclass(frozen=True, slots=True)
class Work:
    """One tensor to measure, and to write where `write` is given, after which nobody reads it again.

    Its bytes are compared with `checks`, unless these are None, having been taken a moment ago.
    """

    source: Source
    checks: tuple[int, ...] | None
    write: Write | None = None
    previous: ReadPrevious | None = None


def check_source(source: Source) -> tuple[int, ...]:
    """Return the checksums of a source's bytes."""
    reading, found = source.read(), []
    for start, stop in spans(source.leaf.nbytes):
        with reading.piece(start, stop) as view:
            found.append(check(view))
    return tuple(found)


def check_all(sources: Sequence[Source]) -> list[tuple[int, ...]]:
    """Return the checksums of each source's bytes."""
    return in_parallel(check_source, sources, lambda source: source.leaf.nbytes)


def measure_all(works: Sequence[Work]) -> list[Measured]:
    """Return digest and statistics of each tensor, having written those that want to be.

    Raises:
        InvalidInputError: a tensor changed since its checksums were taken.
    """
    return in_parallel(measure, works, lambda work: work.source.leaf.nbytes)


def digest_all(works: Sequence[Work]) -> list[str]:
    """Return the digest of each tensor, writing none.

    Raises:
        InvalidInputError: a tensor changed since its checksums were taken.
    """

    def one(work: Work) -> str:
        digest = hashlib.sha256()
        _pass_over(work, lambda view, _: digest.update(view))
        return digest.hexdigest()

    return in_parallel(one, works, lambda work: work.source.leaf.nbytes)


def _pass_over(work: Work, take: Callable[[memoryview, int], None]) -> None:
    """Have each piece taken, with its offset, having seen that it is still what a known checksum tells."""
    reading = work.source.read()
    for number, (start, stop) in enumerate(spans(work.source.leaf.nbytes)):
        with reading.piece(start, stop) as view:
            if work.checks is not None and check(view) != work.checks[number]:
                raise changed(work.source.leaf.path)
            take(view, start)


def measure(work: Work) -> Measured:
    """Return digest and statistics of a tensor, having written it if it wants to be.

    Raises:
        InvalidInputError: it changed since its checksums were taken.
    """
    leaf = work.source.leaf
    digest = hashlib.sha256()
    is_small = 0 < leaf.nbytes <= SMALL_BYTES
    accumulator = None if is_small else Accumulator(leaf.dtype, leaf.num_elements)
    small: list[TensorStatistics] = []

    def take(view: memoryview, start: int) -> None:
        digest.update(view)
        if work.write is not None:
            work.write(view, start)
        previous = work.previous(start, start + len(view)) if work.previous is not None else None
        if accumulator is not None:
            accumulator.update(view, previous)
        elif leaf.nbytes <= _FEW_BYTES:
            before = None if previous is None else bytes(previous)
            small.append(_statistics_of_few(leaf.dtype, leaf.num_elements, bytes(view), before))
        else:
            small.append(describe_small(leaf.dtype, leaf.num_elements, view, previous))

    _pass_over(work, take)
    if work.write is not None:
        work.source.finish()
    return Measured(digest.hexdigest(), small[0] if accumulator is None else accumulator.result())


@lru_cache(maxsize=256)
def _statistics_of_few(dtype: DType, num_elements: int, content: bytes, previous: bytes | None) -> TensorStatistics:
    """Return the statistics of a tensor that many are equal to, such as the step count of each of a model's params."""
    before = None if previous is None else memoryview(previous)
    return describe_small(dtype, num_elements, memoryview(content), before)


def copy(source: Source, write: Write) -> None:
    """Write all bytes of a source and leave digest and statistics for later."""
    reading = source.read()
    for start, stop in spans(source.leaf.nbytes):
        with reading.piece(start, stop) as view:
            write(view, start)


def measure_view(tensor: StoredTensor, view: memoryview, previous: ReadPrevious | None) -> tuple[str, TensorStatistics]:
    """Return digest and statistics of stored bytes.

    Raises:
        DamagedCheckpointError: they do not match their checksums.
    """
    check_bytes(view, tensor.checks, f"tensor {tensor.path!r} in {tensor.pack}")
    statistics = Accumulator(DTYPES[tensor.dtype], tensor.num_elements)
    digest = hashlib.sha256()
    for start, stop in spans(len(view)):
        digest.update(view[start:stop])
        statistics.update(view[start:stop], previous(start, stop) if previous is not None else None)
    return digest.hexdigest(), statistics.result()


def check_bytes(view: memoryview, checks: Sequence[int], where: str) -> None:
    """Compare the bytes of a tensor with its checksums.

    Raises:
        DamagedCheckpointError: they do not match; the message names the first damaged stretch.
    """
    for number, (start, stop) in enumerate(spans(len(view))):
        if check(view[start:stop]) != checks[number]:
            raise DamagedCheckpointError(
                f"{where} is damaged between its bytes {start} and {stop}: `ckptlake checkpoints repair` looks for "
                "another copy"
            )
