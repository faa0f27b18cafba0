"""The random generators a training loop draws from, so that it can go on where it stopped."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from ckptlake._internal.optional import if_imported
from ckptlake.checkpoints.formats.optional_torch import needing_torch
from ckptlake.errors import InvalidInputError

_KNOWN = ("python", "numpy", "torch", "cuda")


def collect_rng() -> dict[str, object]:
    """Return the states of the global generators of Python, numpy, and torch if the program has loaded it.

    The state can be saved with a checkpoint. ``cuda`` is there where CUDA is in use, one state a device; generators
    that the program has made itself, such as `numpy.random.default_rng()`, are not among them.

    >>> state = collect_rng()
    >>> first = random.random()
    >>> restore_rng(state)
    >>> random.random() == first
    True
    """
    state: dict[str, object] = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}  # noqa: NPY002
    if if_imported("torch") is not None:
        from ckptlake.checkpoints.formats.torch_tensors import collect_torch_rng

        state |= collect_torch_rng()
    return state


def restore_rng(state: Mapping[str, Any]) -> None:
    """Set the global generators to what `collect_rng` has returned; those it does not name stay as they are.

    Raises:
        InvalidInputError: a state is unknown, damaged, or of another number of CUDA devices; none has been set then.
        MissingDependencyError: there are states of torch, and it is not installed.
    """
    states = _checked(state)
    if "python" in states:
        random.setstate(states["python"])
    if "numpy" in states:
        np.random.set_state(states["numpy"])  # noqa: NPY002
    if "torch" in states or "cuda" in states:
        from ckptlake.checkpoints.formats.torch_tensors import restore_torch_rng

        restore_torch_rng(states)


def _checked(state: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(state, Mapping) or not set(state) <= set(_KNOWN):
        found = ", ".join(map(repr, state)) if isinstance(state, Mapping) else type(state).__name__
        raise InvalidInputError(f"give what collect_rng() has returned, with {', '.join(_KNOWN)}; got {found:.200}")
    states = dict(state)
    if "python" in states:
        _try("python", random.Random().setstate, states["python"])  # noqa: S311 - nothing secret is drawn
    if "numpy" in states:
        _try("numpy", np.random.RandomState().set_state, states["numpy"])
    if "torch" in states or "cuda" in states:
        with needing_torch("a state of its random generators"):
            from ckptlake.checkpoints.formats.torch_tensors import check_torch_rng
        check_torch_rng(states)
    return states


def _try(name: str, setter: Any, state: object) -> None:
    try:
        setter(state)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise InvalidInputError(f"state[{name!r}] is no state of its generator: {error!s:.200}") from None
