"""Retention policies: what each keeps, checked against definitions spelled out by brute force."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from itertools import accumulate, pairwise
from math import isnan, log2
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.checkpoints.retention import (
    Aliased,
    AnyOf,
    Best,
    Candidate,
    EveryHours,
    EveryNSteps,
    Ladder,
    Latest,
    Pinned,
    Policy,
    YoungerThan,
    describe,
    parse_policy,
)
from ckptlake.errors import InvalidInputError

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=10)


def candidate(name: str, **fields: Any) -> Candidate:
    given = {
        "run_id": "r",
        "experiment": "e",
        "step": None,
        "epoch": None,
        "saved_at": START,
        "metrics": {},
        "pinned": False,
        "aliases": frozenset(),
        "status": "good",
        "blobs": {},
        "optimizer_blobs": frozenset(),
    }
    return Candidate(checkpoint_id=name, **{**given, **fields})


def saved(*steps: int | None, **fields: Any) -> list[Candidate]:
    """Return one run's checkpoints, an hour apart, named by their place."""
    return [
        candidate(f"c{place}", step=step, saved_at=START + timedelta(hours=place), **fields)
        for place, step in enumerate(steps)
    ]


def kept_steps(policy: Policy, checkpoints: Sequence[Candidate]) -> list[int | None]:
    kept = policy.keeps(checkpoints, NOW)
    assert all(kept.values()), "each has a reason"
    return [one.step for one in checkpoints if one.checkpoint_id in kept]


def order(one: Candidate) -> Any:
    return one.saved_at, -(2**63) if one.step is None else one.step, one.checkpoint_id


def rivals(one: Candidate, checkpoints: Iterable[Candidate]) -> list[Candidate]:
    """Return the other checkpoints that rank against one, the good ones of its run."""
    return [
        other
        for other in checkpoints
        if other is not one and other.run_id == one.run_id and other.status == "good" and other.verified is not False
    ]


def is_sound(one: Candidate) -> bool:
    return one.status == "good" and one.verified is not False


@st.composite
def runs(draw: st.DrawFn, most: int = 14) -> list[Candidate]:
    """Checkpoints of up to three runs, with ties, rewinds, missing steps, NaN and damage."""
    return [
        candidate(
            f"c{place}",
            run_id=(run := draw(st.sampled_from("abc"))),
            experiment={"a": "x", "b": "x", "c": "y"}[run],
            step=draw(st.none() | st.integers(-3, 40) | st.sampled_from([1000, 1024, 2**40])),
            saved_at=START + timedelta(minutes=draw(st.integers(0, 300))),
            metrics=draw(
                st.dictionaries(st.sampled_from(["loss", "acc"]), st.sampled_from([0.5, 1.0, 2.0, float("nan")]))
            ),
            pinned=draw(st.sampled_from([False, False, False, True])),
            aliases=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"latest"}), frozenset({"prod"})])),
            status=draw(st.sampled_from(["good", "good", "good", "quarantined"])),
            verified=draw(st.sampled_from([None, None, True, False])),
        )
        for place in range(draw(st.integers(0, most)))
    ]


counts = st.integers(1, 5)
hours = st.integers(1, 1000) | st.floats(1e-9, 1e6)
single_policies = st.one_of(
    st.builds(Latest, counts),
    st.builds(Best, st.sampled_from(["loss", "acc"]), counts, st.sampled_from(["min", "max"])),
    st.builds(EveryNSteps, st.integers(1, 50)),
    st.builds(EveryHours, hours),
    st.builds(Ladder, counts, st.integers(2, 4)),
    st.builds(YoungerThan, st.timedeltas(timedelta(microseconds=1), timedelta(days=11))),
    st.just(Pinned()),
    st.just(Aliased()),
)
policies = single_policies | st.builds(lambda parts: AnyOf(*parts), st.lists(single_policies, min_size=2, max_size=3))


class TestLatest:
    def test_keeps_the_newest_of_each_run(self) -> None:
        one, other = saved(10, 20, 30), saved(5, 15)
        other = [replace(c, checkpoint_id=f"other-{c.checkpoint_id}", run_id="other") for c in other]
        assert set(Latest(2).keeps(one + other, NOW)) == {"c1", "c2", "other-c0", "other-c1"}

    def test_newest_means_saved_last_even_after_a_rewind(self) -> None:
        assert kept_steps(Latest(2), saved(100, 200, 300, 150)) == [300, 150]

    def test_a_damaged_one_takes_no_place(self) -> None:
        run = saved(1, 2, 3, 4)
        run[3] = replace(run[3], status="quarantined")
        run[2] = replace(run[2], verified=False)
        assert kept_steps(Latest(1), run) == [2]

    @given(runs(), counts)
    def test_by_brute_force(self, checkpoints: list[Candidate], n: int) -> None:
        expected = {
            one.checkpoint_id
            for one in checkpoints
            if is_sound(one) and sum(order(other) > order(one) for other in rivals(one, checkpoints)) < n
        }
        assert set(Latest(n).keeps(checkpoints, NOW)) == expected


