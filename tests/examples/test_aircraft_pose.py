"""The aircraft pose example: its geometry against independent formulas, its data, and that it learns."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from examples.aircraft_pose.data import DISTANCE_M, FIELD, Noise, make_views
from examples.aircraft_pose.geometry import (
    KEYPOINTS,
    KEYPOINTS_M,
    project,
    quaternion_to_matrix,
    random_unit_quaternions,
    sixd_to_matrix,
    transform,
)
from examples.aircraft_pose.losses import chordal_loss, geodesic_loss, translation_loss
from examples.aircraft_pose.metrics import average_distance, geodesic_angle, norm_drift, translation_error
from examples.aircraft_pose.model import PoseNet, RotationHead
from examples.aircraft_pose.train import (
    QUATERNION_MLP,
    SIXD_MLP,
    VALIDATION_METRICS,
    Config,
    lr_factor,
    train,
)

Array = npt.NDArray[np.float64]

ANGLES_DEG = (0.0, 1e-2, 1.0, 30.0, 90.0, 135.0, 179.0, 179.99, 180.0)


class RecordingRun:
    """Keeps what training logs."""

    def __init__(self) -> None:
        self.defined: dict[str, tuple[str, str]] = {}
        self.logged: list[tuple[int, dict[str, float | Tensor]]] = []
        self.saved: list[tuple[int, int, set[str]]] = []

    def define(self, name: str, *, direction: str, step_metric: str) -> None:
        self.defined[name] = (direction, step_metric)

    def log(self, values: Mapping[str, float | Tensor], *, step: int) -> None:
        self.logged.append((step, dict(values)))

    def save_checkpoint(self, *, step: int, epoch: int, **parts: object) -> None:
        self.saved.append((step, epoch, set(parts)))

    def load_checkpoint(self, which: str, *, into: Mapping[str, object], rng: bool) -> NoReturn:
        raise AssertionError(f"a training that starts anew loads nothing, not {which!r}")

    def curve(self, metric: str) -> list[tuple[int, float]]:
        return [(step, float(values[metric])) for step, values in self.logged if metric in values]

    def metrics(self) -> set[str]:
        return {metric for _, values in self.logged for metric in values}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rodrigues(axis: Array, angle: float) -> Array:
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Array = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return rotation


def axis_angle_quaternion(axis: Array, angle: float) -> Array:
    return np.array([math.cos(angle / 2), *(math.sin(angle / 2) * axis)])


def hamilton(p: Array, q: Array) -> Array:
    vector = p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:])
    return np.array([p[0] * q[0] - p[1:] @ q[1:], *vector])


def random_axis(rng: np.random.Generator) -> Array:
    axis = rng.normal(size=3)
    unit: Array = axis / np.linalg.norm(axis)
    return unit


def rotation_by(degrees: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random rotation, and another that many degrees from it about a random axis; float64."""
    rng = np.random.default_rng(seed)
    start = rodrigues(random_axis(rng), rng.uniform(0, math.pi))
    return torch.tensor(start), torch.tensor(start @ rodrigues(random_axis(rng), math.radians(degrees)))


# Geometry


def test_quaternions_compose_as_rodrigues_rotations_do() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        (a, alpha), (b, beta) = ((random_axis(rng), rng.uniform(-math.pi, math.pi)) for _ in range(2))
        product = hamilton(axis_angle_quaternion(a, alpha), axis_angle_quaternion(b, beta))
        expected = rodrigues(a, alpha) @ rodrigues(b, beta)
        np.testing.assert_allclose(quaternion_to_matrix(torch.tensor(product)).numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(quaternion_to_matrix(torch.tensor(-product)).numpy(), expected, atol=1e-12)


def test_a_quarter_turn_of_yaw_takes_the_nose_to_starboard() -> None:
    half = math.sqrt(0.5)
    yaw = quaternion_to_matrix(torch.tensor([half, 0.0, 0.0, half]))
    torch.testing.assert_close(yaw @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))


