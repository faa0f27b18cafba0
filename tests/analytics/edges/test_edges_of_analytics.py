"""Every public function of the analysis with every odd input: an honest outcome, or an error that says what to do."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from honest_outcomes import faults
from odd_values import ARGUMENTS, NO_ROW, curves, frames, in_turn, rows, samples
from ordinary_calls import calls, policies, public_functions

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Sample
from ckptlake.errors import InvalidInputError

FUNCTIONS = dict(public_functions())
CALLS = calls()
POLICIES = policies()
FOREST_MODULES = [
    importlib.import_module(f"ckptlake.analytics.insight.{name}")
    for name in ("forest", "importance", "interactions", "response", "suggestions")
]
DEAR = {
    "comparison.compare": 5, "comparison.differences": 20, "comparison.games_howell": 10, "comparison.posterior": 4,
    "comparison.tukey_hsd": 4,
    "forecasts.forecast_beside": 10, "forecasts.forecast_many": 10, "forecasts.forecast_series": 10,
    "forecasts.should_stop": 10,
    "insight.Experiment": 20, "insight.fanova_importance": 20, "insight.interactions": 40,
    "insight.ped_anova_importance": 10, "insight.permutation_importance": 15, "insight.response": 15,
    "insight.suggestions": 40, "insight.unexplored_regions": 15, "statistics.over_tasks": 3,
    "statistics.performance_profiles": 3, "statistics.seeds_needed": 20, "statistics.summarise": 5,
}  # fmt: skip
"""Calls that take a tenth of a second: of so many odd inputs the quick test tries one, the slow one tries all."""
_WORDS = {"unit", "labels"}
_FROZEN = {
    "statistic", "rule", "interval", "figure", "at", "limits", "calibration", "schedule", "rules", "found",
    "experiment", "bool",
}  # fmt: skip
"""Callables, switches, and values that are checked when they are made: `POLICIES` makes them."""
_NUMBERS = {"ArrayLike", "Floats", "Codes", "Sequence[float] | Floats", "Sequence[float]", "Sequence[int]"}
_SEQUENCES = {"Sequence[Hashable]", "Mapping[str, Direction]", "tuple[str, ...]"}
_SCALARS = ("int", "float", "str", "Columns", "Direction", "Literal", "Test", "TargetTest", "Correction", "Centre",
            "Coefficient", "Alternative", "Sequence[str]", "Iterable[str]", "object")  # fmt: skip


def odd_arguments(annotation: str, ordinary: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is odd for a parameter, by its annotation."""
    kind = annotation.removesuffix(" | None").removesuffix(" | Sample")
    if kind in _NUMBERS:
        yield from rows(4 if ordinary is None else len(ordinary))
    elif kind in _SEQUENCES:
        yield from (odd for odd in rows(4 if ordinary is None else len(ordinary)) if odd[0] not in NO_ROW)
    elif kind in {"Sequence[ArrayLike]", "Sequence[Floats]"}:
        yield from in_turn(ordinary, rows(len(ordinary[0])))
    elif kind == "Sample":
        yield from samples(ordinary.n)
    elif kind == "Sequence[Sample]":
        yield from in_turn(ordinary, samples(ordinary[0].n))
    elif kind == "Curve":
        yield from curves(ordinary.n, ordinary.label)
    elif kind == "Sequence[Curve]":
        yield from in_turn(ordinary, curves(ordinary[0].n, ordinary[0].label))
    elif kind == "Mapping[str, Sequence[Curve]]":
        yield "no group", {}
        name, group = next(iter(ordinary.items()))
        odd_groups = in_turn(group, curves(group[0].n, group[0].label))
        yield from ((what, {**ordinary, name: odd}) for what, odd in odd_groups)
    elif kind == "pl.DataFrame":
        yield from frames(ordinary)
    elif kind.startswith(_SCALARS):
        yield from ((repr(value), value) for value in ARGUMENTS)
    else:
        raise AssertionError(f"no odd inputs are known for {annotation!r}: add them here")


def swept(
    function: Callable[..., Any], ordinary: dict[str, Any], use: Callable[[Any], Any] = lambda found: found
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield calls of a function, each with one odd argument."""
    for parameter in inspect.signature(function).parameters.values():
        annotation = str(parameter.annotation).replace("'", "").replace('"', "")
        is_axis = parameter.name == "x" and "frame" not in ordinary
        if is_axis or parameter.name in _WORDS | _FROZEN or annotation in _FROZEN:
            continue
        for what, odd in odd_arguments(annotation, ordinary.get(parameter.name, parameter.default)):
            arguments = {**ordinary, parameter.name: odd}
            yield f"{parameter.name}: {what}", lambda made=arguments: use(function(**made))


def everything_swept(name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    if name in POLICIES:
        yield from swept(*POLICIES[name])
    else:
        yield from swept(FUNCTIONS[name], CALLS[name])


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let forests be of two trees: what they are fitted to is odd here, not how many there are."""
    for module in FOREST_MODULES:
        for name in ("TREES", "TREES_OF_A_DRAW", "TREES_OF_A_FOLD"):
            monkeypatch.setattr(module, name, 2, raising=False)


def test_every_function_is_swept() -> None:
    assert set(CALLS) == set(FUNCTIONS)


@pytest.mark.parametrize("name", CALLS)
def test_an_ordinary_call_is_answered(name: str) -> None:
    found = FUNCTIONS[name](**CALLS[name])
    assert faults(lambda: found) == []


@pytest.mark.parametrize("name", [*CALLS, *POLICIES])
def test_odd_input_gets_an_honest_answer(name: str) -> None:
    calls_made = islice(everything_swept(name), 0, None, DEAR.get(name, 1))
    assert {what: told for what, call in calls_made if (told := faults(call))} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", DEAR)
def test_all_odd_input_gets_an_honest_answer(name: str) -> None:
    assert {what: told for what, call in everything_swept(name) if (told := faults(call))} == {}


@pytest.mark.parametrize(("what", "values"), [*rows(6)], ids=lambda value: value if isinstance(value, str) else "")
def test_samples_and_curves_refuse_what_they_cannot_be(what: str, values: Any) -> None:
    for make in (lambda: Curve.of("a", np.arange(6.0), values), lambda: Curve.of("a", values, np.arange(6.0)),
                 lambda: Sample("a", values)):  # fmt: skip
        assert faults(make) == []
    if what in NO_ROW:
        with pytest.raises(InvalidInputError):
            Sample("a", values)
