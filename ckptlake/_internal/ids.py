"""Identifiers: sortable by time, unique across machines, safe as file names."""

from __future__ import annotations

import re
import secrets
import time

from ckptlake.errors import InvalidInputError

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ACCEPTED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def new_id() -> str:
    """Return a new identifier such as ``20261123-154105-k3f9qz2mtb``.

    The UTC second comes first, so identifiers sort by creation and the rows of one run lie
    together in sorted files; fifty random bits keep those of one second apart.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return f"{stamp}-{''.join(secrets.choice(_ALPHABET) for _ in range(10))}"


def check_run_id(run_id: object) -> str:
    """Return `run_id` if it can name a run.

    Raises:
        InvalidInputError: it is not 1 to 128 letters, digits, dots, dashes or underscores.
    """
    if isinstance(run_id, str) and _ACCEPTED.fullmatch(run_id):
        return run_id
    raise InvalidInputError(
        f"run id {run_id!r:.200} is not accepted: use 1 to 128 letters, digits, '.', '_' or '-', "
        "starting with a letter or digit"
    )