class TestBest:
    def test_in_both_directions(self) -> None:
        run = [replace(c, metrics={"m": value}) for c, value in zip(saved(1, 2, 3), [0.3, 0.1, 0.2], strict=True)]
        assert kept_steps(Best("m", 2, "min"), run) == [2, 3]
        assert kept_steps(Best("m", 1, "max"), run) == [1]

    @pytest.mark.parametrize("direction", ["min", "max"])
    def test_nan_is_never_best_and_a_missing_value_is_none(self, direction: Any) -> None:
        run = saved(1, 2, 3)
        run[0] = replace(run[0], metrics={"m": float("nan")})
        run[1] = replace(run[1], metrics={"other": -1e9})
        assert kept_steps(Best("m", 3, direction), run) == []
        run[2] = replace(run[2], metrics={"m": float("inf")})
        assert kept_steps(Best("m", 3, direction), run) == [3]

    def test_of_equal_ones_the_newest(self) -> None:
        assert kept_steps(Best("m", 1, "min"), saved(1, 2, 3, metrics={"m": 0.5})) == [3]
        assert kept_steps(Best("m", 1, "max"), saved(1, 2, 3, metrics={"m": 0.5})) == [3]

    def test_without_a_direction_it_asks_for_one(self) -> None:
        with pytest.raises(InvalidInputError, match=r"'m' is better in experiment 'e' is not declared.*run\.define"):
            Best("m").keeps(saved(1, metrics={"m": 0.5}), NOW)
        assert Best("m").keeps(saved(1), NOW) == {}, "nothing to rank needs no direction"

    @given(runs(), counts, st.sampled_from(["min", "max"]))
    def test_by_brute_force(self, checkpoints: list[Candidate], n: int, direction: Any) -> None:
        def rank(one: Candidate) -> Any:
            return (one.metrics["loss"] if direction == "max" else -one.metrics["loss"]), order(one)

        valued = [one for one in checkpoints if "loss" in one.metrics and not isnan(one.metrics["loss"])]
        expected = {
            one.checkpoint_id
            for one in valued
            if is_sound(one) and sum(rank(other) > rank(one) for other in rivals(one, valued)) < n
        }
        assert set(Best("loss", n, direction).keeps(checkpoints, NOW)) == expected


class TestEveryNSteps:
    def test_keeps_multiples(self) -> None:
        assert kept_steps(EveryNSteps(1000), saved(*range(500, 4001, 500))) == [500, 1000, 2000, 3000, 4000]

    def test_where_none_hits_the_first_after_it_stands_in(self) -> None:
        run = saved(391, 782, 1173, 1564, 1955, 2346)
        assert kept_steps(EveryNSteps(1000), run) == [391, 1173, 2346]
        assert EveryNSteps(1000).keeps(run, NOW)["c2"] == "first at or after step 1000"

    def test_of_a_step_saved_twice_the_newest(self) -> None:
        assert set(EveryNSteps(10).keeps(saved(10, 15, 10, 12), NOW)) == {"c2"}

    @given(runs(), st.integers(1, 50))
    def test_by_brute_force(self, checkpoints: list[Candidate], n: int) -> None:
        stepped = [one for one in checkpoints if one.step is not None]
        expected = {
            one.checkpoint_id
            for one in stepped
            if is_sound(one)
            and not any(
                other.step - other.step % n == one.step - one.step % n
                and (other.step < one.step or (other.step == one.step and order(other) > order(one)))
                for other in rivals(one, stepped)
            )
        }
        assert set(EveryNSteps(n).keeps(checkpoints, NOW)) == expected