def test_random_rotations_are_unit_and_follow_the_haar_measure() -> None:
    count = 40_000
    quaternions = random_unit_quaternions(count, torch.Generator().manual_seed(0))
    torch.testing.assert_close(quaternions.norm(dim=-1), torch.ones(count))
    angle = geodesic_angle(quaternion_to_matrix(quaternions), torch.eye(3))
    for theta in (0.5, 1.0, 2.0, 2.5, 3.0):
        expected = (theta - math.sin(theta)) / math.pi
        deviation = math.sqrt(expected * (1 - expected) / count)
        assert (angle < theta).double().mean().item() == pytest.approx(expected, abs=5 * deviation)


def test_sixd_code_of_a_rotation_gives_it_back_at_any_scale() -> None:
    rotation = quaternion_to_matrix(random_unit_quaternions(100, torch.Generator().manual_seed(2)))
    first, second = rotation[..., 0], rotation[..., 1]
    code = torch.cat([3.0 * first, 0.5 * second + 2.0 * first], dim=-1)
    torch.testing.assert_close(sixd_to_matrix(code), rotation, atol=1e-5, rtol=0)


def test_any_sixd_code_becomes_a_proper_rotation() -> None:
    generator = torch.Generator().manual_seed(3)
    rotation = sixd_to_matrix(torch.randn(200, 6, generator=generator, dtype=torch.float64))
    identity = torch.eye(3, dtype=torch.float64).expand(200, 3, 3)
    torch.testing.assert_close(rotation.mT @ rotation, identity, atol=1e-10, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(200, dtype=torch.float64))


def test_projection_by_hand() -> None:
    # A quarter turn about the optical axis takes (1, 2, 3) to (-2, 1, 3); the shift makes it (2, 6, 10).
    rotation = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    seen = transform(torch.tensor([[1.0, 2.0, 3.0]]), rotation, torch.tensor([4.0, 5.0, 7.0]))
    torch.testing.assert_close(seen, torch.tensor([[2.0, 6.0, 10.0]]))
    torch.testing.assert_close(project(seen), torch.tensor([[0.2, 0.6]]))


def test_the_keypoints_tell_up_from_down_and_port_from_starboard() -> None:
    spread = torch.linalg.svdvals(KEYPOINTS - KEYPOINTS.mean(0))
    assert spread[2] > 0.15 * spread[0], "nearly flat keypoints leave two poses that look alike"
    upside_down = KEYPOINTS * torch.tensor([1.0, 1.0, -1.0])
    assert torch.cdist(upside_down, KEYPOINTS).min(1).values.max() > 5
    for name, (x, y, z) in KEYPOINTS_M.items():
        if name.startswith("port"):
            assert KEYPOINTS_M[name.replace("port", "starboard")] == (x, -y, z)
            assert y < 0


# Metrics and losses


@pytest.mark.parametrize("degrees", ANGLES_DEG)
def test_geodesic_angle_of_known_rotations(degrees: float) -> None:
    start, end = rotation_by(degrees)
    assert geodesic_angle(start, end).rad2deg().item() == pytest.approx(degrees, abs=1e-4)
    assert geodesic_angle(end, start).rad2deg().item() == pytest.approx(degrees, abs=1e-4)
    assert geodesic_angle(start.float(), end.float()).rad2deg().item() == pytest.approx(degrees, abs=1e-3)


@pytest.mark.parametrize("degrees", ANGLES_DEG)
def test_losses_of_known_rotations(degrees: float) -> None:
    angle = math.radians(degrees)
    axis = random_axis(np.random.default_rng(4))
    turned = torch.tensor(axis_angle_quaternion(axis, angle))[None]
    start = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    chord_squared = (2 * math.sin(angle / 4)) ** 2
    for raw in (start, -start, 7 * start):
        assert chordal_loss(raw, turned).item() == pytest.approx(chord_squared, abs=1e-12)
    geodesic = geodesic_loss(quaternion_to_matrix(start), quaternion_to_matrix(turned))
    assert geodesic.item() == pytest.approx(angle, abs=2e-6)


@pytest.mark.parametrize("degrees", ANGLES_DEG)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_stay_finite_from_equal_to_opposite_rotations(degrees: float, dtype: torch.dtype) -> None:
    axis = random_axis(np.random.default_rng(5))
    truth = torch.eye(3, dtype=dtype)[None]
    matrix = torch.tensor(rodrigues(axis, math.radians(degrees)), dtype=dtype)[None]
    code = torch.cat([matrix[..., 0], matrix[..., 1]], dim=-1).requires_grad_()
    turned = axis_angle_quaternion(axis, math.radians(degrees))
    quaternion = torch.tensor(turned, dtype=dtype)[None].requires_grad_()
    unit = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=dtype)

    for loss, leaf in (
        (geodesic_loss(sixd_to_matrix(code), truth), code),
        (geodesic_loss(quaternion_to_matrix(quaternion), truth), quaternion),
        (chordal_loss(quaternion, unit), quaternion),
    ):
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        assert gradient.norm() < 10


