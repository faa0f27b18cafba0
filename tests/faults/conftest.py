"""What fault tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disks import SmallDisk, mounted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    place = tmp_path / "small"
    place.mkdir()
    with mounted(place, 24 << 20) as disk:
        yield disk
