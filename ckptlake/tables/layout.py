"""Where things lie in a lake's directory, and the lake.json that makes it one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from ckptlake._internal.files import storage_error, storage_errors, write_once
from ckptlake._internal.ids import new_id
from ckptlake.errors import InvalidInputError, LakeFormatError, NotALakeError

FORMAT_VERSION = 1
_FORMAT_NAME = "ckptlake"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one lake."""

    root: Path

    @property
    def identity(self) -> Path:
        return self.root / "lake.json"

    @property
    def wal(self) -> Path:
        return self.root / "wal"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def queries(self) -> Path:
        return self.root / "queries"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def table(self, name: str) -> Path:
        return self.root / "tables" / name

    @property
    def kept(self) -> Path:
        return self.cache / "kept"

    def kept_files(self, table: str) -> Path:
        return self.kept / f"{table}.files"


@dataclass(frozen=True, slots=True)
class LakeIdentity:
    """What lake.json says: which lake this is, in which format, since when."""

    lake_id: str
    format_version: int
    created_at: datetime


def check_root(path: str | os.PathLike[str]) -> Path:
    """Return where a lake shall be, absolute.

    Raises:
        InvalidInputError: it is no directory's path, or one that the Delta library would take for another.
    """
    if "://" in str(path):
        raise InvalidInputError(f"{str(path)!r} is no directory: lakes on object stores are not supported yet")
    root = Path(path).expanduser().absolute()
    if unquote(str(root)) != str(root) or "\\" in str(root) or not str(root).isprintable():
        raise InvalidInputError(
            f"the path {str(root)!r} holds a backslash, a control character or a percent-encoded one, which the Delta "
            "library would take for something else: give the lake a directory without them"
        )
    return root


def create_lake(root: Path) -> LakeIdentity:
    """Make `root` a lake, or return the identity of the lake it already is.

    Raises:
        NotALakeError: the directory holds other things and no lake.json.
        ReadOnlyLakeError: the directory cannot be written.
    """
    layout = Layout(root)
    if root.exists() and not root.is_dir():
        raise NotALakeError(f"{root} is a file: give a directory, new or empty, to hold the lake")
    if not layout.identity.exists():
        with storage_errors("create a lake", root):
            _claim(layout)
    return read_identity(root)


def _claim(layout: Layout) -> None:
    layout.root.mkdir(parents=True, exist_ok=True)
    strangers = [name for name in os.listdir(layout.root) if not name.startswith(".")]
    if strangers and not layout.identity.exists():
        raise NotALakeError(
            f"{layout.root} holds other files ({', '.join(sorted(strangers)[:3])}) and no lake.json, so it is "
            "not a lake: give a new or empty directory"
        )
    identity = {
        "format": _FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "lake_id": new_id(),
        "created_at": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
    write_once(layout.identity, json.dumps(identity, indent=2).encode() + b"\n")


def read_identity(root: Path) -> LakeIdentity:
    """Read lake.json.

    Raises:
        NotALakeError: there is none.
        LakeFormatError: it is damaged, or from a newer ckptlake.
    """
    path = Layout(root).identity
    try:
        payload = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotALakeError(
            f"{root} is not a lake: it has no lake.json; create one with `ckptlake init --lake {root}`"
        ) from None
    except PermissionError as error:
        raise storage_error("read the lake", path, error) from error
    except IsADirectoryError as error:
        raise LakeFormatError(f"{path} is a directory, so {root} is no lake") from error
    with_remedy = f"{path} is damaged; restore it from a copy, the tables beside it are not affected"
    try:
        fields = json.loads(payload)
        if fields["format"] != _FORMAT_NAME:
            raise LakeFormatError(f"{path} describes a {fields['format']!r:.60}, not a ckptlake lake")
        version = int(fields["format_version"])
        if version > FORMAT_VERSION:
            raise LakeFormatError(
                f"the lake at {root} has format version {version}; this ckptlake reads up to "
                f"{FORMAT_VERSION}: update it with `pip install --upgrade ckptlake`"
            )
        return LakeIdentity(str(fields["lake_id"]), version, datetime.fromisoformat(fields["created_at"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise LakeFormatError(f"{with_remedy} ({type(error).__name__}: {error})") from error