def test_add_is_zero_at_the_truth_and_the_length_of_a_pure_shift() -> None:
    views = make_views(32, seed=6, noise=Noise())
    rotation = quaternion_to_matrix(views.quaternion)
    at_truth = average_distance(rotation, views.translation, rotation, views.translation)
    torch.testing.assert_close(at_truth, torch.zeros(32))
    shifted = views.translation + torch.tensor([2.0, -3.0, 6.0])
    seven_metres = torch.full((32,), 7.0)
    add = average_distance(rotation, shifted, rotation, views.translation)
    torch.testing.assert_close(add, seven_metres, atol=1e-4, rtol=0)
    torch.testing.assert_close(translation_error(shifted, views.translation), seven_metres, atol=1e-4, rtol=0)


def test_add_of_a_half_roll_is_twice_the_distance_from_the_roll_axis() -> None:
    half_roll = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    expected = np.mean([2 * math.hypot(y, z) for _, y, z in KEYPOINTS_M.values()])
    zero = torch.zeros(3)
    assert average_distance(half_roll, zero, torch.eye(3), zero).item() == pytest.approx(expected, rel=1e-6)


def test_translation_loss_is_relative_to_the_distance() -> None:
    truth = torch.tensor([[1.0, 2.0, 100.0], [0.0, 0.0, 50.0]])
    guess = truth + torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 5.0]])
    assert translation_loss(guess, truth).item() == pytest.approx((0.05**2 + 0.1**2) / 2)


