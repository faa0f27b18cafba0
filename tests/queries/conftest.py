"""Fixtures that make scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from query_scenes import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "lake")
    yield scene
    scene.lake.close()


@pytest.fixture(scope="module")
def make_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Scene]]:
    scenes = []

    def make(name: str) -> Scene:
        scenes.append(Scene(tmp_path_factory.mktemp("scene") / name))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.lake.close()
