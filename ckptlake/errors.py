"""Everything ckptlake raises on purpose.

::

    CkptlakeError
    ├── InvalidInputError      a value that cannot be accepted (also a ValueError)
    │   └── NotEnoughDataError too few values for what was asked of them
    ├── RequirementError       a run breaks what its experiment requires
    ├── ParamChangedError      a parameter already has another value
    ├── RunClosedError         a call on a run that has ended
    ├── NotFoundError          something named does not exist (also a LookupError)
    │   ├── NotALakeError
    │   ├── RunNotFoundError
    │   ├── CheckpointNotFoundError
    │   ├── TableNotFoundError
    │   ├── QueryNotFoundError
    │   └── VersionNotFoundError
    ├── RunExistsError         a run id is taken
    ├── LakeFormatError        the lake was written by a newer ckptlake
    ├── StorageError           the disk refused; nothing acknowledged is lost
    │   └── ReadOnlyLakeError
    ├── CommitConflictError    another process changed the same rows first
    ├── DamagedSegmentError    a write-ahead segment whose header cannot be read
    ├── DamagedTableError      a table's log or files cannot be read
    ├── DamagedCheckpointError a checkpoint whose bytes are not what was written
    ├── UnsafeFileError        a file that would run code when loaded
    ├── MissingDependencyError an optional library is needed and not installed
    ├── UnreadableTensorError  a device failed while a logged tensor was read from it
    └── QueryError             an engine refused a query
"""

from __future__ import annotations


class CkptlakeError(Exception):
    """The root of every error ckptlake raises on purpose."""


class InvalidInputError(CkptlakeError, ValueError):
    """A value that cannot be accepted; the message names it and what is accepted."""


class NotEnoughDataError(InvalidInputError):
    """Too few values for what was asked of them; the message names how many there are and how many it takes."""


class RequirementError(CkptlakeError):
    """A run breaks what its experiment requires; the message names the field."""


class ParamChangedError(CkptlakeError):
    """A parameter was logged again with another value."""


class RunClosedError(CkptlakeError):
    """A call on a run that has already ended."""


class NotFoundError(CkptlakeError, LookupError):
    """Something named by the caller does not exist."""


class NotALakeError(NotFoundError):
    """The directory holds no lake."""


class RunNotFoundError(NotFoundError):
    """No run has this id."""


class CheckpointNotFoundError(NotFoundError):
    """No checkpoint answers to this id, step or alias."""


class TableNotFoundError(NotFoundError):
    """No table has this name."""


class QueryNotFoundError(NotFoundError):
    """No named query has this name; the message has the nearest ones."""


class VersionNotFoundError(NotFoundError):
    """The table has no readable snapshot at this version or time."""


class RunExistsError(CkptlakeError):
    """A run with this id exists already and has ended."""


class LakeFormatError(CkptlakeError):
    """The lake's format is newer than this ckptlake can read, or its lake.json is damaged."""


class StorageError(CkptlakeError):
    """The storage refused a write; what was acknowledged before is safe."""


class ReadOnlyLakeError(StorageError):
    """The lake's directory cannot be written by this process."""


class CommitConflictError(CkptlakeError):
    """Another process changed the same rows first; nothing of this change was applied."""


class DamagedSegmentError(CkptlakeError):
    """A write-ahead segment whose header cannot be read."""


class DamagedTableError(CkptlakeError):
    """A table whose log or files cannot be read; the message names the file."""


class DamagedCheckpointError(CkptlakeError):
    """Bytes of a checkpoint are missing or not what was written; the message names file and tensor."""


class UnsafeFileError(CkptlakeError):
    """Loading a file would run code from it, or it asks for more memory than its size can explain."""


class MissingDependencyError(CkptlakeError, ImportError):
    """An optional library is needed and not installed; the message tells what to install."""


class UnreadableTensorError(CkptlakeError):
    """A device failed while a logged tensor was read from it; that point is lost, others are not."""


class QueryError(CkptlakeError):
    """DuckDB or another engine refused a query; the message is its own."""
