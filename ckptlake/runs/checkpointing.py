"""What a run does with checkpoints: the arguments of its calls become requests to its session."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from ckptlake._internal.names import check_text, flatten
from ckptlake.errors import InvalidInputError
from ckptlake.runs.scalars import as_scalar, as_step

if TYPE_CHECKING:
    from ckptlake.checkpoints.background import Pending
    from ckptlake.checkpoints.loading import LoadedCheckpoint
    from ckptlake.checkpoints.opened import VerifyLevel
    from ckptlake.checkpoints.retention import Policy
    from ckptlake.checkpoints.session import CheckpointSession, DigestMode, SavedCheckpoint

RECENT_CALLS = 64
Recent = deque[tuple[int, tuple[str, ...], tuple[Any, ...]]]
"""The newest `log` calls of a run, as (step, metrics, values)."""


@dataclass(frozen=True, slots=True)
class CheckpointAccess:
    """How a run comes to the lake's checkpoints.

    Attributes:
        begin: makes the session that saves those of a run, given its id, experiment, attempt and whether it is new.
        load: loads one, given which, the run's id and the options.
    """

    begin: Callable[[str, str, int, bool], CheckpointSession]
    load: Callable[..., LoadedCheckpoint]


class Checkpointing:
    """The part of a run that saves and loads checkpoints."""

    id: str
    experiment: str
    attempt: int
    is_new: bool
    _recent: Recent

    def _check_open(self) -> None:
        raise NotImplementedError

    def _start_checkpointing(self, access: CheckpointAccess) -> None:
        self._recent = deque(maxlen=RECENT_CALLS)
        self._access = access
        self._session: CheckpointSession | None = None
        self._session_lock = threading.RLock()

    @overload
    def save_checkpoint(
        self, state: object = None, *, async_: Literal[False] = False, **choices: Any
    ) -> SavedCheckpoint: ...

    @overload
    def save_checkpoint(
        self, state: object = None, *, async_: Literal[True], **choices: Any
    ) -> Pending[SavedCheckpoint]: ...

    def save_checkpoint(
        self,
        state: object = None,
        *,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        format: str = "packed",
        async_: bool = False,
        optimizer: Any = None,
        rng: bool = False,
        pin: bool = False,
        alias: str | None = None,
        note: str | None = None,
        digest: DigestMode = "sha256",
        **parts: object,
    ) -> SavedCheckpoint | Pending[SavedCheckpoint]:
        """Save a checkpoint: durable, digested and listed on return, or in the background with `async_`.

        Give a state, any tree of tensors, arrays, numbers and containers, or its parts by name: ``model=model,
        optimizer=optimizer, scheduler=scheduler``. Objects with `state_dict()` are asked for it. Tensors that the
        lake has already are not stored again.

        Args:
            state: what to save; beside it, `optimizer` is not saved, it only tells whose step to look out for.
            step: default the last step that was logged.
            epoch: any 64-bit integer.
            metrics: values to find it by; default what `log` has recorded at this step.
            format: ``packed``, ``safetensors``, ``torch``, ``pickle``, or one that a package has added.
            async_: return at once and save in the background. The tensors that `optimizer` owns are read while
                training goes on and copied before its next step if need be; all others are copied now.
            optimizer: a torch optimizer, several, or a dict of them.
            rng: also save the random number generators of Python, numpy and torch.
            pin: keep retention from ever deleting it.
            alias: a name of your own, which moves here from any other checkpoint of the run.
            note: a text to keep with it.
            digest: ``sha256`` of every tensor now, or ``deferred``: write under fast checksums; digests, statistics
                and the wait for the disk follow in the background. Once the call returns, such a checkpoint survives
                the end of the process; it survives a power cut once its digest is there, after `finish` at the
                latest. No older one is deleted in its favour before. With `async_` it is all the background's.

        Returns:
            The saved checkpoint, or with `async_` a handle with `wait()` and `fence()`.

        Raises:
            InvalidInputError: something in the state cannot be kept exactly (the message names its path), or an
                argument is none of the above; nothing is saved.
            RunClosedError: the run has ended.
            StorageError: the disk refused; the checkpoint before is still the newest.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     run.log({"val/loss": 0.5}, step=10)
        ...     saved = run.save_checkpoint({"weights": np.ones((2, 3)), "epoch": 1})
        >>> saved.step, lake.checkpoints.get("latest").metrics
        (10, {'val/loss': 0.5})
        """
        self._check_open()
        from ckptlake.checkpoints.session import SaveRequest

        if digest not in ("sha256", "deferred"):
            raise InvalidInputError(f"digest must be 'sha256' or 'deferred', got {digest!r:.40}")
        step = self._last_step() if step is None else as_step(step)
        request = SaveRequest(
            state=_tree(state, parts, optimizer, rng=rng),
            step=step,
            epoch=None if epoch is None else as_step(epoch),
            metrics=_values_at(tuple(self._recent), step) if metrics is None else _checked(metrics),
            format=format,
            pin=pin,
            alias=_checked_alias(alias),
            note=None if note is None else check_text("the text of a note", note),
            digest=digest,
            optimizers=_several(optimizer),
        )
        session = self._get_session()
        with self._session_lock:
            return session.save_async(request) if async_ else session.save(request)

    def retain_checkpoints(
        self,
        policy: Policy | str | None,
        *,
        keep_optimizer: int | None = None,
        quota: str | int | None = None,
    ) -> None:
        """Keep, after each further save of this run, only the checkpoints that a policy says.

        They are deleted once the new one is durable. Pinned and named ones, the best by every metric with a declared
        direction and the newest good one always stay; `lake.checkpoints.plan_retention` shows what would go.

        Args:
            policy: a policy, or text such as ``latest(3)+best(val/loss,2)``; None keeps all.
            keep_optimizer: how many keep their optimizer state; older ones keep the model alone.
            quota: the most bytes for the run's checkpoints, as a number or as text such as ``10GB``.

        Raises:
            InvalidInputError: a text cannot be read.
        """
        self._check_open()
        self._get_session().upkeep.retain(policy, keep_optimizer=keep_optimizer, quota=quota)

    def load_checkpoint(
        self,
        which: str | int = "latest",
        *,
        into: object = None,
        only: str | Sequence[str] | None = None,
        map_location: object = None,
        verify: VerifyLevel = "fast",
        strict: bool = True,
        rng: bool = False,
        allow_unsafe: bool = False,
    ) -> LoadedCheckpoint:
        """Load a checkpoint of this run, or any of the lake by its id.

        What is returned behaves as the dict that was saved, and its `tensors()` are read one by one.

        Args:
            which: ``latest``, ``latest_good`` (the newest whose every byte is right; damaged newer ones are
                quarantined and told in `skipped`), ``best``, ``best:val/loss``, an alias, a step or an id.
            into: an object with `load_state_dict`, or a dict of such objects by their name in the state.
            only: patterns of tensor paths such as ``encoder.*``; what is loaded then are nested dicts of those.
            map_location: the device for tensors, as in `torch.load`.
            verify: compare every tensor read with its SHA-256 ("digest"), its checksums ("fast") or nothing (False).
            strict: whether a model given as `into` must find all of its tensors and no others.
            rng: also set the random number generators back to where they were.
            allow_unsafe: let a file of the format ``pickle`` run what it likes.

        Raises:
            CheckpointNotFoundError: none answers to `which`; the message tells what there is.
            DamagedCheckpointError: a tensor is missing or not what was written; the message names it.
            InvalidInputError: the state does not fit `into`, or a choice is none of the above.
            UnsafeFileError: loading would run code from the file.
        """
        from ckptlake.checkpoints.loading import LoadOptions

        self._finish_saving()
        options = LoadOptions(only=only, map_location=map_location, verify=verify, strict=strict, rng=rng)
        return self._access.load(which, self.id, into=into, options=options, allow_unsafe=allow_unsafe)

    def _last_step(self) -> int | None:
        return self._recent[-1][0] if self._recent else None

    def _get_session(self) -> CheckpointSession:
        with self._session_lock:
            if self._session is None:
                self._session = self._access.begin(self.id, self.experiment, self.attempt, self.is_new)
            return self._session

    def _finish_saving(self) -> None:
        if self._session is not None:
            self._session.join()

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()

    def _forget_session(self) -> None:
        """Begin anew in a forked child: its parent goes on with what it saves."""
        self._session = None
        self._session_lock = threading.RLock()


def _tree(state: object, parts: Mapping[str, object], optimizer: object, *, rng: bool) -> object:
    from ckptlake.checkpoints.rng import collect_rng

    if state is not None:
        if parts or rng:
            names = ", ".join([*parts, *(["rng"] if rng else [])])
            raise InvalidInputError(f"a state and parts by name ({names}) are given: put the parts into the state")
        return state
    named = dict(parts)
    if optimizer is not None:
        named["optimizer"] = optimizer
    if not named:
        raise InvalidInputError("save_checkpoint needs a state, or parts by name such as model=")
    return {**named, "rng": collect_rng()} if rng else named


def _several(optimizer: Any) -> Sequence[object]:
    if optimizer is None:
        return ()
    if isinstance(optimizer, Mapping):
        return tuple(optimizer.values())
    return tuple(optimizer) if isinstance(optimizer, list | tuple) else (optimizer,)


def _values_at(recent: Iterable[tuple[int, tuple[str, ...], tuple[Any, ...]]], step: int | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for logged, names, values in recent:
        if logged == step:
            found |= {name: float(value) for name, value in zip(names, values, strict=True)}
    return found


def _checked(metrics: Mapping[str, Any]) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        raise InvalidInputError(f"metrics must be a dict of values by name, got {type(metrics).__name__}")
    return {name: float(as_scalar(name, value)) for name, value in flatten(metrics, "/", "metric").items()}


def _checked_alias(alias: object) -> str | None:
    from ckptlake.checkpoints.records import check_alias

    return None if alias is None else check_alias(alias)
