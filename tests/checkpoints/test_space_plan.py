"""Plans of retention: what no policy may drop, whose bytes go, and how a quota is met."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import isnan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_retention import NOW, START, candidate, is_sound, order, policies, runs, saved

from ckptlake.checkpoints.budgets import Decision, Quota, RetentionPlan, parse_size, plan_retention
from ckptlake.checkpoints.retention import AnyOf, Best, Candidate, EveryNSteps, Latest, Pinned, Policy, YoungerThan
from ckptlake.errors import InvalidInputError

SIZES = {f"d{number}": 2**number + number for number in range(9)}
DIRECTIONS: dict[tuple[str, str], Any] = {("x", "loss"): "min", ("x", "acc"): "max", ("y", "loss"): "max"}


def ids(decisions: Iterable[Decision]) -> list[str]:
    return [decision.checkpoint_id for decision in decisions]


def total(digests: Iterable[str]) -> int:
    return sum(SIZES[digest] for digest in digests)


def plan(candidates: Sequence[Candidate], policy: Policy, **given: Any) -> RetentionPlan:
    return plan_retention(candidates, policy, **{"directions": {}, "now": NOW, **given})


def storing(*blobs: Mapping[str, int], **fields: Any) -> list[Candidate]:
    """Return one run's checkpoints with these blobs, the oldest first."""
    steps = [100 * number for number in range(len(blobs))]
    return [replace(one, blobs=own) for one, own in zip(saved(*steps, **fields), blobs, strict=True)]


@st.composite
def lakes(draw: st.DrawFn) -> list[Candidate]:
    """Checkpoints that share blobs, some of them optimizer state, some the bases of deltas in newer ones."""
    checkpoints = sorted(draw(runs(most=9)), key=order)
    digests = st.sets(st.sampled_from(sorted(SIZES)), max_size=4)
    blobs: list[set[str]] = []
    bases: dict[str, set[str]] = {one.checkpoint_id: set() for one in checkpoints}
    for place, one in enumerate(checkpoints):
        own = draw(digests)
        if place and draw(st.booleans()):
            base = draw(st.integers(0, place - 1))
            own |= blobs[base]
            bases[checkpoints[base].checkpoint_id].add(one.checkpoint_id)
        blobs.append(own)
    return [
        replace(
            one,
            blobs={digest: SIZES[digest] for digest in sorted(own)},
            optimizer_blobs=frozenset(own & draw(digests)),
            bases_of=frozenset(bases[one.checkpoint_id]),
        )
        for one, own in zip(checkpoints, blobs, strict=True)
    ]


quotas = st.builds(Quota, st.integers(1, 1200), st.sampled_from(["run", "experiment", "lake"]))
settled = st.fixed_dictionaries(
    {"policy": policies | st.just(Best("loss", 2)) | st.just(AnyOf(Pinned(), Best("loss", 1)))},
    optional={"keep_optimizer": st.integers(1, 3), "quota": quotas},
)


def protected(checkpoints: Sequence[Candidate]) -> set[str]:
    """Return the ids that must stay, by the rules in so many words."""
    found = {one.checkpoint_id for one in checkpoints if one.pinned or "prod" in one.aliases}
    for run in {one.run_id for one in checkpoints}:
        members = sorted((one for one in checkpoints if one.run_id == run), key=order)
        good = [one for one in members if is_sound(one)]
        found.add((good or members)[-1].checkpoint_id)
        found |= {one.checkpoint_id for one in [one for one in good if one.verified][-1:]}
        for (experiment, metric), direction in DIRECTIONS.items():
            sign = 1 if direction == "max" else -1
            valued = [
                one for one in good if one.experiment == experiment and not isnan(one.metrics.get(metric, float("nan")))
            ]
            if valued:
                found.add(max(valued, key=lambda one: (sign * one.metrics[metric], order(one))).checkpoint_id)
    return found


def left_after(checkpoints: Sequence[Candidate], done: RetentionPlan) -> list[Candidate]:
    """Return the checkpoints as they are once a plan is carried out."""
    staying, trimmed = set(ids(done.keep)), set(ids(done.trim))
    return [
        replace(
            one,
            blobs={
                digest: size
                for digest, size in one.blobs.items()
                if one.checkpoint_id not in trimmed or digest not in one.optimizer_blobs
            },
            optimizer_blobs=frozenset() if one.checkpoint_id in trimmed else one.optimizer_blobs,
            bases_of=one.bases_of & staying,
        )
        for one in checkpoints
        if one.checkpoint_id in staying
    ]