class TestEveryHours:
    def test_keeps_the_first_of_each_stretch(self) -> None:
        assert kept_steps(EveryHours(6), saved(*range(13))) == [0, 6, 12]

    def test_stretches_are_the_same_in_every_time_zone(self) -> None:
        run = saved(*range(13))
        east = timezone(timedelta(hours=5, minutes=30))
        moved = [replace(one, saved_at=one.saved_at.astimezone(east)) for one in run]
        assert EveryHours(4).keeps(moved, NOW) == EveryHours(4).keeps(run, NOW)

    @given(runs(), st.sampled_from([0.1, 0.25, 0.5, 1, 1.5, 24]))
    def test_by_brute_force(self, checkpoints: list[Candidate], width: float) -> None:
        def stretch(one: Candidate) -> int:
            seconds = (one.saved_at.toordinal() - 1) * 86400 + one.saved_at.hour * 3600 + one.saved_at.minute * 60
            return seconds // Fraction(str(width * 3600))

        expected = {
            one.checkpoint_id
            for one in checkpoints
            if is_sound(one)
            and not any(
                stretch(other) == stretch(one) and order(other) < order(one) for other in rivals(one, checkpoints)
            )
        }
        assert set(EveryHours(width).keeps(checkpoints, NOW)) == expected


class TestLadder:
    def test_is_dense_lately_and_sparse_long_ago(self) -> None:
        assert kept_steps(Ladder(recent=3), saved(*range(100, 3201, 100))) == [
            100, 1100, 2100, 2600, 2900, 3000, 3100, 3200,
        ]  # fmt: skip

    @given(st.integers(1, 6), st.integers(1, 1000), st.integers(1, 300), st.integers(-(10**6), 10**6))
    @settings(max_examples=50)
    def test_about_one_for_each_doubling(self, recent: int, interval: int, count: int, start: int) -> None:
        steps = [start + interval * number for number in range(count)]
        kept = kept_steps(Ladder(recent), saved(*steps))
        assert kept[0] == steps[0], "the first of the run stays"
        assert kept[-recent:] == steps[-recent:]
        distances = [steps[-recent:][0] - step for step in kept]
        reach = interval
        while 2 * reach <= steps[-1] - steps[0] - (recent - 1) * interval:
            within = [distance for distance in distances if reach <= distance < 2 * reach]
            assert len(within) <= 3, f"{within} lie between {reach} and {2 * reach}"
            reach *= 2
        for older, newer in pairwise(distances):
            assert newer <= 0 or older <= 3 * newer + 2 * interval, f"a hole between {newer} and {older}"
        assert len(kept) <= recent + 2 * log2(count) + 4

    @given(runs(), counts, st.integers(2, 4))
    def test_by_brute_force(self, checkpoints: list[Candidate], recent: int, base: int) -> None:
        def place(one: Candidate) -> int:
            return (
                one.step if one.step is not None else round((one.saved_at - START) / timedelta(minutes=1)) * 60 * 10**6
            )

        def is_first(one: Candidate, width: int, peers: list[Candidate], offset: int) -> bool:
            lowest = (place(one) + offset) // width * width - offset
            return not any(
                lowest <= place(other) < place(one) or (place(other) == place(one) and order(other) > order(one))
                for other in peers
            )

        expected = set()
        for one in filter(is_sound, checkpoints):
            peers = [other for other in rivals(one, checkpoints) if (other.step is None) == (one.step is None)]
            offset = (
                0 if one.step is not None else round((START - datetime(1, 1, 1, tzinfo=UTC)).total_seconds()) * 10**6
            )
            newer = sum(order(other) > order(one) for other in peers)
            start = sorted({place(other) for other in [one, *peers]})[-recent:][0]
            widths = [base**power for power in range(80) if is_first(one, base**power, peers, offset)]
            if newer < recent or (widths and start - place(one) < 2 * widths[-1]):
                expected.add(one.checkpoint_id)
        assert set(Ladder(recent, base).keeps(checkpoints, NOW)) == expected

    @given(runs(most=25), counts, st.integers(2, 4))
    def test_what_is_kept_was_kept_ever_since_it_was_saved(
        self, checkpoints: list[Candidate], recent: int, base: int
    ) -> None:
        arrivals = sorted(checkpoints, key=order)
        gone: set[str] = set()
        for number in range(1, len(arrivals) + 1):
            there = arrivals[:number]
            kept = set(Ladder(recent, base).keeps(there, NOW))
            assert not kept & gone, "dropped before, kept now"
            gone |= {one.checkpoint_id for one in there} - kept

    @given(
        st.lists(st.integers(1, 5) | st.integers(1, 10**6), min_size=1, max_size=60),
        st.integers(-1000, 10**6),
        counts,
        st.integers(2, 5),
    )
    def test_deleting_as_one_goes_comes_to_the_same(self, gaps: list[int], start: int, recent: int, base: int) -> None:
        ladder = Ladder(recent, base)
        arrivals = saved(*accumulate(gaps, initial=start))
        left: list[Candidate] = []
        for number, one in enumerate(arrivals, 1):
            kept = ladder.keeps([*left, one], NOW)
            assert kept == ladder.keeps(arrivals[:number], NOW)
            left = [other for other in [*left, one] if other.checkpoint_id in kept]

    def test_without_steps_time_takes_their_place(self) -> None:
        kept = Ladder(recent=2).keeps(saved(*[None] * 40), NOW)
        assert {"c0", "c38", "c39"} <= kept.keys()
        assert 5 <= len(kept) <= 12


