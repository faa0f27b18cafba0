"""One pass over the bytes of tensors: digest, statistics and write, each byte read from memory once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ckptlake.checkpoints.checksums import check, spans
from ckptlake.checkpoints.dtypes import DTYPES
from ckptlake.checkpoints.manifest import StoredTensor
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.sources import Source, changed
from ckptlake.checkpoints.statistics import Accumulator, TensorStatistics
from ckptlake.errors import DamagedCheckpointError

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
    """One tensor to measure, and to write where `write` is given, after which nobody reads it again."""

    source: Source
    checks: tuple[int, ...]
    write: Write | None = None
    previous: ReadPrevious | None = None


def check_all(sources: Sequence[Source]) -> list[tuple[int, ...]]:
    """Return the checksums of each source's bytes."""

    def one(source: Source) -> tuple[int, ...]:
        reading, found = source.read(), []
        for start, stop in spans(source.leaf.nbytes):
            with reading.piece(start, stop) as view:
                found.append(check(view))
        return tuple(found)

    return in_parallel(one, sources, lambda source: source.leaf.nbytes)


def measure_all(works: Sequence[Work]) -> list[Measured]:
    """Return digest and statistics of each tensor, having written those that want to be.

    Raises:
        InvalidInputError: a tensor changed since its checksums were taken.
    """
    return in_parallel(_measure, works, lambda work: work.source.leaf.nbytes)


def _measure(work: Work) -> Measured:
    leaf = work.source.leaf
    digest = hashlib.sha256()
    statistics = Accumulator(leaf.dtype, leaf.num_elements)
    reading = work.source.read()
    for number, (start, stop) in enumerate(spans(leaf.nbytes)):
        with reading.piece(start, stop) as view:
            if check(view) != work.checks[number]:
                raise changed(leaf.path)
            digest.update(view)
            if work.write is not None:
                work.write(view, start)
            statistics.update(view, work.previous(start, stop) if work.previous is not None else None)
    if work.write is not None:
        work.source.finish()
    return Measured(digest.hexdigest(), statistics.result())


def copy_all(works: Sequence[Work]) -> None:
    """Write each tensor and leave digest and statistics for later."""

    def one(work: Work) -> None:
        assert work.write is not None
        reading = work.source.read()
        for start, stop in spans(work.source.leaf.nbytes):
            with reading.piece(start, stop) as view:
                work.write(view, start)
        work.source.finish()

    in_parallel(one, works, lambda work: work.source.leaf.nbytes)


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