def digests_of(checkpoints: Iterable[Candidate]) -> set[str]:
    return {digest for one in checkpoints for digest in one.blobs}


class TestProtections:
    def test_each_stays_and_says_why(self) -> None:
        run = saved(*range(8))
        run[0] = replace(run[0], pinned=True)
        run[1] = replace(run[1], aliases=frozenset({"paper", "best"}))
        run[2] = replace(run[2], metrics={"loss": 0.1, "undeclared": 9.0})
        run[3] = replace(run[3], verified=True)
        run[4] = replace(
            run[4], metrics={"loss": 0.2, "undeclared": -9.0}, aliases=frozenset({"latest", "latest_good"})
        )
        run[7] = replace(run[7], status="quarantined")
        done = plan(run, Pinned(), directions={("e", "loss"): "min"})
        assert {decision.checkpoint_id: decision.reason for decision in done.keep} == {
            "c0": "protected (pinned); pinned",
            "c1": "protected (named 'paper')",
            "c2": "protected (best of its run by 'loss' (min))",
            "c3": "protected (newest verified one of its run)",
            "c6": "protected (newest good one of its run)",
        }
        assert ids(done.delete) == ["c4", "c5", "c7"]

    def test_a_run_without_a_good_one_keeps_its_newest(self) -> None:
        done = plan(saved(1, 2, 3, status="quarantined"), Latest(5))
        assert ids(done.keep) == ["c2"]
        assert "has no good one" in done.keep[0].reason

    def test_damaged_ones_stay_where_the_policy_gives_them_time(self) -> None:
        run = saved(1, 2, 3)
        run[1] = replace(run[1], status="quarantined")
        assert ids(plan(run, Latest(3)).delete) == ["c1"]
        assert ids(plan(run, AnyOf(Latest(3), YoungerThan(timedelta(days=30)))).delete) == []

    @given(lakes(), settled)
    def test_nothing_overrides_them(self, checkpoints: list[Candidate], given: dict[str, Any]) -> None:
        done = plan(checkpoints, **given, directions=DIRECTIONS)
        assert protected(checkpoints) <= set(ids(done.keep))
        assert sorted(ids(done.keep) + ids(done.delete)) == sorted(one.checkpoint_id for one in checkpoints)
        assert set(ids(done.trim)) <= set(ids(done.keep))

    @given(lakes(), policies)
    def test_the_rest_is_up_to_the_policy(self, checkpoints: list[Candidate], policy: Policy) -> None:
        done = plan(checkpoints, policy, directions=DIRECTIONS)
        assert set(ids(done.keep)) == protected(checkpoints) | policy.keeps(checkpoints, NOW).keys()


class TestDirections:
    def test_fill_in_best_for_each_experiment(self) -> None:
        metrics = [{"m": value} for value in (3.0, 1.0, 2.0, 4.0, 2.5)]
        low = [replace(one, metrics=m) for one, m in zip(saved(*range(5)), metrics, strict=True)]
        high = [replace(one, checkpoint_id=f"h{one.step}", run_id="h", experiment="f") for one in low]
        directions: Any = {("e", "m"): "min", ("f", "m"): "max"}
        done = plan(low + high, AnyOf(Best("m", 2), Pinned()), directions=directions)
        assert sorted(ids(done.keep)) == ["c1", "c2", "c4", "h0", "h3", "h4"], "c4 and h4 are the newest"

    def test_that_nobody_declared_are_asked_for(self) -> None:
        with pytest.raises(InvalidInputError, match=r"'m' is better in experiment 'e' is not declared"):
            plan(saved(1, 2, metrics={"m": 1.0}), Best("m"), directions={("other", "m"): "min"})

    def test_that_are_none_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="direction of 'm' is 'min' or 'max', not 'up'"):
            plan([], Latest(1), directions={("e", "m"): "up"})


