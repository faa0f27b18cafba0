"""A loaded checkpoint, and how its state is put into models and optimizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ckptlake.checkpoints.opened import OpenedCheckpoint, TensorMapping, VerifyLevel
from ckptlake.checkpoints.rng import restore_rng
from ckptlake.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a checkpoint is to be loaded.

    Attributes:
        only: patterns of tensor paths; None for all.
        map_location: the device for tensors, as in `torch.load`.
        verify: what tensors are compared with as they are read.
        strict: whether a model must find all of its tensors and no others.
        rng: whether random number generators are set back to where they were.
    """

    only: str | Sequence[str] | None = None
    map_location: object = None
    verify: VerifyLevel = "fast"
    strict: bool = True
    rng: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A newer checkpoint that was passed over, and why."""

    id: str
    step: int | None
    finding: str


class LoadedCheckpoint(Mapping[Any, Any]):
    """A checkpoint and its state, which is read when it is first used; behaves as the state's own dict.

    Attributes:
        opened: for tensors alone, slices, and what is known of the checkpoint.
        skipped: newer ones that were found damaged, where `latest_good` was asked for.
    """

    def __init__(self, opened: OpenedCheckpoint, options: LoadOptions, skipped: Sequence[Skipped] = ()) -> None:
        self.opened = opened
        self.skipped = tuple(skipped)
        self._options = options

    @property
    def id(self) -> str:
        return self.opened.id

    @property
    def step(self) -> int | None:
        return self.opened.step

    @property
    def epoch(self) -> int | None:
        return self.opened.epoch

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.opened.metrics

    @cached_property
    def state(self) -> Any:
        """The state as it was saved.

        Raises:
            DamagedCheckpointError: a tensor is missing or not what was written.
        """
        options = self._options
        return self.opened.state(options.only, map_location=options.map_location, verify=options.verify)

    def tensors(self) -> TensorMapping:
        """Return the tensors by path, each read when it is asked for; those in uncompressed packs without a copy."""
        return self.opened.tensors(self._options.only)

    def __repr__(self) -> str:
        return f"LoadedCheckpoint({self.id!r}, step={self.step}, {len(self.opened.paths)} tensors)"

    def __getitem__(self, key: Any) -> Any:
        return self.state[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)

    def load_into(self, into: object) -> None:
        """Put the state into an object with `load_state_dict`, or into several by their names in the state.

        Raises:
            InvalidInputError: a part is not in the state, or cannot take it.
        """
        strict = self._options.strict and self._options.only is None
        if isinstance(into, Mapping):
            for name, target in into.items():
                if name not in self.state:
                    raise InvalidInputError(
                        f"checkpoint {self.id} holds no {name!r}; it holds {', '.join(map(str, self.state))}"
                    )
                _load_part(target, self.state[name], strict, name)
        else:
            _load_part(into, self._part_for(into), strict, type(into).__name__)

    def _part_for(self, into: object) -> Any:
        """Return the whole state, or the one part of it that is meant for an object."""
        state = self.state
        if not isinstance(state, Mapping):
            raise InvalidInputError(f"checkpoint {self.id} holds a {type(state).__name__}, which cannot be loaded into")
        ask = getattr(into, "state_dict", None)
        own = set(ask()) if callable(ask) else set()
        if own & set(state):
            return state
        fitting = [name for name, part in state.items() if isinstance(part, Mapping) and own & set(part)]
        if len(fitting) > 1 and "model" in fitting and "param_groups" not in own:
            fitting = ["model"]
        if len(fitting) == 1:
            return state[fitting[0]]
        raise InvalidInputError(
            f"which part of checkpoint {self.id} goes into {type(into).__name__} is not clear; it holds "
            f"{', '.join(map(str, state))}: give into={{name: object}}"
        )

    def restore_rng(self) -> None:
        """Set the random number generators back to where they were when the checkpoint was saved.

        Raises:
            InvalidInputError: it was saved without `rng=True`.
        """
        if "rng" not in self.state:
            raise InvalidInputError(f"checkpoint {self.id} holds no 'rng': save it with rng=True")
        restore_rng(self.state["rng"])


def _load_part(target: object, part: Any, strict: bool, name: object) -> None:
    load = getattr(target, "load_state_dict", None)
    if not callable(load):
        raise InvalidInputError(f"into {name!r}: a {type(target).__name__} has no load_state_dict")
    if hasattr(target, "named_parameters"):
        try:
            load(part, strict=strict)
        except RuntimeError as error:
            raise InvalidInputError(f"the checkpoint does not fit {name!r}: {error}") from error
    else:
        load(part)
