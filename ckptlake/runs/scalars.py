"""What a metric's value may be, and how it becomes a float64 without waiting for a device."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ckptlake._internal.optional import if_imported
from ckptlake.errors import InvalidInputError, UnreadableTensorError

_EXACT_INTEGER = 2**53
_PRINTED_BITS = 10_000
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_ACCEPTED = "int, float, bool, a numpy scalar or 0-d array, or a 0-d torch tensor"


class DeferredScalar:
    """A device tensor's value, read when the writer's thread asks for it.

    The value is copied on the device at once, in the order of the caller's stream, so that the training
    loop may go on to change the tensor in place.
    """

    __slots__ = ("_ready", "_value")

    def __init__(self, tensor: Any) -> None:
        self._value = tensor.detach().clone()
        self._ready = _record_event(tensor)

    def __float__(self) -> float:
        try:
            if self._ready is not None:
                self._ready.synchronize()
            return _read(self._value.item())
        except RuntimeError as error:
            raise UnreadableTensorError(f"a tensor on {self._value.device} could not be read: {error}") from error


def _record_event(tensor: Any) -> Any:
    """Return an event after the copy on the caller's stream, or None for a device without streams."""
    torch: Any = if_imported("torch")
    streams = getattr(torch, tensor.device.type, None)
    if streams is None or not hasattr(streams, "Event") or not hasattr(streams, "current_stream"):
        return None
    event = streams.Event()
    event.record(streams.current_stream(tensor.device))
    return event


def as_scalar(name: str, value: object) -> float | DeferredScalar:
    """Return a metric's value as a float, or as a float to be read later.

    Raises:
        InvalidInputError: the value is no real scalar, or an integer that no float64 holds exactly.
    """
    if isinstance(value, float | bool):
        return float(value)
    if isinstance(value, int):
        return _exact(name, value)
    if isinstance(value, np.ndarray):
        if value.ndim != 0:
            raise _refusal(name, value, f" of shape {value.shape}; log one element, or value.mean()")
        value = value[()]
    if isinstance(value, np.bool_ | np.integer | np.floating) and not isinstance(value, np.timedelta64):
        return _exact(name, value)
    torch: Any = if_imported("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _from_tensor(name, value)
    raise _refusal(name, value)


def as_scalars(names: Sequence[str], values: Sequence[object]) -> tuple[Any, ...] | None:
    """Return a flat call's values, each ready to become a float64, or None if one is a nested dict.

    Raises:
        InvalidInputError: as `as_scalar` does.
    """
    ready: list[Any] = []
    for name, value in zip(names, values, strict=True):
        kind = type(value)
        if kind is float or kind is bool or (kind is int and -_EXACT_INTEGER <= value <= _EXACT_INTEGER):  # type: ignore[operator]
            ready.append(value)
        elif isinstance(value, Mapping):
            return None
        else:
            ready.append(as_scalar(name, value))
    return tuple(ready)


def _exact(name: str, value: Any) -> float:
    number = exact_float(value)
    if number is None:
        raise InvalidInputError(
            f"metric {name!r}: {shown(value)} cannot be kept exactly as a float64; log float(value) if rounding is "
            "fine, or keep it as a param or tag"
        )
    return number


def exact_float(value: Any) -> float | None:
    """Return a real number as the float64 equal to it, or None if there is none."""
    if isinstance(value, np.integer):
        value = int(value)
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number == value or number != number else None


def shown(value: object) -> str:
    """Return a value as text for a message, also where it has more digits than Python prints."""
    if isinstance(value, int) and value.bit_length() > _PRINTED_BITS:
        return f"an integer of {value.bit_length()} bits"
    return f"{value!r:.100}"


def _read(number: Any) -> float:
    found = exact_float(number)
    if found is None:
        raise UnreadableTensorError(f"{shown(number)} cannot be kept exactly as a float64")
    return found


def _from_tensor(name: str, tensor: Any) -> float | DeferredScalar:
    if tensor.ndim != 0:
        raise _refusal(name, tensor, f" of shape {tuple(tensor.shape)}; log one element, or value.mean()")
    if tensor.is_cpu:
        number = tensor.item()
        if isinstance(number, complex):
            raise _refusal(name, tensor, f" of dtype {tensor.dtype}")
        return _exact(name, number) if isinstance(number, int) else float(number)
    if tensor.is_complex() or tensor.device.type == "meta":
        raise _refusal(name, tensor, f" of dtype {tensor.dtype} on device {tensor.device}")
    return DeferredScalar(tensor)


def _refusal(name: str, value: object, detail: str = "") -> InvalidInputError:
    kind = type(value)
    full_name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    detail = detail or f" ({value!r:.80})"
    return InvalidInputError(f"metric {name!r}: a {full_name}{detail} is not accepted; accepted are {_ACCEPTED}")


def split_readable(calls: Sequence[Any]) -> tuple[list[Any], list[UnreadableTensorError]]:
    """Return `log` calls without the points whose tensors cannot be read, and an error for each of those."""
    readable: list[Any] = []
    errors: list[UnreadableTensorError] = []
    for stream, keyset, step, ts_us, values in calls:
        kept: list[tuple[str, float]] = []
        for name, value in zip(keyset, values, strict=True):
            try:
                kept.append((name, float(value)))
            except UnreadableTensorError as error:
                errors.append(
                    UnreadableTensorError(f"metric {name!r} of run {stream.run_id} at step {step} is lost: {error}")
                )
        readable.append((stream, tuple(n for n, _ in kept), step, ts_us, tuple(v for _, v in kept)))
    return readable, errors


def as_step(step: object) -> int:
    """Return a step as a 64-bit integer.

    Raises:
        InvalidInputError: it is no integer, or outside int64.
    """
    if isinstance(step, bool | np.bool_):
        raise InvalidInputError(f"step must be an integer, got the bool {step}")
    try:
        number = operator.index(step)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInputError(
            f"step must be an integer, got {type(step).__name__} {shown(step)}; log fractions such as epochs as a "
            "metric of their own and declare it with run.define(..., step_metric=...)"
        ) from None
    if not _INT64_MIN <= number <= _INT64_MAX:
        raise InvalidInputError(f"step {shown(number)} is outside the 64-bit integers")
    return number