class TestBytes:
    def test_a_shared_blob_goes_with_its_last_referrer(self) -> None:
        run = storing({"frozen": 100, "a": 1}, {"frozen": 100, "b": 2}, {"frozen": 100, "c": 4}, {"d": 8})
        done = plan(run, Latest(2))
        assert [(one.checkpoint_id, one.freed_bytes) for one in done.delete] == [("c0", 1), ("c1", 2)]
        assert (done.freed_bytes, done.kept_bytes) == (3, 112)
        done = plan(run, Latest(1))
        assert [(one.checkpoint_id, one.freed_bytes) for one in done.delete] == [("c0", 1), ("c1", 2), ("c2", 104)]
        assert (done.freed_bytes, done.kept_bytes) == (107, 8)

    def test_sharing_reaches_across_runs(self) -> None:
        one, other = storing({"frozen": 100}, {"b": 2}), storing({"frozen": 100})
        other = [replace(other[0], checkpoint_id="other", run_id="other")]
        assert plan(one + other, Latest(1)).freed_bytes == 0

    def test_of_a_base_the_row_goes_and_what_deltas_need_stays(self) -> None:
        run = storing({"base": 100, "own": 7}, {"base": 100, "delta": 3})
        run[0] = replace(run[0], bases_of=frozenset({"c1"}))
        done = plan(run, Latest(1))
        assert ids(done.delete) == ["c0"]
        assert (done.freed_bytes, done.kept_bytes) == (7, 103)
        assert done.delete[0].sentence() == (
            "delete checkpoint 'c0' of run 'r' at step 0, freeing 7 bytes: not kept by the policy; "
            "100 bytes stay, as deltas of 'c1' need them"
        )

    def test_of_a_base_whose_deltas_go_too_nothing_stays(self) -> None:
        run = storing({"base": 100}, {"base": 100, "delta": 3}, {"new": 50})
        run[0] = replace(run[0], bases_of=frozenset({"c1"}))
        done = plan(run, Latest(1))
        assert [one.freed_bytes for one in done.delete] == [0, 103]
        assert "stay" not in done.delete[0].reason

    @given(lakes(), settled)
    def test_are_those_of_the_sets(self, checkpoints: list[Candidate], given: dict[str, Any]) -> None:
        done = plan(checkpoints, **given, directions=DIRECTIONS)
        before, after = digests_of(checkpoints), digests_of(left_after(checkpoints, done))
        assert done.kept_bytes == total(after)
        assert done.freed_bytes == total(before - after)
        assert sum(decision.freed_bytes for decision in (*done.delete, *done.trim)) == done.freed_bytes
        assert all(decision.freed_bytes == 0 for decision in done.keep)

    @given(lakes(), settled)
    def test_count_in_the_order_of_the_plan(self, checkpoints: list[Candidate], given: dict[str, Any]) -> None:
        done = plan(checkpoints, **given, directions=DIRECTIONS)
        there = {one.checkpoint_id: set(one.blobs) for one in checkpoints}
        optimizer = {one.checkpoint_id: one.optimizer_blobs for one in checkpoints}
        for decision in (*done.delete, *done.trim):
            name = decision.checkpoint_id
            before = set().union(*there.values())
            there[name] -= there[name] if decision.action == "delete" else optimizer[name]
            assert decision.freed_bytes == total(before - set().union(*there.values()))


