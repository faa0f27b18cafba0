"""Train one pose network, log its curves to a run and save checkpoints to go on from."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from .data import Noise, Views, make_views
from .geometry import quaternion_to_matrix
from .losses import RotationLoss, pose_loss
from .metrics import average_distance, geodesic_angle, norm_drift, translation_error
from .model import PoseNet, RotationHead

VALIDATION_SEED = 1_000_003
"""Every run is judged on the same views, so this seed belongs to no configuration."""

VALIDATION_METRICS: dict[str, Literal["min", "max"]] = {
    "val/loss": "min",
    "val/rotation_deg_median": "min",
    "val/rotation_under_5deg": "max",
    "val/rotation_under_10deg": "max",
    "val/translation_m_median": "min",
    "val/add_m": "min",
}
"""What each evaluation logs, and which direction is better."""

CLIP_NORM = 1.0
WARMUP = 0.05


class Checkpoint(Protocol):
    """What training asks of a checkpoint that it goes on from."""

    @property
    def step(self) -> int | None:
        """The step it was saved at."""

    def __getitem__(self, part: str, /) -> Any:
        """Return a part of the state."""


class Run(Protocol):
    """What training asks of the run it logs to."""

    def define(self, name: str, /, *, direction: Literal["min", "max"], step_metric: str) -> object:
        """Say which direction of a metric is better, and which metric its curve is drawn over."""

    def log(self, values: Mapping[str, float | Tensor], /, *, step: int) -> object:
        """Record values at a step; tensors are 0-d."""

    def save_checkpoint(
        self, *, step: int, epoch: int, optimizer: object, rng: bool, async_: Literal[True], **parts: object
    ) -> object:
        """Save the parts of a training in the background; they may change once the optimizer's next step begins."""

    def load_checkpoint(self, which: str, /, *, into: Mapping[str, object], rng: bool) -> Checkpoint:
        """Put a checkpoint's parts into the objects that they came from, and set the random generators back."""


