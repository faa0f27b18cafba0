"""How commands end that cannot do their work, and what they cost to start."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import COMMAND, Outcome, environment, invoke, python, run, spawn, strict, wait_until

import ckptlake
from ckptlake import Lake, Run

Cli = Callable[..., Outcome]
_HEAVY = ("duckdb", "polars", "pyarrow", "deltalake", "numpy", "torch", "pandas")


class TestMisuse:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("fly",), "No such command 'fly'"),
            (("run",), "runs"),
            (("runs", "lst"), "list"),
            (("sql",), "QUERY"),
            (("sql", "--sideways"), "--sideways"),
            (("tail", "x", "-n", "many"), "-n"),
            (("tail", "x", "-n", "-1"), "-n"),
            (("tail", "x", "--interval", "0"), "--interval"),
        ],
    )
    def test_is_one_line_and_code_2(self, words: tuple[str, ...], said: str) -> None:
        done = invoke(*words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert said in done.err
        assert "--help`)" in done.err

    @pytest.mark.parametrize("words", [(), ("runs",)])
    def test_no_command_shows_the_help(self, words: tuple[str, ...]) -> None:
        done = invoke(*words)
        assert (done.code, done.out) == (2, "")
        assert "Commands:" in done.err


class TestErrors:
    def test_no_traceback_from_the_real_command(self, tmp_path: Path) -> None:
        for words in (("runs", "list"), ("runs", "list", "--json"), ("sql", "select 1")):
            done = run(*words, "--lake", str(tmp_path / "no"))
            assert (done.code, done.out) == (1, "")
            assert done.err.startswith("error: ")
            assert done.err.count("\n") == 1

    def test_a_lake_from_the_future(self, cli: Cli, lake: Lake) -> None:
        identity = lake.path / "lake.json"
        identity.write_text(identity.read_text().replace('"format_version": 1', '"format_version": 99'))
        done = cli("runs", "list", "--json")
        assert (done.code, done.out) == (1, "")
        assert "format version 99" in done.err

    def test_a_file_is_no_lake(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        assert invoke("runs", "list", "--lake", str(tmp_path / "file")).code == 1

    def test_a_full_disk_behind_stdout(self, lake: Lake) -> None:
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        with Path("/dev/full").open("w") as full:
            command = [*COMMAND, "version", "--lake", str(lake.path)]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment())
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1

    def test_a_word_on_the_command_line_that_is_not_utf8(self, lake: Lake) -> None:
        odd = os.fsdecode(b"\xff")
        for words in (("sql", f"select '{odd}'"), ("sql", "select $a", "--param", f"a={odd}"), ("runs", "show", odd)):
            done = run(*words, "--lake", str(lake.path))
            assert (done.code, done.out) == (1, ""), words
            assert done.err.count("\n") == 1


class TestInterrupts:
    def test_ctrl_c_during_a_long_query(self, lake: Lake) -> None:
        query = "select sum(hash(a.range) + b.range) from range(100000000) a, range(100000) b"
        process = spawn("sql", query, "--json", "--lake", str(lake.path))
        wait_until(lambda: cpu_s(process.pid) > 1, "the query's work")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "")

    def test_ctrl_c_while_waiting_for_stdin(self, lake: Lake) -> None:
        process = spawn("sql", "-", "--lake", str(lake.path), stdin=subprocess.PIPE)
        wait_until(lambda: Path(f"/proc/{process.pid}/wchan").exists() and waits(process.pid), "waiting")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "")

    @pytest.mark.parametrize("form", ["", "--csv", "--json"])
    def test_head_ends_it_quietly(self, lake: Lake, form: str) -> None:
        words = ["sql", "select range as i from range(300000)", *filter(None, [form]), "--lake", str(lake.path)]
        process = spawn(*words)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == ""
        process.stderr.close()

    def test_nobody_reads_even_a_short_answer(self, lake: Lake) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        command = [*COMMAND, "version", "--lake", str(lake.path)]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment())
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, "")


def respect_permissions() -> None:
    """Make a process of root's, and what it starts, obey the permissions of files."""
    drop_from_bounding_set = 24
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        if libc.prctl(drop_from_bounding_set, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot give up the right to override permissions")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waits(pid: int) -> bool:
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text() and cpu_s(pid) > 0.05


class TestEncodings:
    def test_json_stays_json_where_stdout_is_not_utf8(self, lake: Lake, start: Callable[..., Run]) -> None:
        start(name="ünï 漢字").finish()
        words = ("runs", "list", "--lake", str(lake.path))
        for encoding in ("ascii", "latin-1"):
            done = run(*words, "--json", env=environment(PYTHONIOENCODING=encoding))
            assert strict(done.out)[0]["name"] == "ünï 漢字"
            shown = subprocess.run(
                [*COMMAND, *words], stdout=subprocess.PIPE, env=environment(PYTHONIOENCODING=encoding)
            )
            assert shown.returncode == 0
            assert "\\u6f22" in shown.stdout.decode(encoding)


class TestWhereNothingCanBeWritten:
    @pytest.fixture
    def read_only(self) -> Iterator[Path]:
        """A lake that an ordinary user may read and not write, with a run whose process was killed."""
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory) / "lake"
            program = """
                import os, sys, ckptlake
                lake = ckptlake.open(sys.argv[1], settings=ckptlake.Settings(commit_interval_s=3600))
                for name in ("done", "also", "victim"):
                    run = lake.run(run_id=name, capture=ckptlake.Capture.nothing())
                    run.log({"loss": 1.0}, step=0)
                    run.flush() if name == "victim" else run.finish()
                os.kill(os.getpid(), 9)
            """
            python(program, str(root)).communicate(timeout=120)
            everything = [Path(directory), root, *root.rglob("*")]
            for path in everything:
                path.chmod(0o555 if path.is_dir() else 0o444)
            yield root
            for path in everything:
                path.chmod(0o755 if path.is_dir() else 0o644)

    def as_anybody(self, *words: str) -> Outcome:
        options = {"preexec_fn": respect_permissions} if os.geteuid() == 0 else {}
        return run(*words, **options)

    def test_reading_works(self, read_only: Path) -> None:
        lake = ("--lake", str(read_only))
        assert len(self.as_anybody("runs", "list", "--json", *lake).json) == 3
        assert self.as_anybody("runs", "show", "done", "--json", *lake).json["status"] == "finished"
        assert self.as_anybody("sql", "select count(*) as n from metrics", "--json", *lake).json == [{"n": 3}]
        assert len(self.as_anybody("tail", "victim", "--no-follow", *lake).lines) == 1
        assert self.as_anybody("du", "--json", *lake).json["total"]["files"] > 5
        assert self.as_anybody("vacuum", "--json", *lake).code == 0

    @pytest.mark.parametrize(
        "words", [("recover",), ("runs", "delete", "done", "--yes"), ("compact", "metrics"), ("vacuum", "--apply")]
    )
    def test_writing_says_why_not(self, read_only: Path, words: tuple[str, ...]) -> None:
        done = self.as_anybody(*words, "--json", "--lake", str(read_only))
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert "permissions" in done.err
        assert done.err.count("\n") == 1


class TestStarting:
    @pytest.mark.parametrize("words", [("--help",), ("runs", "list", "--help"), ("--version",), ("tail", "--help")])
    def test_imports_nothing_heavy(self, words: tuple[str, ...]) -> None:
        program = f"""
            import sys
            from ckptlake.cli import main
            sys.argv = ["ckptlake", *{words!r}]
            try:
                main()
            finally:
                heavy = sorted(set(sys.modules) & set({_HEAVY!r}))
                print("heavy:", heavy, file=sys.stderr)
        """
        _, err = python(program).communicate(timeout=120)
        assert err == "heavy: []\n"

    def test_the_version(self) -> None:
        assert run("--version").out == f"ckptlake {ckptlake.__version__}\n"

    def test_the_help_names_every_command(self) -> None:
        done = invoke("--help")
        assert done.code == 0
        for command in ("init", "runs", "sql", "tail", "recover", "compact", "vacuum", "du", "version"):
            assert f"\n  {command} " in done.out
        assert "..." not in done.out.partition("Commands:")[2]
