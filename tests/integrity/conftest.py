"""A lake with checkpoints of every kind: made once, copied for each test that damages it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from damaged_lakes import Scene, build


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The lake that all others are copies of; leave it alone."""
    return build(tmp_path_factory.mktemp("whole") / "lake")


@pytest.fixture
def scene(whole: Scene, tmp_path: Path) -> Scene:
    return whole.copy(tmp_path / "lake")


@pytest.fixture
def fresh(whole: Scene) -> Iterator[Callable[[], Scene]]:
    """Make a copy of the lake for each example of a property."""
    with TemporaryDirectory() as folder:
        count = 0

        def copy() -> Scene:
            nonlocal count
            count += 1
            return whole.copy(Path(folder, str(count)))

        yield copy
