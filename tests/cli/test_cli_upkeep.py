"""`ckptlake recover`, `compact`, `vacuum`, `du` and `version`: each does what it says and nothing more."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, on_screen, python

import ckptlake
from ckptlake import Lake, Run, Settings

Cli = Callable[..., Outcome]


@pytest.fixture
def root_with_small_files(root: Path) -> Path:
    """A closed lake whose tables have four files each, of four runs."""
    with ckptlake.open(root, settings=Settings(auto_compact=False)) as lake:
        for number in range(4):
            capture = ckptlake.Capture.nothing()
            with lake.run("tests", run_id=f"run-{number}", params={"n": number}, capture=capture) as run:
                run.log({"loss": float(number)}, step=0)
    return root


def named(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["table"]: row for row in rows}


def parquet(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*.parquet")}


@pytest.mark.usefixtures("root_with_small_files")
class TestCompact:
    def test_merges_all_tables(self, cli: Cli, root: Path) -> None:
        before = cli("sql", "select * from metrics order by all", "--json").json
        done = named(cli("compact", "--json").json)
        assert (done["metrics"]["files_before"], done["metrics"]["files_after"], done["metrics"]["rows"]) == (4, 1, 4)
        assert done["metrics"]["bytes_before"] > done["metrics"]["bytes_after"] > 0
        assert done["tags"]["files_before"] == 0
        lake = ckptlake.open(root, create=False)
        assert {table.name: len(table.files()) for table in lake.tables() if table.files()} == dict.fromkeys(
            ("runs", "params", "summaries", "metrics"), 1
        )
        assert cli("sql", "select * from metrics order by all", "--json").json == before
        assert cli("compact").out == "nothing to merge\n"

    def test_merges_only_what_is_named(self, cli: Cli, root: Path) -> None:
        shown = cli("compact", "params", "params")
        assert [line.split()[:3] for line in shown.lines[2:]] == [["params", "4", "1"]]
        assert len(ckptlake.open(root, create=False).table("metrics").files()) == 4

    def test_a_wrong_name_stops_it_before_any_work(self, cli: Cli, root: Path) -> None:
        before = parquet(root)
        done = cli("compact", "metrics", "metric", "--json")
        assert (done.code, done.out) == (1, "")
        assert "no table is called 'metric'" in done.err
        assert parquet(root) == before


@pytest.mark.usefixtures("root_with_small_files")
class TestVacuum:
    def test_lists_by_default_and_deletes_when_told(self, cli: Cli, root: Path) -> None:
        cli("compact")
        before = parquet(root)
        dry = named(cli("vacuum", "--retention-hours", "0", "--json").json)
        assert parquet(root) == before
        assert (len(dry["metrics"]["paths"]), dry["metrics"]["deleted"]) == (4, False)
        assert dry["metrics"]["size_bytes"] == sum(
            (root / "tables" / "metrics" / path).stat().st_size for path in dry["metrics"]["paths"]
        )
        done = named(cli("vacuum", "--retention-hours", "0", "--apply", "--json").json)
        assert done["metrics"] == {**dry["metrics"], "deleted": True}
        assert before - parquet(root) == {f"tables/{name}/{path}" for name in done for path in done[name]["paths"]}
        assert len(cli("sql", "select * from metrics", "--json").json) == 4
        assert cli("vacuum", "--retention-hours", "0").out == "nothing to delete\n"

    def test_keeps_what_is_recent(self, cli: Cli, root: Path) -> None:
        cli("compact")
        before = parquet(root)
        assert cli("vacuum", "--apply").out == "nothing to delete\n"
        assert cli("vacuum", "--apply", "--retention-hours", "0.5").out == "nothing to delete\n"
        assert parquet(root) == before

    def test_only_what_is_named(self, cli: Cli, root: Path) -> None:
        cli("compact")
        shown = cli("vacuum", "params", "--retention-hours", "0", "--apply")
        assert [line.split()[:2] for line in shown.lines[2:]] == [["params", "4"], ["total", "4"]]
        assert "deleted" in shown.err
        assert len(named(cli("vacuum", "--retention-hours", "0", "--json").json)["metrics"]["paths"]) == 4

    def test_says_how_to_delete(self, cli: Cli) -> None:
        cli("compact")
        assert "--apply deletes these files" in cli("vacuum", "--retention-hours", "0").err

    def test_a_negative_retention_is_a_usage_error(self, cli: Cli) -> None:
        assert cli("vacuum", "--retention-hours", "-1").code == 2


@pytest.mark.usefixtures("root_with_small_files")
class TestDu:
    def on_disk(self, root: Path) -> tuple[int, int]:
        sizes = [os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(root) for name in names]
        return len(sizes), sum(sizes)

    def test_counts_every_byte_of_the_lake(self, cli: Cli, root: Path) -> None:
        cli("compact")
        for place in ("quarantine/x", "cache/a/b", "blobs/ab/cd", "checkpoints/y", "strange"):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_bytes(b"x" * 1000)
        found = cli("du", "--json").json
        assert (found["total"]["files"], found["total"]["size_bytes"]) == self.on_disk(root)
        for folder in ("quarantine", "cache", "blobs", "checkpoints"):
            assert found[folder] == {"files": 1, "size_bytes": 1000}
        metrics = named(found["tables"])["metrics"]
        assert (metrics["live"]["files"], metrics["not_live"]["files"]) == (1, 4)
        directory = root / "tables" / "metrics"
        assert metrics["live"]["size_bytes"] + metrics["not_live"]["size_bytes"] == sum(
            path.stat().st_size for path in directory.rglob("part*.parquet")
        )
        cli("vacuum", "--retention-hours", "0", "--apply")
        after = named(cli("du", "--json").json["tables"])["metrics"]
        assert after["not_live"] == {"files": 0, "size_bytes": 0}
        assert after["live"] == metrics["live"]

    def test_in_words(self, cli: Cli, root: Path) -> None:
        shown = cli("du")
        assert shown.lines[0].split()[:3] == ["where", "files", "size"]
        total = shown.lines[-1].split()
        assert total[:2] == ["total", str(self.on_disk(root)[0])]
        assert all(len(line) <= 80 for line in shown.lines)

    def test_rows_of_a_live_run_are_in_the_wal(self, cli: Cli, root: Path) -> None:
        with ckptlake.open(root) as lake:
            lake.run("tests").flush()
            assert cli("du", "--json").json["wal"]["files"] >= 1
        assert not list((root / "wal").glob("*.wal"))

    def test_a_missing_live_file_is_told(self, cli: Cli, root: Path) -> None:
        next((root / "tables" / "metrics").rglob("part*.parquet")).unlink()
        done = cli("du", "--json")
        assert done.code == 0
        assert done.err == "warning: 1 live files of the table 'metrics' are missing\n"


class TestRecover:
    KILLED = """
        import os, sys, ckptlake
        lake = ckptlake.open(sys.argv[1], settings=ckptlake.Settings(commit_interval_s=3600))
        run = lake.run(run_id="victim", capture=ckptlake.Capture.nothing())
        for step in range(10):
            run.log({"loss": 1.0}, step=step)
        run.flush()
        os.kill(os.getpid(), 9)
    """

    def kill_one(self, root: Path) -> None:
        process = python(self.KILLED, str(root))
        process.communicate(timeout=120)
        assert process.returncode == -9

    def test_commits_and_marks_killed(self, cli: Cli, root: Path, lake: Lake) -> None:
        self.kill_one(root)
        done = cli("recover", "--json").json
        assert (done["segments"], done["killed_runs"], done["quarantined"]) == (1, ["victim"], [])
        assert cli("runs", "list", "--json").json[0]["status"] == "killed"
        assert len(lake.table("metrics").files()) == 1
        assert cli("recover").out == "nothing to recover\n"

    def test_in_words(self, cli: Cli, root: Path, lake: Lake) -> None:
        self.kill_one(root)
        assert cli("recover").lines == ["committed 1 segment of processes that died", "marked killed: victim"]

    def test_a_damaged_segment_is_set_aside_and_told(self, cli: Cli, root: Path, lake: Lake) -> None:
        self.kill_one(root)
        (segment,) = (path for path in (root / "wal").glob("*.wal"))
        segment.write_bytes(segment.read_bytes()[:-3])
        done = cli("recover", "--json")
        (aside,) = done.json["quarantined"]
        assert Path(aside).exists()
        assert done.err.startswith("warning: ")
        assert done.err.count("\n") == 1

    def test_a_live_run_is_left_alone(self, cli: Cli, start: Callable[..., Run]) -> None:
        run = start()
        run.log({"loss": 1.0}, step=0)
        run.flush()
        assert cli("recover", "--json").json["segments"] == 0
        run.log({"loss": 1.0}, step=1)
        run.finish()
        assert len(cli("sql", "select * from metrics", "--json").json) == 2


def test_version(cli: Cli, lake: Lake) -> None:
    found = cli("version", "--json").json
    assert found["ckptlake"] == ckptlake.__version__
    assert found["duckdb"] == metadata.version("duckdb")
    assert found["lake"]["lake_id"] == lake.id
    assert found["lake"]["format_version"] == 1
    assert f"duckdb     {found['duckdb']}" in cli("version").lines


def test_version_needs_no_lake(cli: Cli, root: Path) -> None:
    assert cli("version", "--json").json["lake"] is None
    assert not root.exists()


@pytest.mark.parametrize("words", [("compact",), ("vacuum", "--retention-hours", "0", "--apply"), ("recover",)])
def test_bars_are_for_screens(words: tuple[str, ...], root_with_small_files: Path) -> None:
    shown = on_screen(*words, "--lake", str(root_with_small_files))
    assert shown.code == 0
    assert "\x1b[?25h" in shown.out, "the cursor is shown again"
    as_json = on_screen(*words, "--json", "--lake", str(root_with_small_files))
    assert as_json.json is not None
    assert "\x1b" not in as_json.out
