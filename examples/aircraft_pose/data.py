"""Synthetic views of the aircraft: what a keypoint detector would report, and the pose behind it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import KEYPOINTS, project, quaternion_to_matrix, random_unit_quaternions, transform

DISTANCE_M = (60.0, 140.0)
"""Nearest and farthest aircraft along the optical axis, metres."""

FIELD = 0.25
"""Largest offset of the aircraft from the image centre, in normalised image coordinates (14 degrees)."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How a keypoint detector errs.

    Attributes:
        sigma: standard deviation of each coordinate, in normalised image coordinates (pixels over focal
            length).
        dropout: probability that a keypoint is not seen at all.
    """

    sigma: float = 0.002
    dropout: float = 0.1


@dataclass(frozen=True, slots=True)
class Views:
    """Views of the aircraft with their true poses; all float32.

    Attributes:
        features: `(N, 3 * K)`; for each keypoint its two noisy normalised image coordinates, then 1 if it is
            visible. A keypoint that is not visible is `(0, 0, 0)`.
        quaternion: `(N, 4)`, unit, scalar first.
        translation: `(N, 3)`, metres, in the camera frame.
    """

    features: Tensor
    quaternion: Tensor
    translation: Tensor

    def __len__(self) -> int:
        return len(self.features)


def make_views(count: int, *, seed: int, noise: Noise) -> Views:
    """Draw `count` views: uniform rotations and distances, Gaussian keypoint noise, missing keypoints."""
    generator = torch.Generator().manual_seed(seed)
    quaternion = random_unit_quaternions(count, generator)
    translation = _random_translations(count, generator)
    image = project(transform(KEYPOINTS, quaternion_to_matrix(quaternion), translation))
    image = image + noise.sigma * torch.randn(image.shape, generator=generator)
    visible = (torch.rand(count, len(KEYPOINTS), 1, generator=generator) >= noise.dropout).float()
    features = torch.cat([image * visible, visible], dim=-1)
    return Views(features.flatten(1), quaternion, translation)


def _random_translations(count: int, generator: torch.Generator) -> Tensor:
    nearest, farthest = DISTANCE_M
    distance = nearest + (farthest - nearest) * torch.rand(count, 1, generator=generator)
    offset = FIELD * (2 * torch.rand(count, 2, generator=generator) - 1)
    return torch.cat([offset * distance, distance], dim=-1)
