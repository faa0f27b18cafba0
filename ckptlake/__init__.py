"""ckptlake: the lakehouse for model training.

Metrics and checkpoints of every run land in open Delta tables, and questions about thousands of runs are answered
by SQL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ckptlake.errors import (
    CheckpointNotFoundError,
    CkptlakeError,
    CommitConflictError,
    DamagedCheckpointError,
    DamagedSegmentError,
    DamagedTableError,
    InvalidInputError,
    LakeFormatError,
    MissingDependencyError,
    NotALakeError,
    NotEnoughDataError,
    NotFoundError,
    ParamChangedError,
    QueryError,
    QueryNotFoundError,
    ReadOnlyLakeError,
    RequirementError,
    RunClosedError,
    RunExistsError,
    RunNotFoundError,
    StorageError,
    TableNotFoundError,
    UnreadableTensorError,
    UnsafeFileError,
    VersionNotFoundError,
)

if TYPE_CHECKING:
    from ckptlake.active import active_run, finish, init, log
    from ckptlake.checkpoints.retention import (
        Aliased,
        AnyOf,
        Best,
        EveryHours,
        EveryNSteps,
        Ladder,
        Latest,
        Pinned,
        YoungerThan,
    )
    from ckptlake.config import Capture, Settings
    from ckptlake.lake import Lake, open
    from ckptlake.query.builder import Query
    from ckptlake.query.named import NamedQuery
    from ckptlake.query.spark import Spark
    from ckptlake.query.vocabulary import col, count, lit, metric, param, placeholder, rank, row_number, tag, when
    from ckptlake.runs.run import Run
    from ckptlake.types import RunStatus

__version__ = "0.1.0"

_WHERE = {
    "Aliased": "ckptlake.checkpoints.retention",
    "AnyOf": "ckptlake.checkpoints.retention",
    "Best": "ckptlake.checkpoints.retention",
    "Capture": "ckptlake.config",
    "EveryHours": "ckptlake.checkpoints.retention",
    "EveryNSteps": "ckptlake.checkpoints.retention",
    "Ladder": "ckptlake.checkpoints.retention",
    "Lake": "ckptlake.lake",
    "Latest": "ckptlake.checkpoints.retention",
    "NamedQuery": "ckptlake.query.named",
    "Pinned": "ckptlake.checkpoints.retention",
    "Query": "ckptlake.query.builder",
    "Run": "ckptlake.runs.run",
    "RunStatus": "ckptlake.types",
    "Settings": "ckptlake.config",
    "Spark": "ckptlake.query.spark",
    "YoungerThan": "ckptlake.checkpoints.retention",
    "active_run": "ckptlake.active",
    "col": "ckptlake.query.vocabulary",
    "count": "ckptlake.query.vocabulary",
    "finish": "ckptlake.active",
    "init": "ckptlake.active",
    "lit": "ckptlake.query.vocabulary",
    "log": "ckptlake.active",
    "metric": "ckptlake.query.vocabulary",
    "open": "ckptlake.lake",
    "param": "ckptlake.query.vocabulary",
    "placeholder": "ckptlake.query.vocabulary",
    "rank": "ckptlake.query.vocabulary",
    "row_number": "ckptlake.query.vocabulary",
    "tag": "ckptlake.query.vocabulary",
    "when": "ckptlake.query.vocabulary",
}

__all__ = [
    "Aliased",
    "AnyOf",
    "Best",
    "Capture",
    "CheckpointNotFoundError",
    "CkptlakeError",
    "CommitConflictError",
    "DamagedCheckpointError",
    "DamagedSegmentError",
    "DamagedTableError",
    "EveryHours",
    "EveryNSteps",
    "InvalidInputError",
    "Ladder",
    "Lake",
    "LakeFormatError",
    "Latest",
    "MissingDependencyError",
    "NamedQuery",
    "NotALakeError",
    "NotEnoughDataError",
    "NotFoundError",
    "ParamChangedError",
    "Pinned",
    "Query",
    "QueryError",
    "QueryNotFoundError",
    "ReadOnlyLakeError",
    "RequirementError",
    "Run",
    "RunClosedError",
    "RunExistsError",
    "RunNotFoundError",
    "RunStatus",
    "Settings",
    "Spark",
    "StorageError",
    "TableNotFoundError",
    "UnreadableTensorError",
    "UnsafeFileError",
    "VersionNotFoundError",
    "YoungerThan",
    "__version__",
    "active_run",
    "col",
    "count",
    "finish",
    "init",
    "lit",
    "log",
    "metric",
    "open",
    "param",
    "placeholder",
    "rank",
    "row_number",
    "tag",
    "when",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'ckptlake' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
