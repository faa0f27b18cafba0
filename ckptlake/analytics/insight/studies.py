"""Runs as an optuna study in memory, which its evaluators and samplers learn from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from ckptlake.analytics.frames import Floats
from ckptlake.analytics.insight.space import Param, Space, finite_or_null
from ckptlake.analytics.libraries import need
from ckptlake.types import Direction

_WORDS = {"min": "minimize", "max": "maximize"}


@contextmanager
def silent_optuna(purpose: str) -> Iterator[ModuleType]:
    """Give optuna, and let it write no logs and warnings of its own meanwhile.

    What it warns of, few runs and what it calls experimental, is told by the checks and the method of each result.

    Raises:
        MissingDependencyError: it is not installed.
    """
    optuna = need("optuna", purpose)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def distribution(optuna: ModuleType, param: Param) -> Any:
    """Return what optuna draws a param from; an integer of a few values is drawn as its place among them."""
    if not param.is_numeric:
        return optuna.distributions.CategoricalDistribution(param.choices)
    if param.grid:
        return optuna.distributions.IntDistribution(0, len(param.grid) - 1)
    if param.kind == "int":
        return optuna.distributions.IntDistribution(int(param.low), int(param.high), log=param.log)
    return optuna.distributions.FloatDistribution(param.low, param.high, log=param.log)


def pick(trial: Any, param: Param) -> Any:
    """Return a value of a param that optuna draws for a trial."""
    if not param.is_numeric:
        return trial.suggest_categorical(param.name, param.choices)
    if param.grid:
        return param.grid[trial.suggest_int(param.name, 0, len(param.grid) - 1)]
    if param.kind == "int":
        return trial.suggest_int(param.name, int(param.low), int(param.high), log=param.log)
    return trial.suggest_float(param.name, param.low, param.high, log=param.log)


def trials_of(optuna: ModuleType, space: Space, runs: pl.DataFrame, results: Floats) -> list[Any]:
    """Return one finished trial a run, without the params that the run lacks.

    Args:
        optuna: the library.
        space: the params.
        runs: one row a run.
        results: float64, shape (runs,), without NaN.
    """
    kinds = {param.name: distribution(optuna, param) for param in space.params}
    trials = []
    for row, result in zip(_rows(space, runs), results.tolist(), strict=True):
        known = {param.name: _given(param, row[param.name]) for param in space.params if row[param.name] is not None}
        trials.append(
            optuna.trial.create_trial(params=known, distributions={name: kinds[name] for name in known}, value=result)
        )
    return trials


def study_of(optuna: ModuleType, trials: Iterable[Any], direction: Direction, sampler: Any = None) -> Any:
    """Return a study in memory that has these trials behind it."""
    study = optuna.create_study(direction=_WORDS[direction], sampler=sampler)
    study.add_trials(trials)
    return study


def _rows(space: Space, runs: pl.DataFrame) -> Iterator[Mapping[str, Any]]:
    yield from runs.select(finite_or_null(runs[param.name]) for param in space.params).iter_rows(named=True)


def _given(param: Param, value: Any) -> Any:
    if param.grid:
        return int(np.searchsorted(param.grid, value))
    if param.kind == "categorical":
        return str(value)
    return int(value) if param.kind == "int" else value