class TestTrimming:
    def checkpoints(self) -> list[Candidate]:
        blobs = [{f"w{number}": 10, f"o{number}": 20} for number in range(6)]
        run = storing(*blobs)
        return [replace(one, optimizer_blobs=frozenset({f"o{place}"})) for place, one in enumerate(run)]

    def test_older_ones_lose_their_optimizer_state(self) -> None:
        done = plan(self.checkpoints(), Latest(4), keep_optimizer=2)
        assert ids(done.keep) == ["c2", "c3", "c4", "c5"]
        assert ids(done.trim) == ["c2", "c3"]
        assert (done.freed_bytes, done.kept_bytes) == (100, 80)
        assert done.trim[0].sentence() == (
            "drop the optimizer state of checkpoint 'c2' of run 'r' at step 200, freeing 20 bytes: "
            "older than the newest 2 kept of its run"
        )

    def test_only_those_that_stay_count(self) -> None:
        done = plan(self.checkpoints(), EveryNSteps(200), keep_optimizer=2)
        assert ids(done.keep) == ["c0", "c2", "c4", "c5"]
        assert ids(done.trim) == ["c0", "c2"]

    def test_what_was_marked_by_hand_and_the_newest_verified_stay_whole(self) -> None:
        run = self.checkpoints()
        run[0] = replace(run[0], pinned=True)
        run[1] = replace(run[1], aliases=frozenset({"paper"}))
        run[2] = replace(run[2], metrics={"m": 1.0})
        run[3] = replace(run[3], verified=True)
        run[4] = replace(run[4], status="quarantined")
        done = plan(run, YoungerThan(timedelta(days=30)), keep_optimizer=1, directions={("e", "m"): "max"})
        assert ids(done.trim) == ["c2"], "the best needs no optimizer; a damaged one waits for repair"

    def test_nobody_loses_what_they_do_not_have(self) -> None:
        run = [replace(one, optimizer_blobs=frozenset()) for one in self.checkpoints()]
        assert plan(run, Latest(6), keep_optimizer=1).trim == ()

    def test_shared_optimizer_state_stays_for_the_others(self) -> None:
        run = storing({"o": 20, "w": 1}, {"o": 20, "x": 1}, {"o": 20, "y": 1})
        run = [replace(one, optimizer_blobs=frozenset({"o"})) for one in run]
        done = plan(run, Latest(3), keep_optimizer=1)
        assert ids(done.trim) == ["c0", "c1"]
        assert (done.freed_bytes, done.kept_bytes) == (0, 23)

    @pytest.mark.parametrize("count", [0, -1, True, 1.5])
    def test_of_all_is_refused(self, count: Any) -> None:
        with pytest.raises(InvalidInputError, match="keep_optimizer must be a whole number from 1 up"):
            plan(self.checkpoints(), Latest(1), keep_optimizer=count)


