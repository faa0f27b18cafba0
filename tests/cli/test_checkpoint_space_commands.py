"""`ckptlake checkpoints prune`, `delete`, `gc`, `compact`, `du`: nothing goes without --apply, then what was told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Outcome, files

import ckptlake
from ckptlake import Capture

Cli = Callable[..., Outcome]
_W = np.arange(20_000, dtype="f4")


@pytest.fixture
def saved(root: Path) -> list[str]:
    """Six checkpoints of a run in a closed lake, with a backbone that all share; returns their ids, oldest first."""
    with ckptlake.open(root) as lake, lake.run("pose", run_id="run-a", capture=Capture.nothing()) as run:
        run.define("loss", direction="min")
        ids = []
        for step in range(1, 7):
            state = {"model": {"w": _W * step + 1, "backbone": _W}, "optimizer": {"m": _W * step - 1}}
            ids.append(run.save_checkpoint(state, step=step, metrics={"loss": abs(step - 3)}).id)
    return ids


def steps(root: Path) -> list[int | None]:
    return [record.step for record in ckptlake.open(root, create=False).checkpoints.list()]


def untouched(root: Path) -> dict[str, tuple[int, int]]:
    """Return the files of all checkpoints and rows."""
    return {
        name: seen for name, seen in files(root).items() if name.startswith(("blobs/2", "checkpoints/2", "tables/"))
    }


@pytest.mark.usefixtures("saved")
class TestWithoutApply:
    @pytest.mark.parametrize(
        "words",
        [("prune", "--policy", "latest(1)"), ("delete", "1", "2"), ("gc", "--grace", "0")],
        ids=lambda words: words[0],
    )
    def test_nothing_changes(self, cli: Cli, root: Path, words: tuple[str, ...]) -> None:
        (root / "blobs" / "20200101-000000-aaaaaaaaaa.safetensors").write_bytes(b"left behind")
        before = untouched(root)
        for form in ((), ("--json",)):
            assert cli("checkpoints", *words, *form).code == 0
            assert untouched(root) == before
        assert "--apply" in cli("checkpoints", *words).err
        assert steps(root) == [1, 2, 3, 4, 5, 6]


class TestPrune:
    def test_the_plan_is_what_is_done(self, cli: Cli, root: Path, saved: list[str]) -> None:
        prune = ("checkpoints", "prune", "--policy", "latest(2)", "--json")
        plan = cli(*prune).json
        assert [one["checkpoint_id"] for one in plan["delete"]] == [saved[0], saved[1], saved[3]]
        assert (plan["applied"], plan["freed_bytes"]) == (None, 3 * 2 * _W.nbytes)
        assert [one["reason"] for one in plan["keep"] if one["step"] == 3] == [
            "protected (best of its run by 'loss' (min))"
        ]
        done = cli(*prune, "--apply").json
        assert done["delete"] == plan["delete"]
        assert done["applied"]["deleted"] == [saved[0], saved[1], saved[3]]
        assert steps(root) == [3, 5, 6]
        assert cli("checkpoints", "verify", "--all", "--level", "digest").code == 0

    def test_reads_well(self, cli: Cli, saved: list[str]) -> None:
        for columns in ("80", "120"):
            shown = cli("checkpoints", "prune", "--policy", "latest(2)", COLUMNS=columns)
            assert [line.split()[:3] for line in shown.lines[2:5]] == [
                ["delete", saved[index], str(index + 1)] for index in (0, 1, 3)
            ]
            assert shown.lines[-1] == "3 of 6 checkpoints go, 480.0 kB are freed and 560.0 kB stay"
            assert max(map(len, shown.lines)) <= int(columns)
        done = cli("checkpoints", "prune", "--policy", "latest(2)", "--apply")
        assert done.lines[-1].startswith("deleted 3 checkpoints, which frees ")

    def test_optimizer_state_can_go_alone(self, cli: Cli, root: Path, saved: list[str]) -> None:
        words = ("checkpoints", "prune", "--policy", "latest(6)", "--keep-optimizer", "1", "--apply", "--json")
        done = cli(*words).json
        assert set(done["applied"]["trimmed"]) == set(saved[:5])
        lake = ckptlake.open(root, create=False)
        assert list(lake.checkpoints.load(1)) == ["model"]
        assert list(lake.checkpoints.load(6)) == ["model", "optimizer"]

    def test_a_quota_takes_what_is_not_protected(self, cli: Cli, root: Path, saved: list[str]) -> None:
        plan = cli("checkpoints", "prune", "--policy", "latest(6)", "--quota", "500kB", "--scope", "run", "--json").json
        assert plan["kept_bytes"] <= 500_000
        assert {one["checkpoint_id"] for one in plan["keep"]} == {saved[2], saved[5]}
        shown = cli("checkpoints", "prune", "--policy", "latest(1)", "--quota", "1kB")
        assert "warning: lake stays" in shown.err
        assert steps(root) == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (("--policy", "newest(2)"), 1, "latest(n)"),
            (("--policy", ""), 1, "latest(n)"),
            (("--policy", "best(nothing,1)"), 0, ""),
            (("--policy", "latest(1)", "--quota", "much"), 1, "'much' is no size"),
            (("--policy", "latest(1)", "--scope", "run"), 2, "--quota"),
            (("--policy", "latest(1)", "--quota", "1GB", "--scope", "all"), 2, "experiment"),
            (("--policy", "latest(1)", "--run", "nobody"), 1, "runs list"),
            ((), 2, "--policy"),
        ],
    )
    def test_what_cannot_be_read(
        self, cli: Cli, root: Path, saved: list[str], words: tuple[str, ...], code: int, said: str
    ) -> None:
        done = cli("checkpoints", "prune", *words, "--json")
        assert (done.code, len(saved)) == (code, 6)
        assert said in done.err
        assert steps(root) == [1, 2, 3, 4, 5, 6]


class TestDelete:
    def test_deletes_what_is_named_and_no_other(self, cli: Cli, root: Path, saved: list[str]) -> None:
        told = cli("checkpoints", "delete", "2", saved[3], "2", "--json").json
        assert told == {"checkpoints": [saved[1], saved[3]], "deleted": False, "freed_bytes": None, "files": []}
        done = cli("checkpoints", "delete", "2", saved[3], "--apply", "--json").json
        assert (done["checkpoints"], done["deleted"]) == ([saved[1], saved[3]], True)
        assert done["freed_bytes"] > 4 * _W.nbytes
        assert all(not (root / path).exists() for path in done["files"])
        assert steps(root) == [1, 3, 5, 6]
        assert cli("checkpoints", "verify", "--all", "--level", "loads").code == 0

    def test_one_wrong_name_deletes_nothing(self, cli: Cli, root: Path, saved: list[str]) -> None:
        cli("checkpoints", "pin", "2")
        for wrong, said in (("77", "no checkpoint of step 77"), ("2", "unpin"), ("latest", saved[5]), ("", "")):
            done = cli("checkpoints", "delete", "1", wrong, "--apply", "--json")
            assert (done.code, done.out) == (1, "")
            assert said in done.err
        assert steps(root) == [1, 2, 3, 4, 5, 6]


class TestGc:
    def test_leftovers_are_listed_and_go(self, cli: Cli, root: Path, saved: list[str]) -> None:
        left = "blobs/20200101-000000-aaaaaaaaaa.safetensors"
        (root / left).write_bytes(b"x" * 1500)
        assert cli("checkpoints", "gc").out == "nothing to delete\n"
        shown = cli("checkpoints", "gc", "--grace", "0")
        assert left in shown.out
        assert "1 file, 1.5 kB" in shown.out
        done = cli("checkpoints", "gc", "--grace", "0", "--apply", "--json").json
        assert (done["deleted"], done["size_bytes"]) == (True, 1500)
        assert [file["path"] for file in done["files"]] == [left]
        assert not (root / left).exists()
        assert len(saved) == len(steps(root))

    def test_a_grace_that_is_none(self, cli: Cli, root: Path, saved: list[str]) -> None:
        assert cli("checkpoints", "gc", "--grace", "-1").code == 2
        assert cli("checkpoints", "gc", "--grace", "nan", "--apply").code in (1, 2)
        assert len(saved) == len(steps(root))


class TestCompact:
    def test_makes_all_but_the_newest_smaller(self, cli: Cli, root: Path, saved: list[str]) -> None:
        done = cli("checkpoints", "compact", "--json").json
        assert len(done["packs"]) == 5
        assert done["freed_bytes"] == done["before_bytes"] - done["after_bytes"] > 0
        assert {path.suffix for path in (root / "blobs").glob("2*")} == {".ckpk", ".safetensors"}
        loaded = ckptlake.open(root, create=False).checkpoints.load(2)
        np.testing.assert_array_equal(loaded["model"]["w"], _W * 2 + 1)
        assert cli("checkpoints", "compact").out == "nothing to compress\n"
        assert cli("checkpoints", "compact", "--keep-raw", "0").lines[-1].count("became") == 1
        assert len(saved) == len(steps(root))

    def test_a_base_that_is_not_there(self, cli: Cli, saved: list[str]) -> None:
        done = cli("checkpoints", "compact", "--base", "nothing", "--json")
        assert (done.code, done.out, len(saved)) == (1, "", 6)


class TestDu:
    def test_adds_up_to_the_files(self, cli: Cli, root: Path, saved: list[str]) -> None:
        (run,) = cli("checkpoints", "du", "--json").json
        kept = [*(root / "blobs").glob("2*"), *(root / "checkpoints").glob("2*")]
        assert (run["name"], run["checkpoints"]) == ("run-a", len(saved))
        assert run["logical_bytes"] == 6 * 3 * _W.nbytes
        assert run["stored_bytes"] == sum(path.stat().st_size for path in kept)
        (lake,) = cli("checkpoints", "du", "--by", "lake", "--json").json
        assert lake["stored_bytes"] == run["stored_bytes"]
        assert cli("checkpoints", "du", "--by", "day").code == 2
        assert "run-a" in cli("checkpoints", "du").out

    def test_an_empty_lake(self, cli: Cli, root: Path) -> None:
        ckptlake.open(root).close()
        assert cli("checkpoints", "du", "--json").json == []
        assert cli("checkpoints", "gc", "--json").json["files"] == []
        assert cli("checkpoints", "prune", "--policy", "latest(1)").code == 0
        assert cli("checkpoints", "compact").code == 0
