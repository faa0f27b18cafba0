"""`ckptlake checkpoints verify`, `protect`, `repair` and `ckptlake integrity`: damage is found, told, and mended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Outcome, files, json_lines, on_screen, run, spawn, strict
from test_cli_failures import respect_permissions

import ckptlake
from ckptlake import Capture

Cli = Callable[..., Outcome]


@pytest.fixture
def saved(root: Path) -> list[str]:
    """Three checkpoints of one run and one of another in a closed lake; they share one tensor."""
    ids = []
    with ckptlake.open(root) as lake:
        for experiment, steps in (("pose/vit", (1, 2, 3)), ("other", (4,))):
            with lake.run(experiment, run_id=f"run-{steps[0]}", capture=Capture.nothing()) as run:
                for step in steps:
                    state = {"w": np.full(50_000, step, "f4"), "both": np.arange(1000)}
                    ids.append(run.save_checkpoint(state, step=step).id)
    return ids


def damage(root: Path, checkpoint_id: str) -> None:
    """Change one bit in the middle of a checkpoint's own pack."""
    pack = root / "blobs" / f"{checkpoint_id}.safetensors"
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)


class TestVerify:
    def test_one_that_is_whole(self, cli: Cli, root: Path, saved: list[str]) -> None:
        (found,) = cli("checkpoints", "verify", "2", "--json").json
        assert (found["checkpoint_id"], found["verdict"], found["level"]) == (saved[1], "good", "digest")
        assert found["bytes_read"] == 50_000 * 4 + 1000 * 8
        shown = cli("checkpoints", "verify", saved[1], "--level", "loads")
        assert (shown.code, shown.err) == (0, "")
        assert "verdict   good\nlevel     loads\n" in shown.out
        assert ckptlake.open(root, create=False).checkpoints.get(2).verified_level == "loads"

    @pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
    def test_damage_is_told_and_fails(self, cli: Cli, root: Path, saved: list[str], form: tuple[str, ...]) -> None:
        damage(root, saved[1])
        done = cli("checkpoints", "verify", "2", *form)
        assert done.code == 1
        if form:
            assert (done.json[0]["verdict"], done.json[0]["tensors_lost"], done.err) == ("damaged", ["w"], "")
        else:
            assert "tensors lost  w\n" in done.out
            assert f"ckptlake checkpoints repair {saved[1]}" in done.err
        assert ckptlake.open(root, create=False).checkpoints.get(2).status == "quarantined"
        assert "quarantined" in cli("checkpoints", "list").out

    def test_of_many_only_damage_is_shown(self, cli: Cli, root: Path, saved: list[str]) -> None:
        damage(root, saved[2])
        done = cli("checkpoints", "verify", "--all")
        assert done.code == 1
        assert [line.split()[:3] for line in done.lines[2:-1]] == [[saved[2], "damaged", "1"]]
        assert done.lines[-1].startswith("verified 4 checkpoints at the level fast: 3 good, 1 damaged; ")
        assert {
            one["checkpoint_id"]: one["verdict"] for one in cli("checkpoints", "verify", "--all", "--json").json
        } == {name: "damaged" if name == saved[2] else "good" for name in saved}

    def test_a_pack_that_is_gone(self, cli: Cli, root: Path, saved: list[str]) -> None:
        (root / "blobs" / f"{saved[3]}.safetensors").unlink()
        done = cli("checkpoints", "verify", "--experiment", "other", "--level", "exists", "--json")
        assert (done.code, [one["verdict"] for one in done.json]) == (1, ["missing"])

    def test_some_of_them(self, cli: Cli, saved: list[str]) -> None:
        def checked(*words: str) -> set[str]:
            return {one["checkpoint_id"] for one in cli("checkpoints", "verify", *words, "--json").json}

        assert checked("--run", "run-1") == set(saved[:3])
        assert checked("--experiment", "other") == {saved[3]}
        assert checked("2", "--run", "run-1") == {saved[1]}
        assert len(checked("--sample", "2")) == 2
        assert len(checked("--budget", "60")) == 4

    @pytest.mark.parametrize(
        "words",
        [(), ("1", "--all"), ("1", "--sample", "2"), ("--all", "--level", "deep"), ("--sample", "0")],
    )
    def test_a_line_that_makes_no_sense(self, cli: Cli, root: Path, saved: list[str], words: tuple[str, ...]) -> None:
        before = files(root)
        done = cli("checkpoints", "verify", *words)
        assert (done.code, done.out, len(saved)) == (2, "", 4)
        assert files(root) == before

    def test_none_at_all(self, cli: Cli, root: Path) -> None:
        ckptlake.open(root).close()
        assert cli("checkpoints", "verify", "--all").out == "no checkpoints to verify\n"
        assert cli("checkpoints", "verify", "--all", "--json").json == []
        assert cli("integrity", "status").out == "checkpoints  0\n"
        assert cli("integrity", "watch", "--once").code == 0

    def test_on_a_screen(self, root: Path, saved: list[str]) -> None:
        damage(root, saved[0])
        done = on_screen("checkpoints", "verify", "--all", "--lake", str(root), columns=100)
        assert done.code == 1
        assert saved[0] in done.out
        assert "damaged" in done.out