class TestQuota:
    def test_takes_what_a_ladder_would_drop_first_then_the_oldest(self) -> None:
        run = storing(*[{f"b{number}": 10} for number in range(33)])
        rungs = ["c0", "c11", "c21", "c26", "c29", "c30", "c31", "c32"]
        gone: list[str] = []
        for limit in range(320, 0, -10):
            done = plan(run, Latest(99), quota=Quota(limit, "run"))
            assert done.kept_bytes == limit
            gone += sorted(set(ids(done.delete)) - set(gone))
        others = [one.checkpoint_id for one in run if one.checkpoint_id not in rungs]
        assert sorted(gone[: len(others)]) == sorted(others)
        assert gone[: len(others)] == others, "each the oldest first"
        assert gone[len(others) :] == rungs[:-1], "the newest never goes"

    def test_says_what_protected_ones_take_beyond_it(self) -> None:
        run = storing({"a": 10}, {"b": 20}, {"c": 40})
        run[0] = replace(run[0], pinned=True)
        done = plan(run, Latest(3), quota=Quota(15, "lake"))
        assert ids(done.keep) == ["c0", "c2"]
        assert done.over_quota == {"lake": 35}
        assert done.over_quota_bytes == 35
        assert done.delete[0].reason == "the quota of 15 bytes for the lake is exceeded"
        assert done.sentence() == (
            "keep 2 of 3 checkpoints (50 bytes) and delete 1; this frees 20 bytes; "
            "'lake' stays 35 bytes over its quota, as protected ones take them"
        )

    def test_spares_what_would_free_nothing(self) -> None:
        run = storing({"frozen": 100}, {"frozen": 100, "b": 5}, {"frozen": 100, "c": 1})
        done = plan(run, Latest(3), quota=Quota(101, "run"))
        assert ids(done.delete) == ["c1"]
        assert plan(run, Latest(3), quota=Quota(50, "run")).over_quota == {"r": 51}

    def test_spares_a_small_one_when_a_large_one_must_go_anyway(self) -> None:
        run = storing({"a": 1}, {"b": 50}, {"c": 50})
        assert ids(plan(run, Latest(3), quota=Quota(60, "run")).delete) == ["c1"]

    def test_spares_the_newer_of_two_small_ones_where_there_is_room_for_one(self) -> None:
        run = storing({"a": 10}, {"b": 10}, {"c": 50}, {"d": 10})
        assert ids(plan(run, Latest(4), quota=Quota(20, "run")).delete) == ["c0", "c2"]

    def test_holds_for_each_run_or_experiment(self) -> None:
        one = storing({"a": 10}, {"b": 10})
        two = [replace(c, checkpoint_id=f"t{c.step}", run_id="t") for c in storing({"c": 10}, {"d": 10})]
        assert ids(plan(one + two, Latest(2), quota=Quota(20, "run")).delete) == []
        assert len(plan(one + two, Latest(2), quota=Quota(30, "experiment")).delete) == 1
        assert ids(plan(one + two, Latest(2), quota=Quota(10, "run")).delete) == ["c0", "t0"]

    def test_counts_after_trimming(self) -> None:
        run = storing({"a": 1, "o": 2}, {"b": 1, "p": 2})
        run = [replace(one, optimizer_blobs=frozenset(one.blobs.keys() & {"o", "p"})) for one in run]
        assert ids(plan(run, Latest(2), keep_optimizer=1, quota=Quota(4, "lake")).delete) == []
        assert ids(plan(run, Latest(2), quota=Quota(4, "lake")).delete) == ["c0"]

    @given(lakes(), settled, quotas)
    @settings(max_examples=200)
    def test_is_met_wherever_protected_ones_leave_room(
        self, checkpoints: list[Candidate], given: dict[str, Any], quota: Quota
    ) -> None:
        free = plan(checkpoints, **{**given, "quota": None}, directions=DIRECTIONS)
        done = plan(checkpoints, **{**given, "quota": quota}, directions=DIRECTIONS)
        kept, left = left_after(checkpoints, free), left_after(checkpoints, done)
        assert set(ids(free.delete)) <= set(ids(done.delete))
        victims = set(ids(done.delete)) - set(ids(free.delete))
        must_stay = protected(checkpoints)
        excess: dict[str, int] = {}
        for group in {quota.group_of(one) for one in kept}:
            allowed = [one for one in kept if quota.group_of(one) == group]
            remains = [one for one in left if quota.group_of(one) == group]
            least = total(digests_of(one for one in allowed if one.checkpoint_id in must_stay))
            size = total(digests_of(remains))
            assert size <= max(quota.limit_bytes, least)
            if size > quota.limit_bytes:
                excess[group] = size - quota.limit_bytes
            for one in allowed:
                if one.checkpoint_id in victims:
                    with_it = total(digests_of([*remains, one]))
                    assert with_it > max(quota.limit_bytes, size), "nothing goes that need not"
        assert done.over_quota == excess

    @pytest.mark.parametrize(("limit", "scope"), [(0, "lake"), (-1, "lake"), (1.5, "run"), (True, "run"), (10, "user")])
    def test_of_nonsense_is_refused(self, limit: Any, scope: Any) -> None:
        with pytest.raises(InvalidInputError, match="quota"):
            Quota(limit, scope)


