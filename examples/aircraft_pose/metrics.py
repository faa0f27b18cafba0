"""How far a predicted pose is from the truth."""

import torch
from torch import Tensor

from .geometry import KEYPOINTS, transform

_SINE_FLOOR = 1e-6


def geodesic_angle(rotation: Tensor, truth: Tensor) -> Tensor:
    """Angle of the rotation that leads from one rotation to another.

    The arc cosine of the trace loses its digits and its gradient near 0 and 180 degrees; the arc tangent of
    sine and cosine keeps both. The sine has a floor of 1e-6, so equal rotations are 6e-5 degrees apart.

    Args:
        rotation: `(..., 3, 3)`.
        truth: `(..., 3, 3)`.

    Returns:
        Angles in radians within `(0, pi)`, shape `(...)`.
    """
    relative = rotation.transpose(-1, -2) @ truth
    axis = torch.stack(
        [
            relative[..., 2, 1] - relative[..., 1, 2],
            relative[..., 0, 2] - relative[..., 2, 0],
            relative[..., 1, 0] - relative[..., 0, 1],
        ],
        dim=-1,
    )
    sine = (axis.square().sum(-1) / 4 + _SINE_FLOOR**2).sqrt()
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def translation_error(translation: Tensor, truth: Tensor) -> Tensor:
    """Distance between translations of shape `(..., 3)`, in their unit; shape `(...)`."""
    return _length(translation - truth)


def average_distance(rotation: Tensor, translation: Tensor, true_rotation: Tensor, true_translation: Tensor) -> Tensor:
    """ADD: mean distance between the keypoints under the predicted and under the true pose.

    Hinterstoisser et al., "Model Based Training, Detection and Pose Estimation of Texture-Less 3D Objects in
    Heavily Cluttered Scenes", ACCV 2012.

    Args:
        rotation, true_rotation: `(..., 3, 3)`.
        translation, true_translation: `(..., 3)`, metres.

    Returns:
        Metres, shape `(...)`.
    """
    predicted = transform(KEYPOINTS, rotation, translation)
    actual = transform(KEYPOINTS, true_rotation, true_translation)
    return _length(predicted - actual).mean(-1)


def norm_drift(raw_quaternion: Tensor) -> Tensor:
    """Mean distance of raw quaternions, `(N, 4)`, from unit norm; 0-d."""
    return (_length(raw_quaternion) - 1).abs().mean()


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length