class TestRepair:
    def test_what_is_protected_comes_back(self, cli: Cli, root: Path, saved: list[str]) -> None:
        done = cli("checkpoints", "protect", "--all")
        assert (done.code, done.out.startswith("protected 4 files of ")) == (0, True)
        assert len(list((root / "blobs").glob("*.pq"))) == 4
        damage(root, saved[1])
        assert cli("checkpoints", "verify", "2").code == 1
        before = files(root / "blobs")
        plan = cli("checkpoints", "repair", "--json").json
        assert next(action["action"] for action in plan["actions"]) == "rebuild_file"
        assert (plan["applied"], plan["losses"]) == (None, [])
        assert "--apply" in cli("checkpoints", "repair").err
        assert {name: seen for name, seen in files(root / "blobs").items() if name.startswith("2")} == {
            name: seen for name, seen in before.items() if name.startswith("2")
        }
        assert cli("checkpoints", "repair", saved[1], "--apply").code == 0
        assert cli("checkpoints", "verify", "2").code == 0
        assert ckptlake.open(root, create=False).checkpoints.get(2).status == "good"
        assert "nothing to repair" in cli("checkpoints", "repair").out

    def test_copies_may_be_elsewhere(self, cli: Cli, root: Path, tmp_path: Path, saved: list[str]) -> None:
        export = tmp_path / "copy.safetensors"
        assert cli("checkpoints", "export", "3", str(export)).code == 0
        damage(root, saved[2])
        lost = cli("checkpoints", "repair", "3", "--json")
        assert (lost.code, [loss["tensors"] for loss in lost.json["losses"]]) == (1, [["w"]])
        assert "--source" in cli("checkpoints", "repair", "3").err
        done = cli("checkpoints", "repair", "3", "--source", str(export), "--apply")
        assert done.code == 0
        np.testing.assert_array_equal(ckptlake.open(root, create=False).checkpoints.load(3)["w"], np.full(50_000, 3))

    def test_a_source_that_is_not_there(self, cli: Cli, saved: list[str]) -> None:
        done = cli("checkpoints", "repair", "--source", "no/where", "--json")
        assert (done.code, done.out, len(saved)) == (1, "", 4)

    def test_which_to_protect_must_be_said(self, cli: Cli, root: Path, saved: list[str]) -> None:
        assert cli("checkpoints", "protect").code == 2
        assert cli("checkpoints", "protect", "1", "--all").code == 2
        done = cli("checkpoints", "protect", "4", "--json").json
        own = root / "blobs" / f"{saved[3]}.safetensors"
        written = {root / file["path"]: file for file in done["written"]}
        assert written[own]["data_bytes"] == own.stat().st_size
        assert done["added_bytes"] == sum(path.stat().st_size for path in (root / "blobs").glob("*.pq"))

    def test_damage_is_not_protected(self, cli: Cli, root: Path, saved: list[str]) -> None:
        damage(root, saved[0])
        done = cli("checkpoints", "protect", "--all")
        assert done.code == 1
        assert f"not protected, as it is damaged: blobs/{saved[0]}.safetensors: " in done.out
        assert not (root / "blobs" / f"{saved[0]}.safetensors.pq").exists()