class TestMarks:
    def test_younger(self) -> None:
        run = saved(0, 1, 2, 3)
        now = run[-1].saved_at
        assert set(YoungerThan(timedelta(hours=2)).keeps(run, now)) == {"c2", "c3"}, "two hours old is too old"
        assert set(YoungerThan(timedelta(hours=2)).keeps(run, START)) == {"c0", "c1", "c2", "c3"}, "a clock set back"
        with pytest.raises(InvalidInputError, match="now must have a time zone"):
            YoungerThan(timedelta(hours=2)).keeps(run, datetime(2026, 3, 1))

    def test_pinned_and_aliased(self) -> None:
        run = saved(0, 1, 2)
        run[0] = replace(run[0], pinned=True, status="quarantined")
        run[1] = replace(run[1], aliases=frozenset({"latest"}))
        assert Pinned().keeps(run, NOW) == {"c0": "pinned"}
        assert Aliased().keeps(run, NOW) == {"c1": "alias 'latest'"}


class TestAnyOf:
    def test_keeps_for_all_reasons(self) -> None:
        kept = AnyOf(Latest(1), Pinned(), EveryNSteps(10)).keeps(saved(5, 10, 12, pinned=True), NOW)
        assert kept == {
            "c0": "pinned; first at or after step 0",
            "c1": "pinned; first at or after step 10",
            "c2": "newest of its run; pinned",
        }

    def test_is_flat_and_never_empty(self) -> None:
        assert AnyOf(AnyOf(Latest(1), Pinned()), Ladder()) == AnyOf(Latest(1), Pinned(), Ladder())
        with pytest.raises(InvalidInputError, match="at least one policy"):
            AnyOf()


class TestEveryPolicy:
    @given(runs(), policies, st.randoms())
    def test_is_pure(self, checkpoints: list[Candidate], policy: Policy, random: Any) -> None:
        before = copy.deepcopy(checkpoints)
        kept = policy.keeps(checkpoints, NOW)
        shuffled = random.sample(checkpoints, len(checkpoints))
        assert policy.keeps(shuffled, NOW) == kept == policy.keeps(checkpoints, NOW)
        assert checkpoints == before

    @given(runs(), policies)
    def test_looks_at_each_run_by_itself(self, checkpoints: list[Candidate], policy: Policy) -> None:
        apart: dict[str, str] = {}
        for run in "abc":
            apart |= policy.keeps([one for one in checkpoints if one.run_id == run], NOW)
        assert policy.keeps(checkpoints, NOW) == apart

    @given(runs(), policies)
    def test_a_newer_one_brings_none_back(self, checkpoints: list[Candidate], policy: Policy) -> None:
        arrivals = sorted(checkpoints, key=order)
        older, newer = arrivals[:-1], arrivals[-1:]
        gained = policy.keeps(arrivals, NOW).keys() - policy.keeps(older, NOW).keys()
        assert gained <= {one.checkpoint_id for one in newer}

    @given(runs(), policies)
    def test_keeps_the_same_once_the_others_are_gone(self, checkpoints: list[Candidate], policy: Policy) -> None:
        kept = policy.keeps(checkpoints, NOW)
        left = [one for one in checkpoints if one.checkpoint_id in kept]
        assert policy.keeps(left, NOW).keys() == kept.keys()