class TestEveryPlan:
    @given(lakes(), settled, st.randoms())
    def test_is_pure(self, checkpoints: list[Candidate], given: dict[str, Any], random: Any) -> None:
        before = copy.deepcopy(checkpoints)
        done = plan(checkpoints, **given, directions=DIRECTIONS)
        shuffled = random.sample(checkpoints, len(checkpoints))
        assert plan(shuffled, **given, directions=dict(reversed(DIRECTIONS.items()))) == done
        assert checkpoints == before

    @given(lakes(), settled)
    def test_leaves_nothing_to_do_once_carried_out(self, checkpoints: list[Candidate], given: dict[str, Any]) -> None:
        done = plan(checkpoints, **given, directions=DIRECTIONS)
        again = plan(left_after(checkpoints, done), **given, directions=DIRECTIONS)
        assert ids(again.keep) == ids(done.keep)
        assert (again.delete, again.trim, again.freed_bytes) == ((), (), 0)
        assert again.kept_bytes == done.kept_bytes
        assert again.over_quota == done.over_quota

    @given(lakes(), settled)
    def test_brings_nothing_back_for_a_newer_one(self, checkpoints: list[Candidate], given: dict[str, Any]) -> None:
        """With a quota it may: a newer best one can free a large old one, and with it room for a small one."""
        given.pop("quota", None)
        older = [replace(one, bases_of=frozenset()) for one in checkpoints]
        newest = older[-1:]
        first = plan(older[:-1], **given, directions=DIRECTIONS)
        then = plan(older, **given, directions=DIRECTIONS)
        assert set(ids(then.keep)) - set(ids(first.keep)) <= {one.checkpoint_id for one in newest}

    @given(lakes(), settled)
    def test_lists_the_oldest_first_and_has_words_for_all(
        self, checkpoints: list[Candidate], given: dict[str, Any]
    ) -> None:
        done = plan(checkpoints, **given, directions=DIRECTIONS)
        places = {one.checkpoint_id: place for place, one in enumerate(sorted(checkpoints, key=order))}
        for decisions in (done.keep, done.delete, done.trim):
            assert [places[name] for name in ids(decisions)] == sorted(places[name] for name in ids(decisions))
            assert all(repr(one.checkpoint_id) in one.sentence() and one.reason for one in decisions)
        assert f"frees {done.freed_bytes:,} bytes" in done.sentence()

    def test_may_look_across_runs_if_its_policy_does(self) -> None:
        class NewestOfAll:
            def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
                return {max(checkpoints, key=lambda one: one.saved_at).checkpoint_id: "newest of all"}

        one, two = saved(1, 2, 3), [candidate("other", run_id="s", saved_at=START)]
        done = plan(one + two, NewestOfAll())
        assert {one.checkpoint_id: one.reason for one in done.keep} == {
            "other": "protected (newest good one of its run)",
            "c2": "protected (newest good one of its run); newest of all",
        }

    def test_of_nothing_is_empty(self) -> None:
        assert plan([], Latest(1), quota=Quota(1, "lake")) == RetentionPlan((), (), (), 0, 0, {})


class TestNonsense:
    def test_a_checkpoint_given_twice(self) -> None:
        with pytest.raises(InvalidInputError, match="checkpoint 'c0' is given twice"):
            plan([*saved(1), *saved(2)], Latest(1))

    def test_a_blob_of_two_sizes(self) -> None:
        with pytest.raises(InvalidInputError, match="blob 'b' has 6 bytes in checkpoint 'c1' and 5 in an older one"):
            plan(storing({"b": 5}, {"b": 6}), Latest(1))

    def test_a_base_of_what_is_not_given(self) -> None:
        with pytest.raises(InvalidInputError, match="checkpoint 'c0' is the base of 'gone', which is not given"):
            plan(saved(1, bases_of=frozenset({"gone"})), Latest(1))

    def test_a_time_without_a_zone(self) -> None:
        with pytest.raises(InvalidInputError, match="now must have a time zone"):
            plan(saved(1), Latest(1), now=datetime(2026, 3, 1))


class TestParseSize:
    @pytest.mark.parametrize(
        ("text", "size_bytes"),
        [
            ("0", 0),
            ("4096", 4096),
            ("512 B", 512),
            ("10GB", 10**10),
            ("10 gb", 10**10),
            ("1.5 kB", 1500),
            ("20MB", 2 * 10**7),
            ("2TB", 2 * 10**12),
            ("1PB", 10**15),
            ("1KiB", 1024),
            ("1.1GiB", 1181116006),
            ("3 MiB", 3 * 2**20),
            ("3tib", 3 * 2**40),
            (" 1PiB ", 2**50),
            ("0.1GB", 10**8),
            ("123456789.123456789GB", 123456789123456789),
        ],
    )
    def test_reads(self, text: str, size_bytes: int) -> None:
        assert parse_size(text) == size_bytes

    @pytest.mark.parametrize(
        "text",
        ["", "GB", "-1GB", "1e9", "10 G", "10GBit", "1iB", "1..5GB", ".5GB", "1,000", "nan", "٣GB", "9" * 5000, "1\0B"],
    )
    def test_refuses(self, text: str) -> None:
        with pytest.raises(InvalidInputError, match="is no size: write a number with B, KB"):
            parse_size(text)

    @given(st.integers(0, 10**18 - 1))
    def test_of_plain_bytes_is_exact(self, size_bytes: int) -> None:
        assert parse_size(str(size_bytes)) == parse_size(f"{size_bytes}B") == size_bytes
