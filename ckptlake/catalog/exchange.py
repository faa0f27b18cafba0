"""Checkpoints compared with each other, and brought in from and out to other programs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptlake.catalog.finding import Finding, Which
from ckptlake.errors import InvalidInputError

if TYPE_CHECKING:
    import polars as pl

    from ckptlake.checkpoints.exporting import Exported
    from ckptlake.checkpoints.importing import Probe
    from ckptlake.checkpoints.opened import VerifyLevel
    from ckptlake.checkpoints.session import SavedCheckpoint
    from ckptlake.runs.run import Run

logger = logging.getLogger(__name__)
Source = str | os.PathLike[str] | tuple[str | os.PathLike[str], str]
"""A file, a folder, or another lake's directory with the id of a checkpoint in it."""


class Exchange(Finding):
    """The part of `lake.checkpoints` that exports, imports and compares."""

    def export(
        self,
        which: Which,
        path: str | os.PathLike[str],
        run: str | Run | None = None,
        *,
        format: str | None = None,
        part: str | None = None,
        only: str | Sequence[str] | None = None,
        verify: VerifyLevel = "digest",
        overwrite: bool = False,
        widen: bool = False,
    ) -> Exported:
        """Write a checkpoint as a file that other programs read.

        It appears at its path whole or not at all, and is durable on return. Tensors go from the lake's packs to the
        file one by one, so the memory that is needed does not depend on the size of the checkpoint.

        - ``.safetensors`` and ``.npz`` hold the tensors alone, without numbers and texts around them. They are named
          by their paths, with ``part`` by the keys of that part, as its own `state_dict` has them. Tied tensors are
          written under each of their names.
        - ``.pt``, ``.pth`` and ``.bin`` hold the whole state as ``torch.load(weights_only=True)`` reads it: numpy
          arrays become tensors, other values the closest plain ones.
        - ``dcp`` is a folder for ``torch.distributed.checkpoint.load``; its values are reduced in the same way.

        Args:
            which: an id, a step, an alias, ``latest``, ``best``.
            path: where to; its directory must exist.
            run: whose checkpoint.
            format: ``safetensors``, ``torch``, ``npz`` or ``dcp``; default what the suffix says.
            part: one entry of the state alone, such as ``model``.
            only: patterns of tensor paths, within the part if one is given.
            verify: compare every tensor read with its SHA-256 ("digest"), its checksums ("fast") or nothing (False).
            overwrite: replace what is at the path.
            widen: in an .npz store floating types that numpy lacks, such as bfloat16, as float32.

        Raises:
            CheckpointNotFoundError: none answers to `which`.
            DamagedCheckpointError: a tensor is not what was saved; the message names it, and nothing is written.
            InvalidInputError: something is at the path, there is no such part, or the format cannot hold a tensor.
            StorageError: the disk refused; nothing is left there.

        >>> import ckptlake, numpy as np, pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> lake = ckptlake.open(folder / "lake")
        >>> with lake.run(experiment="doc") as run:
        ...     saved = run.save_checkpoint({"model": {"weight": np.ones(3)}, "epoch": 1}, step=10)
        >>> exported = lake.checkpoints.export("latest", folder / "model.npz", part="model")
        >>> np.load(exported.path)["weight"]
        array([1., 1., 1.])
        """
        from ckptlake.checkpoints.exporting import ExportChoices, export

        choices = ExportChoices(part=part, only=only, verify=verify, overwrite=overwrite, widen=widen)
        return export(self._store, self._manifest_of(which, run), Path(path), format, choices)

    def import_(
        self,
        source: Source,
        run: Run,
        *,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        alias: str | None = None,
        note: str | None = None,
        format: str = "packed",
        allow_unsafe: bool = False,
    ) -> SavedCheckpoint:
        """Save what another program has written as a checkpoint of a run.

        Read are files of safetensors, of ``torch.save`` (states, Lightning's ``.ckpt``, modules saved whole, of which
        the weights are taken) and of ``numpy.savez``; folders of Hugging Face, sharded or not; folders of
        ``torch.distributed.checkpoint``; and checkpoints of other lakes. Files are told apart by what they hold.
        They are mapped, not read into memory, and must not change meanwhile. Nothing in them is run; where beside the
        weights a Lightning checkpoint holds code, such as classes among its hyperparameters, their names are kept as
        text and a warning is logged.

        Args:
            source: a file, a folder, or ``(directory of a lake, checkpoint id)``.
            run: the open run to save it in.
            step: default what the file tells.
            epoch: default what the file tells.
            metrics: values to find it by; default those it had in the other lake.
            alias: a name of your own.
            note: a text to keep; default one that tells where it comes from.
            format: as in `run.save_checkpoint`.
            allow_unsafe: let a file of torch run the code it names; only for files of people you trust.

        Raises:
            NotFoundError: there is no such file.
            UnsafeFileError: it could only be read by running code, or claims more than its size can explain.
            DamagedCheckpointError: it is cut or malformed.
            InvalidInputError: it is nothing that can be imported, or holds what a checkpoint cannot keep.
            MissingDependencyError: reading it needs torch.
        """
        from ckptlake.checkpoints.foreign.scratch import Scratch
        from ckptlake.checkpoints.importing import read_foreign

        if isinstance(run, str) or not hasattr(run, "save_checkpoint"):
            raise InvalidInputError(f"import_ saves into an open run, got {run!r:.60}: with lake.run(...) as run: ...")
        self._store.prepare()
        path = _path_of(source)
        found = read_foreign(path, Scratch(self._store.layout.blobs), allow_unsafe=allow_unsafe)
        if found.left_out:
            logger.warning(
                "%s names code that was not loaded: %s; it is left out, or kept as text",
                path,
                ", ".join(found.left_out),
            )
        return run.save_checkpoint(
            found.read(),
            step=found.step if step is None else step,
            epoch=found.epoch if epoch is None else epoch,
            metrics=(found.metrics or None) if metrics is None else metrics,
            alias=alias,
            note=(found.note or f"imported from {path.name[:200]} ({found.kind})") if note is None else note,
            format=format,
        )

    def probe(self, path: str | os.PathLike[str]) -> Probe:
        """Tell what a file or folder is that could be imported; no tensor is read, nothing in it is run.

        Raises:
            NotFoundError: there is none.
            InvalidInputError: it is nothing that can be imported.
            UnsafeFileError: it could only be read by running code, or claims more than its size can explain.
            DamagedCheckpointError: it is cut or malformed.
        """
        from ckptlake.checkpoints.importing import probe

        return probe(path)

    def diff(self, a: Which, b: Which, run: str | Run | None = None) -> pl.DataFrame:
        """Compare two checkpoints tensor by tensor, from their bytes.

        Args:
            a: the checkpoint before.
            b: the checkpoint after.
            run: whose, where steps and aliases are given.

        Returns:
            One row a tensor path, largest relative change first: ``path``, ``in_a``, ``in_b``, ``dtype_a``,
            ``dtype_b``, ``shape_a``, ``shape_b``, ``is_same`` (the same type, shape and bytes), ``norm_a`` and
            ``norm_b`` (of the finite elements), ``l2_distance``, ``cosine_similarity``, and ``relative_change``, the
            distance over the norm of `a`. Distances are null where a tensor is in one of both alone, or has another
            type or shape in the other, and are taken over positions where both are finite.

        Raises:
            CheckpointNotFoundError: none answers to `a` or `b`.
            DamagedCheckpointError: bytes of a tensor are missing.
        """
        from ckptlake.checkpoints.comparison import compare

        return compare(self._store, self._manifest_of(a, run), self._manifest_of(b, run))

    def by_layer(self, frame: pl.DataFrame, depth: int = 2) -> pl.DataFrame:
        """Return what `diff` has found, by the first `depth` levels of the tensors' paths, split at ``/`` and ``.``."""
        from ckptlake.checkpoints.comparison import by_layer

        return by_layer(frame, depth)


def _path_of(source: Source) -> Path:
    if isinstance(source, tuple):
        lake, checkpoint_id = source
        return Path(lake) / "checkpoints" / f"{checkpoint_id}.json"
    return Path(source)
