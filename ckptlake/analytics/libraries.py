"""The optional libraries of this package, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from ckptlake.errors import MissingDependencyError

_PACKAGES = {"optuna": "optuna", "ruptures": "ruptures", "sklearn": "scikit-learn", "statsmodels": "statsmodels"}


def need(module: str, purpose: str) -> ModuleType:
    """Return a module of an optional library.

    Args:
        module: its full name, such as ``"sklearn.ensemble"``.
        purpose: what it is needed for, as the subject of a sentence.

    Raises:
        MissingDependencyError: the library is not installed.

    Example:
        >>> need("sklearn.ensemble", "importance").__name__
        'sklearn.ensemble'
    """
    library = module.partition(".")[0]
    try:
        importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise MissingDependencyError(
            f"{purpose} needs {_PACKAGES[library]}: install it by `pip install 'ckptlake[analysis]'`"
        ) from None
    return importlib.import_module(module)
