"""Training losses: one term for the rotation, one for the translation."""

from typing import Literal

from torch import Tensor

from .data import Views
from .geometry import normalise, quaternion_to_matrix
from .metrics import geodesic_angle
from .model import Pose

RotationLoss = Literal["chordal", "geodesic"]


def chordal_loss(raw_quaternion: Tensor, truth: Tensor) -> Tensor:
    """Mean squared chord to the nearer of `q` and `-q`, which are one rotation; 0-d.

    Args:
        raw_quaternion: `(N, 4)`, of any norm.
        truth: `(N, 4)`, unit.
    """
    cosine = (normalise(raw_quaternion) * truth).sum(-1).abs()
    return (2 - 2 * cosine).mean()


def geodesic_loss(rotation: Tensor, truth: Tensor) -> Tensor:
    """Mean angle in radians between rotations of shape `(N, 3, 3)`; 0-d."""
    return geodesic_angle(rotation, truth).mean()


def translation_loss(translation: Tensor, truth: Tensor) -> Tensor:
    """Mean squared translation error as a share of the distance, over `(N, 3)` metres; 0-d, no unit."""
    return ((translation - truth) / truth[:, 2:]).square().sum(-1).mean()


def pose_loss(pose: Pose, views: Views, kind: RotationLoss) -> Tensor:
    """Rotation loss plus translation loss; 0-d. Values of different kinds are not comparable."""
    if kind == "chordal":
        rotation = chordal_loss(pose.raw, views.quaternion)
    else:
        rotation = geodesic_loss(pose.rotation, quaternion_to_matrix(views.quaternion))
    return rotation + translation_loss(pose.translation, views.translation)
