"""What every run of an experiment must have: params of given types, and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ckptlake._internal.names import check_name, flatten
from ckptlake.errors import InvalidInputError, RequirementError
from ckptlake.runs.typed import TypedValue

_KINDS = {float: "float", int: "int", str: "str", bool: "bool", list: "list", dict: "dict", None: "any"}
_OPENINGS = {"list": "[", "dict": "{"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """The required params, each with its kind or its allowed texts, and the required metrics."""

    params: Mapping[str, str | tuple[str, ...]]
    metrics: tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, object], metrics: Iterable[str]) -> Requirement:
        """Return the requirement a user describes.

        Args:
            params: for each param a type (float, int, str, bool, list, dict), ``None`` for any value, or a
                list of allowed texts; nested dicts name params by dots.
            metrics: metrics each run must have logged when it finishes.

        Raises:
            InvalidInputError: a description is none of these.

        >>> Requirement.of({"optim": {"lr": float}}, ["val/loss"]).params
        {'optim.lr': 'float'}
        """
        if isinstance(metrics, str):
            raise InvalidInputError(f"metrics must be a list of names, got the text {metrics!r}")
        kinds = {name: _kind(name, wanted) for name, wanted in flatten(dict(params), ".", "param").items()}
        return cls(kinds, tuple(check_name("a metric's name", metric) for metric in metrics))

    def to_json(self) -> str:
        return json.dumps({"params": self.params, "metrics": self.metrics})

    @classmethod
    def from_json(cls, text: str) -> Requirement:
        fields = json.loads(text)
        params = {
            name: tuple(wanted) if isinstance(wanted, list) else str(wanted)
            for name, wanted in fields["params"].items()
        }
        return cls(params, tuple(fields["metrics"]))

    def check_params(self, experiment: str, params: Mapping[str, TypedValue]) -> None:
        """Check a run's params at its start.

        Raises:
            RequirementError: one is missing or of another kind; the message names it.
        """
        for name, wanted in self.params.items():
            if wanted == "dict" and any(given.startswith(f"{name}.") for given in params):
                continue
            if name not in params:
                raise RequirementError(
                    f"experiment {experiment!r} requires the param {name!r} ({_described(wanted)}), which this run "
                    f"does not give; its params are {', '.join(sorted(params)) or 'none'}"
                )
            if not _fits(params[name], wanted):
                raise RequirementError(
                    f"experiment {experiment!r} requires the param {name!r} to be {_described(wanted)}, got "
                    f"{params[name].kind} {params[name]}"
                )

    def missing_metrics(self, logged: Iterable[str]) -> list[str]:
        """Return the required metrics that are not among those logged."""
        return sorted(set(self.metrics) - set(logged))


def _kind(name: str, wanted: object) -> str | tuple[str, ...]:
    if isinstance(wanted, list | tuple) and wanted and all(isinstance(item, str) for item in wanted):
        return tuple(wanted)
    if (wanted is None or isinstance(wanted, type)) and wanted in _KINDS:
        return _KINDS[wanted]
    raise InvalidInputError(
        f"the requirement for param {name!r} must be float, int, str, bool, list, dict, None for any, or a list "
        f"of allowed texts, got {wanted!r:.80}"
    )


def _fits(value: TypedValue, wanted: str | tuple[str, ...]) -> bool:
    if isinstance(wanted, tuple):
        return value.text in wanted
    if wanted in _OPENINGS:
        return value.kind == "json" and (value.json or "").startswith(_OPENINGS[wanted])
    return wanted in ("any", value.kind) or (wanted == "float" and value.kind == "int")


def _described(wanted: str | tuple[str, ...]) -> str:
    return f"one of {', '.join(wanted)}" if isinstance(wanted, tuple) else wanted