class TestText:
    @pytest.mark.parametrize(
        ("text", "policy"),
        [
            ("latest(3)", Latest(3)),
            (" latest ( 3 ) ", Latest(3)),
            ("best(val/loss,2,min)", Best("val/loss", 2, "min")),
            ("best(val/loss,2)", Best("val/loss", 2)),
            ('best("a, (b) + \\"c\\"", 1, max)', Best('a, (b) + "c"', 1, "max")),
            ("every(1000)", EveryNSteps(1000)),
            ("every(6h)", EveryHours(6)),
            ("every(30m)", EveryHours(0.5)),
            ("every(2d)", EveryHours(48)),
            ("ladder()", Ladder()),
            ("ladder(5)", Ladder(5)),
            ("ladder(5,3)", Ladder(5, 3)),
            ("younger(1.5h)", YoungerThan(timedelta(minutes=90))),
            ("younger(2w)", YoungerThan(timedelta(weeks=2))),
            ("pinned()+aliased()\n", AnyOf(Pinned(), Aliased())),
            ("latest(1) + ladder() + every(10)", AnyOf(Latest(1), Ladder(), EveryNSteps(10))),
        ],
    )
    def test_is_read(self, text: str, policy: Policy) -> None:
        assert parse_policy(text) == policy

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no retention policy can be read at ''"),
            ("newest(3)", r"at 'newest\(3\)'; there are latest\(n\), best"),
            ("latest", "can be read at 'latest'"),
            ("latest(3)+", "can be read at ''"),
            ("latest(3) ladder()", "can be read at 'latest"),
            ("latest(3)+nonsense()", r"can be read at 'nonsense\(\)'"),
            ("latest(3))", "can be read at 'latest"),
            ("best(a b,2,min)", "can be read at 'best"),
            ('best("a\\q",2,min)', "can be read at 'best"),
            ("latest()", r"has 0 arguments: write latest\(n\)"),
            ("pinned(1)", r"has 1 arguments: write pinned\(\)"),
            ("latest(many)", "'many' is no whole number"),
            ("latest(-1)", "'-1' is no whole number"),
            ("latest(0)", "n of latest must be a whole number from 1 up, got 0"),
            ("latest(" + "9" * 5000 + ")", "is no whole number"),
            ("every(0)", "the steps of every"),
            ("every(1x)", "'1x' is no duration"),
            ("every(٣)", "is no whole number"),
            ("younger(0s)", "younger takes above 0"),
            ("younger(" + "9" * 29 + "w)", "is no duration"),
            ("younger(7)", "'7' is no duration: write 90s"),
            ("ladder(3,1)", "the base of ladder must be a whole number from 2 up, got 1"),
            ("best(m,2,up)", "direction of 'm' is 'min' or 'max', not 'up'"),
        ],
    )
    def test_of_nothing_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            parse_policy(text)

    @given(
        st.lists(
            single_policies
            | st.builds(Best, st.text(), st.integers(1, 10**18 - 1), st.sampled_from(["min", "max", None]))
            | st.builds(YoungerThan, st.timedeltas(timedelta(microseconds=1), timedelta(hours=10**6))),
            min_size=1,
            max_size=4,
        )
    )
    def test_comes_back(self, parts: list[Policy]) -> None:
        policy = parts[0] if len(parts) == 1 else AnyOf(*parts)
        assert parse_policy(describe(policy)) == policy

    @given(st.text(alphabet='latesbvry(),+"\\ 0123hd./', max_size=30))
    def test_of_any_kind_is_a_policy_or_refused(self, text: str) -> None:
        try:
            policy = parse_policy(text)
        except InvalidInputError:
            return
        assert parse_policy(describe(policy)) == policy

    def test_of_a_policy_of_ones_own_there_is_none(self) -> None:
        class Everything:
            def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
                return {one.checkpoint_id: "all" for one in checkpoints}

        with pytest.raises(InvalidInputError, match="has no text"):
            describe(Everything())


class TestNonsense:
    @pytest.mark.parametrize("n", [0, -1, True, 1.0, "3", None, 10**18])
    @pytest.mark.parametrize("make", [Latest, EveryNSteps, Ladder, lambda n: Best("m", n, "min")])
    def test_counts(self, make: Any, n: Any) -> None:
        with pytest.raises(InvalidInputError, match="must be a whole number from 1 up"):
            make(n)

    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e-12, 1e7, "6", None])
    def test_hours(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="the hours of every"):
            EveryHours(value)

    @pytest.mark.parametrize("value", [timedelta(), timedelta(-1), timedelta.max])
    def test_durations(self, value: timedelta) -> None:
        with pytest.raises(InvalidInputError, match="younger takes above 0"):
            YoungerThan(value)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"saved_at": datetime(2026, 3, 1)}, "saved_at of checkpoint 'c' must have a time zone"),
            ({"status": "fine"}, "must be 'good' or 'quarantined', got 'fine'"),
            ({"blobs": {"d": -1}}, "a blob of checkpoint 'c' has -1 bytes"),
            ({"optimizer_blobs": frozenset({"d"})}, "optimizer blob 'd' of checkpoint 'c' is not among its blobs"),
        ],
    )
    def test_candidates(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            candidate("c", **fields)
