"""Settings of one opened lake; every default suits a training run on one machine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from ckptlake.errors import InvalidInputError

_MOST = 1e9
_MOST_BYTES = 1e15
_MAY_BE_ZERO = frozenset({"result_cache_bytes", "result_cache_disk_bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What a run records of its surroundings by itself; switch off what should stay out.

    Attributes:
        git: commit, branch, dirty flag and size of the diff.
        host: host name and process id.
        command: the command line, words that look like secrets redacted.
        packages: versions of Python and of the installed packages.
        system: CPU, memory, disk and GPU as metrics under ``system/``.
    """

    git: bool = True
    host: bool = True
    command: bool = True
    packages: bool = True
    system: bool = True

    @classmethod
    def nothing(cls) -> Capture:
        """Return a capture with everything switched off."""
        return cls(git=False, host=False, command=False, packages=False, system=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a lake is written and looked after.

    Attributes:
        flush_interval_s: logged rows are on disk in the write-ahead segment this often, in seconds.
        commit_interval_s: segments become Delta commits this often, in seconds.
        commit_points: a segment with this many points is committed at once.
        max_pending_points: points held in memory before `log` waits for the disk.
        max_pending_calls: `log` calls held in memory before `log` waits for the disk.
        lock_timeout_s: how long a commit waits for the table's lock.
        parquet_profile: ``compact`` (byte-stream-split values, 3.6 bytes a point) or ``portable``
            (plain values, 4.1 bytes, for readers such as Spark's vectorised one).
        auto_compact: merge small files and shorten logs after commits without being asked.
        system_interval_s: seconds between samples of CPU, memory, disk and GPU.
        max_staging_bytes: memory for copies of tensors while they are saved in the background; a save waits for
            what does not fit.
        compress_checkpoints: compress the older checkpoints of a run in the background after each save; the newest
            stays uncompressed.
        result_cache_bytes: memory for answers of `lake.sql` that may be asked for again; 0 switches the cache off.
        result_cache_on_disk: keep them in the lake's directory as well, for other processes and later ones.
        result_cache_disk_bytes: disk space for them; 0 for none.

    >>> Settings(commit_interval_s=5).commit_interval_s
    5
    """

    flush_interval_s: float = 1.0
    commit_interval_s: float = 60.0
    commit_points: int = 2_000_000
    max_pending_points: int = 4_000_000
    max_pending_calls: int = 200_000
    lock_timeout_s: float = 120.0
    parquet_profile: Literal["compact", "portable"] = "compact"
    auto_compact: bool = True
    system_interval_s: float = 15.0
    max_staging_bytes: int = 16 << 30
    compress_checkpoints: bool = False
    result_cache_bytes: int = 256 << 20
    result_cache_on_disk: bool = False
    result_cache_disk_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.parquet_profile not in ("compact", "portable"):
            raise InvalidInputError(f"parquet_profile must be 'compact' or 'portable', got {self.parquet_profile!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            most = _MOST_BYTES if field.name.endswith("_bytes") else _MOST
            if field.name in _MAY_BE_ZERO and value == 0:
                continue
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value <= most:
                raise InvalidInputError(f"{field.name} must lie between 0 and {most:.0e}, got {value!r}")
