"""The queries come with the package, wherever it is installed from."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ckptlake.query.library import list_queries

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_has_them_and_finds_them(tmp_path: Path) -> None:
    """The build fetches its backend, so this needs a package index."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        held = {name.rpartition("/")[2] for name in packed.namelist() if name.startswith("ckptlake/query/library_sql/")}
        packed.extractall(tmp_path / "site")
    assert {f"{query.name}.sql" for query in list_queries()} <= held
    program = "import ckptlake.query.library as l; print(l.__file__); print(*(q.name for q in l.list_queries()))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert found[0].startswith(str(tmp_path / "site"))
    assert found[1].split() == [query.name for query in list_queries()]


def test_a_checkout_has_one_copy_of_them() -> None:
    assert not (ROOT / "ckptlake" / "query" / "library_sql").exists()
    assert sorted(path.stem for path in (ROOT / "queries").glob("*.sql")) == [query.name for query in list_queries()]
