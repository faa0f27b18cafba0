"""The command line, run in this process or one of its own, on real lakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, invoke

import ckptlake
from ckptlake import Capture, Lake, Run, Settings


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CKPTLAKE_DIR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def lake(root: Path) -> Iterator[Lake]:
    """A lake to write to, where commits happen when a run ends and not before."""
    with ckptlake.open(root, settings=Settings(commit_interval_s=3600)) as lake:
        yield lake


@pytest.fixture
def start(lake: Lake) -> Callable[..., Run]:
    """Start a run that captures nothing unless told to."""

    def start(experiment: str = "tests", **options: Any) -> Run:
        options.setdefault("capture", Capture.nothing())
        return lake.run(experiment, **options)

    return start


@pytest.fixture
def cli(root: Path) -> Callable[..., Outcome]:
    """Run a command on the lake in this process; the lake need not be there."""

    def cli(*words: str, **options: Any) -> Outcome:
        return invoke(*words, "--lake", str(root), **options)

    return cli
