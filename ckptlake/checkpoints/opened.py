"""A checkpoint opened for reading: lazily, tensor by tensor, or whole."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal
from urllib.parse import unquote

from ckptlake.checkpoints.arrays import as_array
from ckptlake.checkpoints.contents import FileContents, PackContents, open_contents
from ckptlake.checkpoints.dtypes import get_dtype
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.packs import Verify, verify_checks, verify_digest, verify_nothing
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.restore import unflatten
from ckptlake.checkpoints.slices import TensorSlice
from ckptlake.checkpoints.state_format import get_format
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import DamagedCheckpointError, InvalidInputError

VerifyLevel = Literal["digest", "fast", False]
_VERIFIERS: dict[object, Verify] = {"digest": verify_digest, "fast": verify_checks, False: verify_nothing}


def get_verifier(level: VerifyLevel) -> Verify:
    """Return the check for a level.

    Raises:
        InvalidInputError: there is no such level.
    """
    if level not in _VERIFIERS or (level is not False and not level):
        raise InvalidInputError(f"verify must be 'digest', 'fast' or False, got {level!r:.40}")
    return _VERIFIERS[level]


class OpenedCheckpoint:
    """One checkpoint. Nothing is read until it is asked for; close it, or use it as a context manager.

    Args:
        store: the lake's checkpoints.
        manifest: which of them.
        allow_unsafe: whether a file that would run code when it is read may do so.
    """

    def __init__(self, store: CheckpointStore, manifest: Manifest, *, allow_unsafe: bool = False) -> None:
        self.manifest = manifest
        self._store = store
        self._allow_unsafe = allow_unsafe
        self._contents = self._open()
        self._numbers = {path: number for number, path in enumerate(manifest.paths)}

    def _open(self) -> PackContents | FileContents:
        """Open the bytes anew: what is handed out may be written to, and nothing else must see that."""
        return open_contents(self._store, self.manifest, allow_unsafe=self._allow_unsafe)

    @cached_property
    def _single(self) -> PackContents | FileContents:
        """What single tensors are taken from."""
        return self._open()

    def __repr__(self) -> str:
        return f"OpenedCheckpoint({self.id!r}, step={self.step}, {len(self.manifest.tensors)} tensors)"

    def __enter__(self) -> OpenedCheckpoint:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its files; tensors that were handed out stay valid."""
        self._contents.close()
        self._single.close()

    @property
    def id(self) -> str:
        return self.manifest.checkpoint_id

    @property
    def run_id(self) -> str:
        return self.manifest.run_id

    @property
    def step(self) -> int | None:
        return self.manifest.step

    @property
    def epoch(self) -> int | None:
        return self.manifest.epoch

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.manifest.metrics

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all tensors, in the order of the state."""
        return tuple(self._numbers)

    def select(self, only: str | Sequence[str] | None) -> list[int]:
        """Return the numbers of the tensors whose path, or its end behind a ``/``, matches any of the patterns.

        Raises:
            InvalidInputError: a pattern matches none; the message names the nearest paths.
        """
        if only is None:
            return list(range(len(self.manifest.tensors)))
        chosen: dict[int, None] = {}
        for pattern in [only] if isinstance(only, str) else only:
            found = [number for path, number in self._numbers.items() if matches(path, pattern)]
            if not found:
                near = difflib.get_close_matches(pattern, self._numbers, 3, 0.3)
                raise InvalidInputError(
                    f"no tensor of checkpoint {self.id} matches {pattern!r}; near it are {', '.join(near) or 'none'}"
                )
            chosen |= dict.fromkeys(found)
        return sorted(chosen)

    def tensors(self, only: str | Sequence[str] | None = None, *, verify: VerifyLevel = False) -> TensorMapping:
        """Return the tensors by path, each read when it is asked for.

        Those of an uncompressed checkpoint are memory-mapped without a copy; writing to one changes private memory
        alone. torch tensors where the state held those, else numpy arrays.

        Args:
            only: patterns of paths, as for file names; ``encoder.*`` also matches behind a ``/``.
            verify: what to compare each tensor with before it is handed out.
        """
        chosen = [self.manifest.tensors[number].path for number in self.select(only)]
        return TensorMapping(self, self._open(), chosen, get_verifier(verify))

    def tensor(self, path: str, *, verify: VerifyLevel = False) -> Any:
        """Return one tensor, read alone; asked for again it is the same memory.

        Raises:
            InvalidInputError: there is none of this path; the message names the nearest.
        """
        number = self._number(path)
        return self._leaf(number, self._info(number), self._view(self._single, number, get_verifier(verify)))

    def get_slice(self, path: str) -> TensorSlice:
        """Return a view of one tensor that reads what is taken out of it, as in ``get_slice(path)[10:20]``."""
        number = self._number(path)
        info = self._info(number)

        def read(start: int, stop: int) -> memoryview:
            return self._single.slice(number, start, stop)

        return TensorSlice(info, read, lambda part, view: self._leaf(number, part, view))

    def state(
        self,
        only: str | Sequence[str] | None = None,
        *,
        map_location: object = None,
        verify: VerifyLevel = "fast",
    ) -> Any:
        """Return the whole state as it was saved, or with `only` nested dicts of the tensors that match.

        Args:
            only: patterns of paths, as for file names.
            map_location: the device to put tensors on, as in `torch.load`.
            verify: compare every tensor with its SHA-256 ("digest"), its checksums ("fast"), or not at all.

        Raises:
            DamagedCheckpointError: a tensor is missing or not what was written; the message names it.
            UnsafeFileError: reading would run code; `allow_unsafe=True` permits it.
        """
        if self._holds_anything:
            return self._whole_file(only, verify)
        chosen = self.select(only)
        check = get_verifier(verify)
        views = dict(zip(chosen, self._read(chosen, check), strict=True))
        if only is not None:
            return self._nested(chosen, views)
        infos = [self._info(number) for number in range(len(self.manifest.tensors))]
        return unflatten(self.manifest.tree, infos, views.__getitem__, map_location)

    def salvage(self, *, verify: VerifyLevel = "digest") -> tuple[dict[str, Any], dict[str, str]]:
        """Return nested dicts of all tensors that can still be read, and what is wrong with each other one.

        Raises:
            UnsafeFileError: reading would run code; `allow_unsafe=True` permits it.
        """
        check = get_verifier(verify)
        views: dict[int, memoryview] = {}
        lost: dict[str, str] = {}
        contents = self._open()
        for number, tensor in enumerate(self.manifest.tensors):
            try:
                views[number] = memoryview(bytearray(self._view(contents, number, check)))
            except DamagedCheckpointError as error:
                lost[tensor.path] = str(error)
        return self._nested(sorted(views), views), lost

    @property
    def _holds_anything(self) -> bool:
        """Whether its file may hold more than tensors and plain values."""
        return self.manifest.file is not None and get_format(self.manifest.format).keeps_anything

    def _whole_file(self, only: object, verify: VerifyLevel) -> object:
        contents = self._open()
        assert isinstance(contents, FileContents)
        if only is not None:
            raise InvalidInputError(f"a checkpoint of the format {self.manifest.format!r} can only be loaded whole")
        if verify:
            contents.verify_file()
        return contents.state

    def _nested(self, chosen: Sequence[int], views: Mapping[int, memoryview]) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for number in chosen:
            parts = self.manifest.tensors[number].path.split("/")
            *levels, name = [unquote(part, errors="surrogatepass") for part in parts]
            place = nested
            for level in levels:
                place = place.setdefault(level, {})
            place[name] = self._leaf(number, self._info(number), views[number])
        return nested

    def _read(self, numbers: Sequence[int], check: Verify) -> list[memoryview]:
        """Return the bytes of tensors, no two in the same memory even where they are stored once."""
        contents, tensors = self._open(), self.manifest.tensors
        first: dict[tuple[str, int, str | None], int] = {}
        for number in numbers:
            tensor = tensors[number]
            first.setdefault((tensor.pack, tensor.offset, tensor.digest), number)
        alone = set(first.values())

        def read(number: int) -> memoryview:
            view = self._view(contents, number, check)
            return view if number in alone else memoryview(bytearray(view))

        return in_parallel(read, numbers, lambda number: tensors[number].nbytes)

    def _view(self, contents: PackContents | FileContents, number: int, check: Verify) -> memoryview:
        tensor = self.manifest.tensors[number]
        view = contents.slice(number, 0, tensor.nbytes)
        check(tensor, view)
        return view

    def verify_tensor(self, number: int, level: VerifyLevel) -> None:
        """Compare one tensor with what was written.

        Raises:
            DamagedCheckpointError: it is missing or another.
        """
        self._view(self._contents, number, get_verifier(level))

    def touch_tensor(self, number: int) -> None:
        """Make sure that a tensor's file is there and long enough to hold it.

        Raises:
            DamagedCheckpointError: it is not.
        """
        self._contents.reach(number)

    def _number(self, path: str) -> int:
        if path not in self._numbers:
            near = ", ".join(difflib.get_close_matches(path, self._numbers, 3, 0.3))
            raise InvalidInputError(f"checkpoint {self.id} has no tensor {path!r}; near it are {near or 'none'}")
        return self._numbers[path]

    def _leaf(self, number: int, info: LeafInfo, view: memoryview) -> Any:
        """Return bytes as what they were in the state: a numpy array or a torch tensor."""
        if number in self._arrays:
            return as_array(info, view)
        from ckptlake.checkpoints.formats.torch_tensors import as_tensor

        return as_tensor(info, view)

    @cached_property
    def _arrays(self) -> frozenset[int]:
        return frozenset(_array_leaves(self.manifest.tree)) if self.manifest.mentions_arrays else frozenset()

    def _info(self, number: int) -> LeafInfo:
        return info_of(self.manifest.tensors[number])


class TensorMapping(Mapping[str, Any]):
    """Tensors by path, each read when it is asked for."""

    def __init__(
        self, opened: OpenedCheckpoint, contents: PackContents | FileContents, paths: Sequence[str], check: Verify
    ) -> None:
        self._opened = opened
        self._contents = contents
        self._paths = dict.fromkeys(paths)
        self._check = check

    def __getitem__(self, path: str) -> Any:
        if path not in self._paths:
            raise KeyError(path)
        opened = self._opened
        number = opened._number(path)
        return opened._leaf(number, opened._info(number), opened._view(self._contents, number, self._check))

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def info_of(tensor: StoredTensor) -> LeafInfo:
    """Return what is needed to make a tensor of its bytes."""
    return LeafInfo(tensor.path, get_dtype(tensor.dtype), tensor.shape)


def _array_leaves(tree: object) -> Iterator[int]:
    """Yield the numbers of the leaves that are numpy arrays in a tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if isinstance(node.get("array"), int):
                yield node["array"]
            waiting += node.values()


def matches(path: str, pattern: str) -> bool:
    """Return whether a tensor's path, or its end behind a ``/``, matches a pattern as for file names."""
    if fnmatchcase(path, pattern):
        return True
    return any(fnmatchcase(path[place + 1 :], pattern) for place, sign in enumerate(path) if sign == "/")
