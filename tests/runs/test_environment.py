"""What a run was started from: Git state, packages, and a command line that gives no secret away."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from ckptlake.runs.environment import Environment, GitState, capture, git_state
from ckptlake.runs.redaction import REDACTED, names_a_secret

LOGGER = "ckptlake.runs.environment"


@pytest.fixture(autouse=True)
def isolated_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the machine, and no repository above the temporary directory."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.resolve()))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)


def git(directory: Path, *arguments: str) -> bytes:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "protocol.file.allow=always")
    command = ["git", *identity, "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def commit_of(directory: Path) -> str:
    return git(directory, "rev-parse", "HEAD").decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    (root / "train.py").write_text("print('training')\n")
    (root / "model.py").write_text("depth = 3\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    return root


def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie waiting for a parent outside this test."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith(b"Z")


class TestGitState:
    def test_clean(self, repository: Path) -> None:
        assert git_state(repository) == GitState(commit_of(repository), "main", dirty=False, diff_bytes=0)

    def test_found_from_a_directory_below(self, repository: Path) -> None:
        below = repository / "a" / "b"
        below.mkdir(parents=True)
        state = git_state(below)
        assert state is not None
        assert state.commit == commit_of(repository)

    def test_dirty_counts_the_bytes_of_the_diff_staged_and_unstaged(self, repository: Path) -> None:
        (repository / "train.py").write_text("print('training faster')\n")
        (repository / "weights.bin").write_bytes(bytes(range(256)) * 64)
        git(repository, "add", "weights.bin")
        expected = git(repository, "diff", "HEAD", "--binary")
        assert b"training faster" in expected
        assert b"GIT binary patch" in expected
        state = git_state(repository)
        assert state == GitState(commit_of(repository), "main", dirty=True, diff_bytes=len(expected))

    def test_the_diff_of_the_whole_tree_is_counted_from_below(self, repository: Path) -> None:
        (repository / "sub").mkdir()
        (repository / "train.py").write_text("print('other')\n")
        state = git_state(repository / "sub")
        assert state is not None
        assert state.diff_bytes == len(git(repository, "diff", "HEAD", "--binary"))

    def test_untracked_files_make_it_dirty_without_a_diff(self, repository: Path) -> None:
        git(repository, "config", "status.showUntrackedFiles", "no")
        (repository / "new.py").write_text("x = 1\n")
        state = git_state(repository)
        assert state == GitState(commit_of(repository), "main", dirty=True, diff_bytes=0)

    def test_ignored_files_leave_it_clean(self, repository: Path) -> None:
        (repository / ".git" / "info" / "exclude").write_text("*.log\n")
        (repository / "train.log").write_text("step 1\n")
        state = git_state(repository)
        assert state is not None
        assert not state.dirty

    def test_a_touched_but_equal_file_leaves_it_clean(self, repository: Path) -> None:
        os.utime(repository / "train.py", (1, 1))
        state = git_state(repository)
        assert state is not None
        assert not state.dirty

    def test_detached_head(self, repository: Path) -> None:
        git(repository, "checkout", "--quiet", "--detach")
        assert git_state(repository) == GitState(commit_of(repository), None, dirty=False, diff_bytes=0)

    def test_branch_names_with_slashes_and_letters_beyond_ascii(self, repository: Path) -> None:
        git(repository, "checkout", "--quiet", "-b", "essai/été")
        state = git_state(repository)
        assert state is not None
        assert state.branch == "essai/été"

    def test_no_commits_and_nothing_in_it(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "--quiet", "--initial-branch=trunk")
        assert git_state(tmp_path) == GitState("", "trunk", dirty=False, diff_bytes=0)

    def test_no_commits_but_staged_files(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "--quiet", "--initial-branch=trunk")
        (tmp_path / "train.py").write_text("print('first')\n")
        git(tmp_path, "add", "train.py")
        expected = git(tmp_path, "diff", "--cached", "--binary")
        assert expected
        assert git_state(tmp_path) == GitState("", "trunk", dirty=True, diff_bytes=len(expected))

    def test_a_linked_work_tree_has_its_own_branch(self, repository: Path, tmp_path: Path) -> None:
        linked = tmp_path / "linked"
        git(repository, "worktree", "add", "--quiet", "-b", "ablation", str(linked))
        state = git_state(linked)
        assert state is not None
        assert state.branch == "ablation"

    def test_a_changed_submodule_makes_it_dirty(self, repository: Path, tmp_path: Path) -> None:
        library = tmp_path / "library"
        git(tmp_path, "clone", "--quiet", str(repository), str(library))
        git(repository, "submodule", "--quiet", "add", str(library), "library")
        git(repository, "commit", "--quiet", "-m", "with library")
        clean = git_state(repository)
        (repository / "library" / "model.py").write_text("depth = 9\n")
        dirty = git_state(repository)
        assert clean is not None
        assert dirty is not None
        assert (clean.dirty, dirty.dirty) == (False, True)

    @pytest.mark.parametrize("kind", ["plain directory", "bare repository", "inside .git", "missing"])
    def test_none_without_a_work_tree(
        self, kind: str, repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        bare = tmp_path / "bare.git"
        git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
        plain = tmp_path / "plain"
        plain.mkdir()
        directory = {
            "plain directory": plain,
            "bare repository": bare,
            "inside .git": repository / ".git",
            "missing": tmp_path / "missing",
        }[kind]
        with caplog.at_level(logging.INFO, LOGGER):
            assert git_state(directory) is None
        assert bool(caplog.records) == (kind == "missing"), "only the unexpected deserves a word"

    def test_none_without_git(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("PATH", str(repository))
        with caplog.at_level(logging.INFO, LOGGER):
            assert git_state(repository) is None
        assert [(record.levelname, "no git on PATH" in record.message) for record in caplog.records] == [("INFO", True)]

    def test_a_hanging_git_is_ended_with_its_children(
        self,
        repository: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        child = tmp_path / "child"
        fake_git(tmp_path, monkeypatch, f"sleep 300 & echo $! > {shlex.quote(str(child))}; wait")
        started = time.monotonic()
        assert git_state(repository, timeout_s=0.5) is None
        assert 0.4 < time.monotonic() - started < 5
        assert "no answer within 0.5 s" in caplog.text
        assert caplog.records[0].levelname == "WARNING"
        pid = int(child.read_text())
        deadline = time.monotonic() + 5
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(pid)

    def test_a_git_that_never_stops_printing_is_ended(
        self,
        repository: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake_git(tmp_path, monkeypatch, "while :; do echo '# branch.oid 0123'; done")
        assert git_state(repository, timeout_s=0.5) is None
        assert "no answer within 0.5 s" in caplog.text

    def test_a_git_that_closes_its_output_and_stays_is_ended(
        self,
        repository: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake_git(tmp_path, monkeypatch, "exec >&- 2>&-; sleep 300")
        assert git_state(repository, timeout_s=0.5) is None
        assert "no answer within 0.5 s" in caplog.text

    @pytest.mark.parametrize(
        ("script", "told"),
        [
            ("echo 'fatal: the index is broken' >&2; exit 128", "fatal: the index is broken"),
            ("exit 3", "exit status 3"),
            ("kill -SEGV $$", "SIGSEGV"),
            ("head -c 300000 /dev/zero | tr '\\0' x >&2; exit 1", "xxxx"),
        ],
    )
    def test_a_failing_git_is_logged(
        self,
        script: str,
        told: str,
        repository: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake_git(tmp_path, monkeypatch, script)
        assert git_state(repository) is None
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert told in caplog.text
        assert len(caplog.records[0].message) < 2000

    def test_a_git_that_prints_something_else_is_logged(
        self,
        repository: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake_git(tmp_path, monkeypatch, "echo welcome")
        assert git_state(repository) is None
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "welcome" in caplog.text

    def test_a_git_that_cannot_be_executed_is_logged(
        self,
        repository: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake_git(tmp_path, monkeypatch, "")
        (tmp_path / "bin" / "git").write_bytes(b"\x7fELF but no more")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        assert git_state(repository) is None
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_a_repository_of_somebody_else_is_refused_with_the_remedy(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        assert git_state(repository) is None
        assert caplog.records[0].levelname == "WARNING"
        assert "safe.directory" in caplog.text

    def test_a_broken_link_to_a_repository_is_logged(
        self, repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        linked = tmp_path / "linked"
        git(repository, "worktree", "add", "--quiet", str(linked))
        (linked / ".git").write_text(f"gitdir: {tmp_path / 'gone'}\n")
        assert git_state(linked) is None
        assert caplog.records[0].levelname == "WARNING"

    def test_nothing_is_written_in_the_repository(self, repository: Path) -> None:
        # An index that git would like to refresh, and a change so that the diff runs too.
        for seconds, name in enumerate(["train.py", "model.py"], start=1):
            os.utime(repository / name, (seconds, seconds))
        (repository / "model.py").write_text("depth = 4\n")

        def contents() -> dict[str, str]:
            files = (path for path in (repository / ".git").rglob("*") if path.is_file())
            return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

        before = contents()
        state = git_state(repository)
        assert state is not None
        assert contents() == before
        assert state.diff_bytes == len(git(repository, "diff", "HEAD", "--binary"))
        assert contents() != before, "plain git found nothing to refresh, so this test shows nothing"

    def test_a_lock_held_by_another_git_does_not_matter(self, repository: Path) -> None:
        (repository / "model.py").write_text("depth = 4\n")
        (repository / ".git" / "index.lock").touch()
        state = git_state(repository)
        assert state is not None
        assert state.diff_bytes > 0

    def test_settings_that_change_the_diff_are_ignored(self, repository: Path) -> None:
        (repository / "model.py").write_text("depth = 4\n")
        expected = len(git(repository, "diff", "HEAD", "--binary"))
        git(repository, "config", "color.ui", "always")
        git(repository, "config", "diff.external", "false")
        state = git_state(repository)
        assert state is not None
        assert state.diff_bytes == expected

    def test_variables_of_a_hook_do_not_redirect_it(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        git(other, "init", "--quiet", "--initial-branch=other")
        expected = commit_of(repository)
        monkeypatch.setenv("GIT_DIR", str(other / ".git"))
        monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
        assert git_state(repository) == GitState(expected, "main", dirty=False, diff_bytes=0)

    def test_what_turns_files_into_text_does_not_change_the_size(self, repository: Path) -> None:
        (repository / ".git" / "info" / "attributes").write_text("*.py diff=shout\n")
        (repository / "model.py").write_text("depth = 4\n")
        expected = len(git(repository, "diff", "HEAD", "--binary"))
        git(repository, "config", "diff.shout.textconv", "cat; echo and a line more")
        assert len(git(repository, "diff", "HEAD", "--binary")) > expected
        state = git_state(repository)
        assert state is not None
        assert state.diff_bytes == expected

    def test_messages_are_understood_in_any_language(
        self,
        repository: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
        english = "echo 'fatal: not a git repository (or any of the parent directories): .git' >&2"
        german = "echo 'Schwerwiegend: Kein Git-Repository' >&2"
        fake_git(tmp_path, monkeypatch, f'if [ "$LC_ALL" = C ]; then {english}; else {german}; fi; exit 128')
        assert git_state(repository) is None
        assert not caplog.records

    def test_a_large_diff_is_counted_without_being_held(self, repository: Path) -> None:
        (repository / "model.py").write_bytes(os.urandom(24_000_000))
        state, peak_bytes = measured(repository)
        assert state is not None
        assert state.diff_bytes > 24_000_000
        assert peak_bytes < 3_000_000

    def test_a_long_list_of_changes_is_not_held(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        headers = r"printf '# branch.oid 0123\0# branch.head main\0'"
        fake_git(tmp_path, monkeypatch, f"{headers}; head -c 24000000 /dev/zero | tr '\\0' '?'")
        state, peak_bytes = measured(repository)
        assert state is not None
        assert (state.commit, state.branch, state.dirty) == ("0123", "main", True)
        assert peak_bytes < 3_000_000

    def test_a_long_complaint_is_not_held(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_git(tmp_path, monkeypatch, "head -c 24000000 /dev/zero | tr '\\0' x >&2; exit 1")
        state, peak_bytes = measured(repository)
        assert state is None
        assert peak_bytes < 3_000_000


def measured(directory: Path) -> tuple[GitState | None, int]:
    """Return the state and the most memory Python held at once while reading it, in bytes."""
    tracemalloc.start()
    try:
        return git_state(directory), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SECRET_NAMES = [
    "token", "hf-token", "HF_TOKEN", "hfToken", "HFToken", "HF_TOKEN_2", "HUGGING_FACE_HUB_TOKEN",
    "auth_token", "api_token", "AWS_SESSION_TOKEN", "AZURE_STORAGE_SAS_TOKEN", "access.token",
    "NEPTUNE_API_TOKEN", "accesstoken", "secret", "client_secret", "clientSecret",
    "AWS_SECRET_ACCESS_KEY", "secrets", "my.secret.value", "password", "db-password", "DB_PASSWORD",
    "PGPASSWORD", "passwd", "passphrase", "passwords", "db_pass", "db_pwd", "api-key", "apiKey", "APIKey",
    "API_KEY", "apikey", "wandb.api_key", "WANDB_API_KEY", "api_keys", "OPENAI_API_KEY_1", "private_key",
    "privateKey", "ssh-key", "access-key", "AccountKey", "encryption_key", "AZURE_STORAGE_KEY",
    "credential", "credentials", "aws.credentials", "creds", "auth", "basic_auth", "oauth2",
    "authorization", "Authorization", "bearer", "jwt", "cookie", "SLACK_WEBHOOK_URL", "connection_string",
    "AzureConnectionString",
]  # fmt: skip

PLAIN_NAMES = [
    "tokens", "max-tokens", "max_tokens", "maxTokens", "num_tokens", "tokenizer", "tokenizer.name",
    "tokenize", "tokens_per_batch", "token_dim", "pad_token", "pad-token", "eosToken", "mask_token",
    "cls_token", "class_token", "bos_token_id", "image_token", "loss_per_token", "model.mask_token",
    "detokenize", "special_tokens", "author", "authors", "authority", "monkey", "key", "keys", "keyboard",
    "turkey", "sort_key", "query_key", "key_dim", "num_keys", "secretary", "secretion", "compass", "pass",
    "passes", "forward_pass", "bypass", "passenger", "lr", "apical", "capital", "accessory", "access",
    "private", "PWD", "OLDPWD", "pwdist", "batch_size", "", "0", "été", "token_file", "private-key-path",
    "auth_dir", "credited", "incredible", "jwtfoo", "storage", "monkey.api",
]  # fmt: skip


class TestNamesASecret:
    @pytest.mark.parametrize("name", SECRET_NAMES)
    def test_secret_names(self, name: str) -> None:
        assert names_a_secret(name)

    @pytest.mark.parametrize("name", PLAIN_NAMES)
    def test_plain_names(self, name: str) -> None:
        assert not names_a_secret(name)


def captured_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    monkeypatch.setattr(sys, "orig_argv", list(words))
    return shlex.split(capture(Path.cwd(), git=False, packages=False).command)


R = REDACTED
COMMANDS = {
    # option and value in one word or in two
    "--api-key=xyz": f"--api-key={R}",
    "--api-key xyz": f"--api-key {R}",
    "--apiKey xyz --lr 1": f"--apiKey {R} --lr 1",
    "--hf-token xyz": f"--hf-token {R}",
    "--HF_TOKEN xyz": f"--HF_TOKEN {R}",
    "-token xyz": f"-token {R}",
    "--db-password 'with a space'": f"--db-password '{R}'",
    "--db-password='with a = and a space'": f"'--db-password={R}'",
    "--token -abc": f"--token {R}",
    "--token=": f"--token={R}",
    "--api-key xyz xyz": f"--api-key {R} xyz",
    # the next word is no value
    "--auth --lr 5": "--auth --lr 5",
    "--auth --lr=5": "--auth --lr=5",
    "--auth -v": "--auth -v",
    "--no-auth train.py": "--no-auth train.py",
    "--password": "--password",
    # assignments
    "TOKEN=xyz": f"TOKEN={R}",
    "wandb.api_key=xyz": f"wandb.api_key={R}",
    "+wandb.api_key=xyz": f"+wandb.api_key={R}",
    "++a.b.token=xyz": f"++a.b.token={R}",
    "--env TOKEN=xyz": f"--env TOKEN={R}",
    "--env=TOKEN=xyz": f"--env=TOKEN={R}",
    "--set a=b=c": "--set a=b=c",
    # inside other text
    """--config '{"api_key": "x,\\" yz", "lr": 1}'""": f"""--config '{{"api_key": {R}, "lr": 1}}'""",
    """--config='{"hf_token": "xyz"}'""": f"""--config='{{"hf_token": {R}}}'""",
    """--config '{"lr": 1, "auth": {"user": "xyz"}}'""": f"""--config '{{"lr": 1, "auth": {R}'""",
    "--set 'lr=1,token=xyz,depth=2'": f"--set 'lr=1,token={R},depth=2'",
    """-c 'os.environ["TOKEN"] = "xyz"; train()'""": f"""-c 'os.environ["TOKEN"] = {R}; train()'""",
    """--set 'lr=1,token="password=xyz",depth=2'""": f"--set 'lr=1,token={R},depth=2'",
    "-H 'Authorization: Bearer xyz'": f"-H 'Authorization: {R}'",
    "-H 'X-Api-Key: xyz'": f"-H 'X-Api-Key: {R}'",
    # URLs
    "--db postgres://ada:xyz@host:5432/runs": f"--db postgres://ada:{R}@host:5432/runs",
    "--db=postgres://ada:xyz@host/runs?sslmode=on": f"--db=postgres://ada:{R}@host/runs?sslmode=on",
    "redis://:xyz@host": f"redis://:{R}@host",
    "https://ada:x@yz@host/a": f"https://ada:{R}@host/a",
    "https://token:xyz@host/a": f"https://token:{R}@host/a",
    "'https://host/a?x=1&token=xyz&y=2'": f"'https://host/a?x=1&token={R}&y=2'",
    "'https://b.s3/a?X-Amz-Date=1&X-Amz-Signature=xyz'": f"'https://b.s3/a?X-Amz-Date=1&X-Amz-Signature={R}'",
    "'https://b.blob/a?sv=1&sig=xyz%3D'": f"'https://b.blob/a?sv=1&sig={R}'",
    "https://host:8080/path@2": "https://host:8080/path@2",
    "http://auth:8080/v1": "http://auth:8080/v1",
    "ssh://git@host:22/a": "ssh://git@host:22/a",
    # names that only look alike
    "--tokens 1000": "--tokens 1000",
    "--tokenizer gpt2": "--tokenizer gpt2",
    "--max-tokens 5": "--max-tokens 5",
    "--max-tokens=5": "--max-tokens=5",
    "--author x": "--author x",
    "--monkey 3": "--monkey 3",
    "--pad-token '<pad>'": "--pad-token '<pad>'",
    "--key 3": "--key 3",
    "--password-file /run/secrets/db": "--password-file /run/secrets/db",
    "-m pkg.auth train": "-m pkg.auth train",
    "train.py --lr 1e-3 data/a=b/c.parquet": "train.py --lr 1e-3 data/a=b/c.parquet",
    "--filter 'a == 3 and b: 4'": "--filter 'a == 3 and b: 4'",
}


class TestCommand:
    @pytest.mark.parametrize(("given", "kept"), COMMANDS.items())
    def test_secrets_are_redacted_and_nothing_else(
        self, given: str, kept: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert captured_command(monkeypatch, "python", *shlex.split(given)) == ["python", *shlex.split(kept)]

    def test_the_whole_line_is_quoted_for_a_shell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        words = ["python", "train.py", "a b", "it's", "$HOME", "", "*"]
        assert captured_command(monkeypatch, *words) == words

    def test_bytes_that_are_no_text_can_be_stored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "orig_argv", ["python", os.fsdecode(b"caf\xe9.py"), "été"])
        command = capture(Path.cwd(), git=False, packages=False).command
        assert command.encode().decode() == "python 'caf?.py' 'été'"

    def test_long_words_take_no_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        words = [
            "a=" * 20_000,
            "a-" * 20_000,
            "://a:" * 10_000,
            'a="' * 10_000,
            "x" * 100_000,
            "token " * 10_000,
        ]
        started = time.monotonic()
        assert captured_command(monkeypatch, *words) == words
        assert time.monotonic() - started < 5

    def test_of_a_real_program(self, tmp_path: Path) -> None:
        script = tmp_path / "train.py"
        script.write_text(
            "from pathlib import Path\n"
            "from ckptlake.runs.environment import capture\n"
            "print(capture(Path('.'), git=False, packages=False).command)\n"
        )
        words = [sys.executable, "-X", "utf8", str(script), "--lr", "1", "--token", "xyz"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        printed = subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout
        assert shlex.split(printed) == [*words[:-1], REDACTED]

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_of_a_worker_is_what_the_user_typed(self, method: str, tmp_path: Path) -> None:
        script = tmp_path / "train.py"
        script.write_text(
            "import multiprocessing\n"
            "from pathlib import Path\n"
            "from ckptlake.runs.environment import capture\n"
            "def work():\n"
            "    print(capture(Path('.'), git=False, packages=False).command, flush=True)\n"
            "if __name__ == '__main__':\n"
            f"    worker = multiprocessing.get_context({method!r}).Process(target=work)\n"
            "    worker.start()\n"
            "    worker.join()\n"
        )
        words = [sys.executable, str(script), "--lr", "1", "--token", "xyz"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        printed = subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout
        assert shlex.split(printed) == [*words[:-1], REDACTED]


def install(site: Path, directory: str, metadata: bytes | None) -> None:
    (site / directory).mkdir(parents=True)
    if metadata is not None:
        (site / directory / "METADATA").write_bytes(metadata)


class TestCapture:
    def test_this_process(self, repository: Path) -> None:
        environment = capture(repository)
        assert environment.host == platform.node()
        assert environment.pid == os.getpid()
        assert environment.python == ".".join(map(str, sys.version_info[:3])) + (
            "" if sys.version_info.releaselevel == "final" else platform.python_version()[-2:]
        )
        assert environment.git == git_state(repository)
        assert environment.git is not None

    def test_packages_by_normalised_name(self) -> None:
        packages = capture(Path.cwd(), git=False).packages
        assert packages["pytest"] == pytest.__version__
        assert packages["psutil"] == importlib.metadata.version("psutil")
        assert list(packages) == sorted(packages)
        assert all(name == name.lower() and "_" not in name for name in packages)

    def test_the_first_of_two_versions_is_the_one_imported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tmp_path / "a", "Some_Lib-2.0.dist-info", b"Name: Some._Lib\nVersion: 2.0\n")
        install(tmp_path / "b", "some_lib-1.0.dist-info", b"Name: some-lib\nVersion: 1.0\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b"), *sys.path])
        assert capture(tmp_path, git=False).packages["some-lib"] == "2.0"

    def test_broken_distributions_are_passed_over(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(tmp_path, "half_removed-1.0.dist-info", None)
        install(tmp_path, "nameless-1.0.dist-info", b"Version: 1.0\n")
        install(tmp_path, "versionless-1.0.dist-info", b"Name: versionless\n")
        install(tmp_path, "binary-1.0.dist-info", b"Name: \xff\xfe\nVersion: 1.0\n")
        install(tmp_path, "~lftover-1.0.dist-info", b"")
        install(tmp_path, "sound-1.0.dist-info", b"Name: sound\nVersion: 1.0\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        assert capture(tmp_path, git=False).packages == {"sound": "1.0"}

    def test_parts_that_are_off_cost_nothing(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called = tmp_path / "called"
        fake_git(tmp_path, monkeypatch, f"touch {shlex.quote(str(called))}")
        monkeypatch.setattr("ckptlake.runs.environment.distributions", lambda: pytest.fail("was listed"))
        environment = capture(repository, git=False, packages=False)
        assert (environment.git, environment.packages) == (None, {})
        assert not called.exists()

    def test_can_be_written_as_json(self, repository: Path) -> None:
        environment = capture(repository)
        assert isinstance(environment, Environment)
        assert json.loads(json.dumps(environment.packages)) == environment.packages