@dataclass(frozen=True, slots=True)
class Config:
    """One training, reproducible from its values on one machine.

    Attributes:
        name: of the configuration; runs that differ only in `seed` share it.
        head: rotation representation that the network gives.
        loss: rotation loss; `"chordal"` needs the `"quaternion"` head.
        seed: of the weights, the training views and their order.
        lr: peak learning rate, reached after the first 5 % of the steps, then down to 0 along a cosine.
        weight_decay: of AdamW.
        width, depth: units and residual blocks of the network.
        epochs: passes over the training views.
        batch_size: views a step.
        train_views, val_views: how many views to draw.
        noise: of the keypoints, in training and in validation.
    """

    name: str
    head: RotationHead
    loss: RotationLoss
    seed: int = 0
    lr: float = 2e-3
    weight_decay: float = 1e-4
    width: int = 128
    depth: int = 2
    epochs: int = 25
    batch_size: int = 256
    train_views: int = 16_384
    val_views: int = 2_048
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self) -> None:
        if self.loss == "chordal" and self.head != "quaternion":
            raise ValueError(f"loss 'chordal' needs quaternions, head is {self.head!r}: use loss 'geodesic'")
        if self.batch_size > self.train_views:
            raise ValueError(f"no batch is full: batch_size {self.batch_size}, train_views {self.train_views}")

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch; a last batch that is not full is left out."""
        return self.train_views // self.batch_size


QUATERNION_MLP = Config(name="quaternion-mlp", head="quaternion", loss="chordal")
SIXD_MLP = Config(name="sixd-mlp", head="sixd", loss="geodesic")


def train(
    run: Run, config: Config, *, resume_from: str | None = None, on_epoch: Callable[[int], object] | None = None
) -> None:
    """Train a network as `config` says, log its curves, and save a checkpoint after each epoch.

    After every optimiser step it logs `train/loss`, `train/lr`, `train/grad_norm` (before clipping) and, with
    the quaternion head, `train/quat_norm_drift`; before the first epoch and after each one, `epoch` and the
    `VALIDATION_METRICS`. Steps count optimiser steps; tensors are logged 0-d and detached.

    A checkpoint holds the model, the optimizer, the schedule, the generator of the views' order and the global
    random generators. A training that goes on from one ends bit for bit where it would have ended without the
    interruption.

    Args:
        run: where to log and save.
        config: what to train.
        resume_from: the checkpoint of the run to go on from, such as ``latest_good``; None to start anew.
        on_epoch: told the number of each finished epoch, from 1.
    """
    for name, direction in VALIDATION_METRICS.items():
        run.define(name, direction=direction, step_metric="epoch")

    training = make_views(config.train_views, seed=config.seed, noise=config.noise)
    validation = make_views(config.val_views, seed=VALIDATION_SEED, noise=config.noise)
    parts = _Parts.new(config)
    net, optimizer, schedule = parts.net, parts.optimizer, parts.schedule
    weights = list(net.parameters())

    if resume_from is None:
        step = 0
        run.log({"epoch": 0, **evaluate(net, validation, config.loss)}, step=step)
    else:
        step = parts.load(run, resume_from)
    for epoch in range(step // config.steps_per_epoch + 1, config.epochs + 1):
        for batch in _batches(training, config.batch_size, parts.order):
            pose = net(batch.features)
            loss = pose_loss(pose, batch, config.loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            grad_norm = torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)
            values = {
                "train/loss": loss.detach(),
                "train/lr": schedule.get_last_lr()[0],
                "train/grad_norm": grad_norm,
            }
            if config.head == "quaternion":
                values["train/quat_norm_drift"] = norm_drift(pose.raw.detach())
            optimizer.step()
            schedule.step()
            step += 1
            run.log(values, step=step)
        run.log({"epoch": epoch, **evaluate(net, validation, config.loss)}, step=step)
        parts.save(run, step, epoch)
        if on_epoch is not None:
            on_epoch(epoch)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Everything that a training needs to go on exactly where it stopped."""

    net: PoseNet
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    order: torch.Generator

    @classmethod
    def new(cls, config: Config) -> "_Parts":
        net = build(config)
        total_steps = config.epochs * config.steps_per_epoch
        optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, total_steps))
        return cls(net, optimizer, schedule, torch.Generator().manual_seed(config.seed))

    def save(self, run: Run, step: int, epoch: int) -> None:
        run.save_checkpoint(
            model=self.net,
            optimizer=self.optimizer,
            schedule=self.schedule,
            order=self.order.get_state(),
            rng=True,
            step=step,
            epoch=epoch,
            async_=True,
        )

    def load(self, run: Run, which: str) -> int:
        """Take a checkpoint's parts over and return the step it was saved at."""
        into = {"model": self.net, "optimizer": self.optimizer, "schedule": self.schedule}
        checkpoint = run.load_checkpoint(which, into=into, rng=True)
        self.order.set_state(checkpoint["order"])
        assert checkpoint.step is not None
        return checkpoint.step


def build(config: Config) -> PoseNet:
    """Make the network with weights drawn by `config.seed`; the caller's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return PoseNet(width=config.width, depth=config.depth, head=config.head)


def lr_factor(step: int, total_steps: int) -> float:
    """Share of the peak learning rate at a step, from 0: a linear warm-up, then a cosine to 0."""
    warmup_steps = max(1, round(WARMUP * total_steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@torch.no_grad()
def evaluate(net: PoseNet, views: Views, loss: RotationLoss) -> dict[str, Tensor]:
    """Judge a network on views.

    Returns:
        The `VALIDATION_METRICS` as 0-d tensors: degrees, shares from 0 to 1, and metres. `val/add_m` is the
        mean over the views.
    """
    pose = net(views.features)
    truth = quaternion_to_matrix(views.quaternion)
    degrees = geodesic_angle(pose.rotation, truth).rad2deg()
    return {
        "val/loss": pose_loss(pose, views, loss),
        "val/rotation_deg_median": degrees.median(),
        "val/rotation_under_5deg": (degrees < 5).float().mean(),
        "val/rotation_under_10deg": (degrees < 10).float().mean(),
        "val/translation_m_median": translation_error(pose.translation, views.translation).median(),
        "val/add_m": average_distance(pose.rotation, pose.translation, truth, views.translation).mean(),
    }


def _batches(views: Views, size: int, order: torch.Generator) -> Iterator[Views]:
    count = len(views) // size
    shuffled = torch.randperm(len(views), generator=order)[: count * size]
    for chosen in shuffled.view(count, size).unbind():
        yield Views(views.features[chosen], views.quaternion[chosen], views.translation[chosen])
