"""A lake and states for tests of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptlake
from ckptlake import Lake
from ckptlake.config import Capture


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with ckptlake.open(tmp_path / "lake") as opened:
        yield opened


@pytest.fixture
def run(lake: Lake) -> Iterator[ckptlake.Run]:
    with lake.run(experiment="tests", capture=Capture.nothing()) as started:
        yield started
