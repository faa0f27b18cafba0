"""ckptlake: the lakehouse for model training.

Metrics of every run land in open Delta tables, and questions about thousands of runs are answered by SQL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ckptlake.errors import (
    CkptlakeError,
    CommitConflictError,
    DamagedSegmentError,
    DamagedTableError,
    InvalidInputError,
    LakeFormatError,
    NotALakeError,
    NotFoundError,
    ParamChangedError,
    QueryError,
    ReadOnlyLakeError,
    RequirementError,
    RunClosedError,
    RunExistsError,
    RunNotFoundError,
    StorageError,
    TableNotFoundError,
    UnreadableTensorError,
    VersionNotFoundError,
)

if TYPE_CHECKING:
    from ckptlake.active import active_run, finish, init, log
    from ckptlake.config import Capture, Settings
    from ckptlake.lake import Lake, open
    from ckptlake.runs.run import Run
    from ckptlake.types import RunStatus

__version__ = "0.1.0"

_WHERE = {
    "Capture": "ckptlake.config",
    "Lake": "ckptlake.lake",
    "Run": "ckptlake.runs.run",
    "RunStatus": "ckptlake.types",
    "Settings": "ckptlake.config",
    "active_run": "ckptlake.active",
    "finish": "ckptlake.active",
    "init": "ckptlake.active",
    "log": "ckptlake.active",
    "open": "ckptlake.lake",
}

__all__ = [
    "Capture",
    "CkptlakeError",
    "CommitConflictError",
    "DamagedSegmentError",
    "DamagedTableError",
    "InvalidInputError",
    "Lake",
    "LakeFormatError",
    "NotALakeError",
    "NotFoundError",
    "ParamChangedError",
    "QueryError",
    "ReadOnlyLakeError",
    "RequirementError",
    "Run",
    "RunClosedError",
    "RunExistsError",
    "RunNotFoundError",
    "RunStatus",
    "Settings",
    "StorageError",
    "TableNotFoundError",
    "UnreadableTensorError",
    "VersionNotFoundError",
    "__version__",
    "active_run",
    "finish",
    "init",
    "log",
    "open",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'ckptlake' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
