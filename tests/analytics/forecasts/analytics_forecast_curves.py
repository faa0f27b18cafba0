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


def any_member(name: str, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return the values of a curve of a family at steps 1 to n, of any scale, pace and noise, and how many are seen."""
    n = int(random.integers(60, 400))
    t = np.arange(1.0, n + 1)
    pace, bend, scale = (
        n * np.exp(random.uniform(np.log(0.06), np.log(0.6))),
        random.uniform(0.6, 1.6),
        random.uniform(1, 5),
    )
    shape = {
        "power law": t ** -random.uniform(0.2, 1.2),
        "exponential": np.exp(-t / pace),
        "log-power": 1 / (1 + (t / pace) ** bend),
        "Weibull": np.exp(-((t / pace) ** bend)),
        "MMF": 1 / (1 + (t / pace) ** bend),
    }[name]
    offset = 0 if name == "log-power" else 3
    noise = np.exp(random.uniform(np.log(0.003), np.log(0.05)))
    return offset + scale * shape + random.normal(0, noise, n), int(n * random.uniform(0.3, 0.75))


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