def test_norm_drift_counts_both_sides_of_one() -> None:
    raw = torch.tensor([[3.0, 0.0, 4.0, 0.0], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert norm_drift(raw).item() == pytest.approx((4.0 + 0.5 + 0.0) / 3)


# Data


def test_views_are_the_same_by_seed_and_differ_by_another() -> None:
    one, again, other = (make_views(64, seed=seed, noise=Noise()) for seed in (7, 7, 8))
    assert torch.equal(one.features, again.features)
    assert torch.equal(one.quaternion, again.quaternion)
    assert torch.equal(one.translation, again.translation)
    assert not torch.equal(one.features, other.features)
    assert not torch.equal(one.quaternion, other.quaternion)
    assert not torch.equal(one.translation, other.translation)


def test_views_without_noise_are_the_exact_projection() -> None:
    views = make_views(16, seed=9, noise=Noise(sigma=0.0, dropout=0.0))
    points = np.array(list(KEYPOINTS_M.values()))
    for features, quaternion, translation in zip(
        views.features.numpy(), views.quaternion.double().numpy(), views.translation.numpy(), strict=True
    ):
        angle = 2 * math.acos(quaternion[0])
        camera = points @ rodrigues(quaternion[1:] / math.sin(angle / 2), angle).T + translation
        x, y, z = camera.T
        expected = np.column_stack([x / z, y / z, np.ones(len(points))])
        np.testing.assert_allclose(features.reshape(-1, 3), expected, atol=1e-5)


def test_noise_and_dropout_are_as_large_as_asked() -> None:
    noise = Noise(sigma=0.003, dropout=0.2)
    clean = make_views(4000, seed=10, noise=Noise(sigma=0.0, dropout=0.0)).features.view(4000, -1, 3)
    noisy = make_views(4000, seed=10, noise=noise).features.view(4000, -1, 3)
    visible = noisy[..., 2] == 1
    assert 1 - visible.double().mean().item() == pytest.approx(noise.dropout, abs=0.01)
    assert noisy[~visible].abs().max() == 0
    assert (noisy - clean)[visible][:, :2].std().item() == pytest.approx(noise.sigma, rel=0.02)


def test_the_aircraft_stays_in_the_field_of_view() -> None:
    views = make_views(2000, seed=11, noise=Noise())
    x, y, distance = views.translation.unbind(-1)
    assert DISTANCE_M[0] <= distance.min() < distance.max() <= DISTANCE_M[1]
    assert max((x / distance).abs().max(), (y / distance).abs().max()) <= FIELD * (1 + 1e-6)


# Model and training


@pytest.mark.parametrize(("head", "size"), [("quaternion", 4), ("sixd", 6)])
def test_the_network_gives_proper_poses_even_when_nothing_is_visible(head: RotationHead, size: int) -> None:
    features = make_views(8, seed=12, noise=Noise()).features
    features[0] = 0
    pose = PoseNet(width=16, depth=1, head=head)(features)
    assert pose.raw.shape == (8, size)
    assert pose.translation.shape == (8, 3)
    gram = pose.rotation.mT @ pose.rotation
    torch.testing.assert_close(gram, torch.eye(3).expand(8, 3, 3), atol=1e-5, rtol=0)
    assert torch.isfinite(pose.translation).all()


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    factors = [lr_factor(step, 200) for step in range(200)]
    peak = factors.index(max(factors))
    assert factors[peak] == 1.0
    assert 0 < factors[0] < 0.2
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] < 1e-3
    assert factors[(peak + 200) // 2] == pytest.approx(0.5, abs=0.02)


def test_a_config_that_cannot_train_says_why() -> None:
    with pytest.raises(ValueError, match="use loss 'geodesic'"):
        replace(SIXD_MLP, loss="chordal")
    with pytest.raises(ValueError, match="no batch is full"):
        replace(SIXD_MLP, train_views=100)


@pytest.mark.parametrize("base", [QUATERNION_MLP, SIXD_MLP], ids=lambda config: config.name)
def test_a_short_training_logs_every_metric_and_learns(base: Config) -> None:
    config = replace(base, epochs=3, train_views=4096, val_views=512, lr=3e-3)
    run = RecordingRun()
    epochs: list[int] = []
    train(run, config, on_epoch=epochs.append)

    expected = {"train/loss", "train/lr", "train/grad_norm", "epoch", *VALIDATION_METRICS}
    if base.head == "quaternion":
        expected.add("train/quat_norm_drift")
    assert run.metrics() == expected
    assert run.defined == {name: (direction, "epoch") for name, direction in VALIDATION_METRICS.items()}
    assert epochs == [1, 2, 3]

    steps_per_epoch = 4096 // config.batch_size
    assert [step for step, _ in run.curve("train/loss")] == list(range(1, 3 * steps_per_epoch + 1))
    assert run.curve("epoch") == [(epoch * steps_per_epoch, epoch) for epoch in range(4)]
    parts = {"model", "optimizer", "schedule", "order", "rng", "async_"}
    assert run.saved == [(epoch * steps_per_epoch, epoch, parts) for epoch in (1, 2, 3)]
    for _, values in run.logged:
        for value in values.values():
            assert math.isfinite(float(value))
            assert not isinstance(value, Tensor) or (value.ndim == 0 and not value.requires_grad)

    loss = [value for _, value in run.curve("train/loss")]
    assert np.mean(loss[-5:]) < 0.5 * np.mean(loss[:5])
    for metric in ("val/loss", "val/rotation_deg_median", "val/translation_m_median", "val/add_m"):
        assert run.curve(metric)[-1][1] < run.curve(metric)[0][1], metric


def test_the_sixd_network_finds_the_pose() -> None:
    run = RecordingRun()
    train(run, replace(SIXD_MLP, epochs=8))
    assert run.curve("val/rotation_deg_median")[-1][1] < 5
    assert run.curve("val/rotation_under_10deg")[-1][1] > 0.8
    assert run.curve("val/add_m")[-1][1] < 6


def test_training_is_the_same_by_seed_and_leaves_the_random_state_alone() -> None:
    config = replace(QUATERNION_MLP, epochs=1, train_views=1024, val_views=128)
    runs = [RecordingRun() for _ in range(3)]
    for run, seed in zip(runs, (0, 0, 1), strict=True):
        torch.rand(1)
        state = torch.get_rng_state()
        train(run, replace(config, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
    one, again, other = ([run.curve(metric) for metric in sorted(run.metrics())] for run in runs)
    assert one == again
    assert one != other
