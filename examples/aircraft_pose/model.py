"""A residual MLP from keypoints to a pose, with a choice of rotation head."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .geometry import KEYPOINTS, normalise, quaternion_to_matrix, sixd_to_matrix

RotationHead = Literal["quaternion", "sixd"]

_HEAD_SIZE: dict[RotationHead, int] = {"quaternion": 4, "sixd": 6}

# Rough scales of the views, so that inputs and first guesses are of order one.
_RADIUS_M = 8.0
_CENTRE = 0.25
_SPREAD = 0.08


class Pose(NamedTuple):
    """A batch of predicted poses.

    Attributes:
        raw: what the rotation head gave: `(N, 4)`, a quaternion of any norm, or `(N, 6)`, a 6-D code.
        rotation: `(N, 3, 3)`, the rotation that `raw` stands for.
        translation: `(N, 3)`, metres, in the camera frame.
    """

    raw: Tensor
    rotation: Tensor
    translation: Tensor


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.outer(nn.functional.silu(self.inner(self.norm(x))))
        return x + update


class PoseNet(nn.Module):
    """Residual MLP that sees the keypoints relative to their own centre and spread.

    Args:
        width: units in every layer.
        depth: residual blocks, two layers each.
        head: `"quaternion"` for four numbers normalised to a unit quaternion, `"sixd"` for Zhou's 6-D code.
    """

    def __init__(self, *, width: int, depth: int, head: RotationHead) -> None:
        super().__init__()
        self.head = head
        self.stem = nn.Linear(3 * len(KEYPOINTS) + 3, width)
        self.blocks = nn.Sequential(*[_Residual(width) for _ in range(depth)], nn.LayerNorm(width))
        self.rotation = nn.Linear(width, _HEAD_SIZE[head])
        self.translation = nn.Linear(width, 3)

    def forward(self, features: Tensor) -> Pose:
        """Predict a pose from `features` of shape `(N, 3 * K)`, as `Views.features` holds them."""
        crop, centre, spread = _crop(features)
        scaled = torch.cat([crop, centre / _CENTRE, (spread / _SPREAD).log()], dim=-1)
        hidden = self.blocks(self.stem(scaled))
        raw: Tensor = self.rotation(hidden)
        rotation = quaternion_to_matrix(normalise(raw)) if self.head == "quaternion" else sixd_to_matrix(raw)
        return Pose(raw, rotation, _place(self.translation(hidden), centre, spread))


def _crop(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split keypoints into what a crop around the aircraft shows, and where and how large the crop is.

    Returns:
        The visible keypoints relative to their centre in units of their spread, with the visibility flags,
        `(N, 3 * K)`; the centre, `(N, 2)`, and the spread (root mean square distance from it), `(N, 1)`, both
        in normalised image coordinates.
    """
    keypoints = features.view(-1, len(KEYPOINTS), 3)
    image, visible = keypoints[..., :2], keypoints[..., 2:]
    count = visible.sum(1).clamp_min(1)
    centre = (image * visible).sum(1) / count
    offset = (image - centre.unsqueeze(1)) * visible
    spread = (offset.square().sum((1, 2)) / count.squeeze(1)).sqrt().clamp_min(1e-3).unsqueeze(1)
    return torch.cat([offset / spread.unsqueeze(1), visible], dim=-1).flatten(1), centre, spread


def _place(code: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """Turn an offset in the crop and a log size, `(N, 3)`, into a translation in metres, `(N, 3)`.

    Distance is inverse to apparent size, so the network only has to learn how the apparent size depends on
    the attitude.
    """
    distance = _RADIUS_M * code[:, 2:].exp() / spread
    ray = centre + spread * code[:, :2]
    return torch.cat([ray * distance, distance], dim=-1)