class TestIntegrity:
    def test_a_pass_reads_all_and_the_status_tells(self, cli: Cli, saved: list[str]) -> None:
        before = cli("integrity", "status", "--json").json
        assert (before["checkpoints"], before["verified_bytes"], before["coverage"]) == (4, 0, 0.0)
        found = json_lines(cli("integrity", "watch", "--once", "--rate", "10000", "--json").out)
        assert {one["checkpoint_id"] for one in found} == set(saved)
        after = cli("integrity", "status", "--json").json
        assert (after["coverage"], after["verified_bytes"]) == (1.0, before["total_bytes"])
        assert cli("integrity", "watch", "--once").out == ""
        assert "100.0% of" in cli("integrity", "status").out

    def test_damage_is_told(self, cli: Cli, root: Path, saved: list[str]) -> None:
        damage(root, saved[1])
        done = cli("integrity", "watch", "--once", "--rate", "10000")
        assert done.code == 1
        assert next(line for line in done.lines if "damaged" in line).split()[2] == saved[1]
        shown = cli("integrity", "status")
        assert f"quarantined     {saved[1]}\n" in shown.out
        assert "checkpoints repair" in shown.err

    def test_it_goes_on_until_ctrl_c(self, root: Path, saved: list[str]) -> None:
        process = spawn("integrity", "watch", "--rate", "10000", "--json", "--lake", str(root))
        assert process.stdout is not None
        found = {strict(process.stdout.readline())["checkpoint_id"] for _ in saved}
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err, found) == (130, "", "", set(saved))

    @pytest.mark.parametrize("words", [("--level", "loads"), ("--rate", "0"), ("--every", "0")])
    def test_a_line_that_makes_no_sense(self, cli: Cli, words: tuple[str, ...]) -> None:
        assert cli("integrity", "watch", "--once", *words).code == 2


class TestWhereNothingCanBeWritten:
    @pytest.fixture
    def read_only(self, root: Path, saved: list[str]) -> Iterator[Path]:
        everything = [root.parent, root, *root.rglob("*")]
        for path in everything:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield root
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert len(saved) == 4

    def as_anybody(self, *words: str) -> Outcome:
        return run(*words, preexec_fn=respect_permissions)

    @pytest.mark.parametrize(
        "words",
        [
            ("list",), ("show", "1", "--tensors"), ("diff", "1", "2"), ("du",), ("gc",), ("delete", "1"),
            ("prune", "--policy", "latest(1)"),
        ],
        ids=lambda words: words[0],
    )  # fmt: skip
    def test_looking_works(self, read_only: Path, words: tuple[str, ...]) -> None:
        done = self.as_anybody("checkpoints", *words, "--json", "--lake", str(read_only))
        assert (done.code, done.err) == (0, "")
        assert done.json

    @pytest.mark.parametrize(
        "words",
        [
            ("pin", "1"), ("verify", "1"), ("delete", "1", "--apply"), ("prune", "--policy", "latest(1)", "--apply"),
            ("compact",), ("protect", "--all"),
        ],
        ids=lambda words: words[0],
    )  # fmt: skip
    def test_changing_says_why_not(self, read_only: Path, words: tuple[str, ...]) -> None:
        done = self.as_anybody("checkpoints", *words, "--json", "--lake", str(read_only))
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert "permission" in done.err.lower()
