"""`ckptlake version`."""

from __future__ import annotations

import platform

import ckptlake
from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption
from ckptlake.cli.strict_json import timestamp
from ckptlake.errors import NotALakeError

_ENGINES = ("deltalake", "duckdb", "polars", "pyarrow")


def version(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Print the versions of everything.

    That is ckptlake, what it stands on, and the lake if there is one.
    """
    from ckptlake.tables.layout import read_identity

    versions = {"ckptlake": ckptlake.__version__, "python": platform.python_version()}
    versions |= {name: found for name in _ENGINES if (found := _installed(name)) is not None}
    path = lake.expanduser().absolute()
    try:
        identity = read_identity(path)
    except NotALakeError:
        identity = None
    if as_json:
        about = identity and {
            "path": str(path),
            "lake_id": identity.lake_id,
            "format_version": identity.format_version,
            "created_at": identity.created_at,
        }
        console.json({**versions, "lake": about})
        return
    pairs = list(versions.items())
    if identity is not None:
        pairs.append(("lake", f"{path}, format {identity.format_version}, created {timestamp(identity.created_at)}"))
    console.pairs(pairs)


def _installed(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
