"""Curves of known shape."""

from __future__ import annotations

import numpy as np

from ckptlake.analytics.curve import Curve

STEPS = np.arange(1.0, 65.0)
MEMBERS = {
    "power law": lambda t: 3 + 2 * t**-0.5,
    "exponential": lambda t: 3 + 2 * np.exp(-t / 60),
    "log-power": lambda t: 5 / (1 + (t / 50) ** 0.6),
    "Weibull": lambda t: 3 + 4 * np.exp(-((t / 40) ** 0.7)),
    "MMF": lambda t: 3 + 4 / (1 + (t / 40) ** 1.3),
}


def cooled_runs(random: np.random.Generator, groups: int, repeats: int = 1) -> tuple[list[Curve], list[int]]:
    """Return runs of random configurations whose loss drops in the last third, as the learning rate does."""
    done = STEPS / STEPS[-1]
    curves, labels = [], []
    for group in range(groups):
        end, scale, power, drop = random.uniform((2.0, 2.0, 0.3, 0.1), (3.0, 4.0, 0.6, 0.3))
        ideal = end + scale * STEPS**-power - drop * np.maximum(done - 2 / 3, 0) * 3
        for repeat in range(repeats):
            values = ideal + random.normal(0, 0.01) + random.normal(0, 0.01, len(STEPS))
            curves.append(Curve.of(f"{group}.{repeat}", STEPS, values))
            labels.append(group)
    return curves, labels


def half(curve: Curve) -> Curve:
    return curve.until(curve.steps[-1] / 2)
