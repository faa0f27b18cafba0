"""Aircraft keypoints, unit quaternions, rotations and the pinhole camera.

Frames: the aircraft's body frame has x forward, y to starboard, z down; the camera frame has x right, y down,
z along the optical axis. A pose takes body to camera, `point_camera = R @ point_body + t`. Quaternions are
Hamilton's, scalar first, `(w, x, y, z)`.
"""

import torch
from torch import Tensor

KEYPOINTS_M: dict[str, tuple[float, float, float]] = {
    "nose": (15.0, 0.0, 0.3),
    "cockpit roof": (11.5, 0.0, -1.6),
    "belly": (-1.0, 0.0, 2.0),
    "tail cone": (-15.0, 0.0, -0.9),
    "port wing root": (5.0, -1.8, 1.2),
    "starboard wing root": (5.0, 1.8, 1.2),
    "port wing tip": (-3.0, -14.0, -0.6),
    "starboard wing tip": (-3.0, 14.0, -0.6),
    "port engine": (4.5, -4.8, 2.2),
    "starboard engine": (4.5, 4.8, 2.2),
    "fin root": (-8.5, 0.0, -2.0),
    "fin tip": (-14.5, 0.0, -7.5),
    "port stabilizer tip": (-14.5, -5.5, -1.5),
    "starboard stabilizer tip": (-14.5, 5.5, -1.5),
}
"""Keypoints of a twin-engine regional jet in its body frame, metres: 30 m long, 28 m span."""

KEYPOINTS = torch.tensor(list(KEYPOINTS_M.values()), dtype=torch.float32)
"""The same keypoints as a float32 tensor of shape `(K, 3)`, metres."""


def random_unit_quaternions(count: int, generator: torch.Generator) -> Tensor:
    """Draw rotations uniformly over SO(3).

    A normal vector in four dimensions has a uniform direction (Muller, 1959), and the uniform measure on unit
    quaternions is the Haar measure on rotations.

    Returns:
        Unit quaternions, shape `(count, 4)`, float32.
    """
    return normalise(torch.randn(count, 4, generator=generator))


def normalise(vectors: Tensor) -> Tensor:
    """Scale vectors of shape `(..., D)` to unit length; a zero vector stays zero."""
    return torch.nn.functional.normalize(vectors, dim=-1)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Turn unit quaternions of shape `(..., 4)` into rotation matrices of shape `(..., 3, 3)`."""
    w, x, y, z = quaternion.unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def sixd_to_matrix(sixd: Tensor) -> Tensor:
    """Turn 6-D rotation codes of shape `(..., 6)` into rotation matrices of shape `(..., 3, 3)`.

    The code holds the first two columns, made orthonormal by Gram-Schmidt; the third is their cross product
    (Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019).
    """
    first = normalise(sixd[..., :3])
    second = sixd[..., 3:]
    second = normalise(second - (first * second).sum(-1, keepdim=True) * first)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def transform(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Take body-frame points into the camera frame.

    Args:
        points: `(K, 3)`, metres.
        rotation: `(..., 3, 3)`.
        translation: `(..., 3)`, metres.

    Returns:
        Camera-frame points, shape `(..., K, 3)`, metres.
    """
    return points @ rotation.transpose(-1, -2) + translation.unsqueeze(-2)


def project(points: Tensor) -> Tensor:
    """Project camera-frame points through a pinhole of unit focal length.

    Args:
        points: `(..., 3)`, metres, in front of the camera (`z > 0`).

    Returns:
        Normalised image coordinates `(x / z, y / z)`, shape `(..., 2)`, no unit.
    """
    return points[..., :2] / points[..., 2:]
