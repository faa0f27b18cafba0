"""What a repair would do, as values that can be read before anything is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ckptlake.checkpoints.manifest import Manifest
from ckptlake.integrity.copies import Copy
from ckptlake.integrity.pieces import Piece

_NAMED = 8


@dataclass(frozen=True, slots=True)
class RestoreManifest:
    """Put a manifest where there is none, or a damaged one.

    Attributes:
        origin: where the manifest was found.
    """

    checkpoint_id: str
    manifest: Manifest
    origin: str

    def sentence(self) -> str:
        return f"restore the manifest of checkpoint {self.checkpoint_id} from {self.origin}"


@dataclass(frozen=True, slots=True)
class MendPack:
    """Write a pack anew with what is damaged in it taken from copies; without any, its header alone is damaged.

    Attributes:
        copies: the damaged pieces that were found elsewhere, and where.
        lost: those that were found nowhere; they stay as they are.
    """

    pack: str
    copies: tuple[tuple[Piece, Copy], ...]
    lost: tuple[Piece, ...] = ()

    def sentence(self) -> str:
        if not self.copies:
            return f"write the header of {self.pack} anew"
        places = list(dict.fromkeys(str(copy) for _, copy in self.copies))
        return f"mend {counted(len(self.copies), 'tensor')} in {self.pack} with the bytes found in {named(places)}"


@dataclass(frozen=True, slots=True)
class RebuildFile:
    """Compute a file anew from its parity.

    Attributes:
        pieces: those that are damaged in it.
    """

    path: Path
    parity: Path
    pieces: tuple[Piece, ...]

    def sentence(self) -> str:
        return f"rebuild {self.path} from its parity"


@dataclass(frozen=True, slots=True)
class RestoreFile:
    """Put a copy of a plain format's file in the place of a damaged or missing one."""

    path: Path
    source: Path
    piece: Piece

    def sentence(self) -> str:
        return f"restore {self.path} from {self.source}"


@dataclass(frozen=True, slots=True)
class Adopt:
    """List a checkpoint that is whole and that no row tells of."""

    checkpoint_id: str

    def sentence(self) -> str:
        return f"list checkpoint {self.checkpoint_id}, which is whole and which no row tells of"


@dataclass(frozen=True, slots=True)
class SetAside:
    """Move the manifest of a checkpoint that is neither listed nor whole out of the way."""

    checkpoint_id: str
    reason: str

    def sentence(self) -> str:
        return (
            f"move the manifest of checkpoint {self.checkpoint_id}, which no row tells of, to quarantine: {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class Release:
    """Take a checkpoint, of which every byte is right, out of quarantine."""

    checkpoint_id: str

    def sentence(self) -> str:
        return f"release checkpoint {self.checkpoint_id} from quarantine: every byte of it is right"


Action = RestoreManifest | MendPack | RebuildFile | RestoreFile | Adopt | SetAside | Release


@dataclass(frozen=True, slots=True)
class Loss:
    """What of a checkpoint was found nowhere.

    Attributes:
        finding: what is wrong.
        tensors: paths of the tensors that are lost.
        num_left: how many tensors are left.
    """

    checkpoint_id: str
    finding: str
    tensors: tuple[str, ...]
    num_left: int = 0

    def sentence(self) -> str:
        """Return it in words.

        >>> Loss("c1", "the pack blobs/c1.* is missing", ("a", "b"), num_left=1).sentence()
        'of checkpoint c1 are lost: a, b (the pack blobs/c1.* is missing); `salvage()` of it loads the 1 tensor left'
        """
        what = named(self.tensors) if self.tensors and self.num_left else "all its tensors"
        rest = f"; `salvage()` of it loads the {counted(self.num_left, 'tensor')} left" if self.num_left else ""
        return f"of checkpoint {self.checkpoint_id} are lost: {what} ({self.finding}){rest}"


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What a repair would do and what it cannot save; nothing has been changed.

    Attributes:
        examined: how many checkpoints were looked at, every byte of them.
        actions: what is to be done, in order.
        losses: what was found nowhere.
        concerned: the checkpoints to verify afterwards.
    """

    examined: int
    actions: tuple[Action, ...] = ()
    losses: tuple[Loss, ...] = ()
    concerned: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to repair and nothing lost."""
        return not self.actions and not self.losses

    def sentences(self) -> list[str]:
        """Return it in words, a sentence each."""
        return [*(action.sentence() for action in self.actions), *(loss.sentence() for loss in self.losses)]

    def __str__(self) -> str:
        """Return all sentences, one a line.

        >>> print(RepairPlan(2, (Adopt("c1"),), (Loss("c2", "its manifest is missing", ()),)))
        list checkpoint c1, which is whole and which no row tells of
        of checkpoint c2 are lost: all its tensors (its manifest is missing)
        >>> print(RepairPlan(2))
        2 checkpoints were examined and are whole
        """
        if self.is_empty:
            return f"{counted(self.examined, 'checkpoint')} {'was' if self.examined == 1 else 'were'} examined and " + (
                "is whole" if self.examined == 1 else "are whole"
            )
        return "\n".join(self.sentences())


def counted(count: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "tensor"), counted(1200, "tensor")
    ('1 tensor', '1,200 tensors')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def named(names: list[str] | tuple[str, ...]) -> str:
    """Return names as a list in words, the first few of many.

    >>> named(("a", "b")), named([str(n) for n in range(10)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7 and 2 more')
    """
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"
