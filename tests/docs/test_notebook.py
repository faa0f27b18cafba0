"""The notebooks run from top to bottom, and the outputs saved with them are whole and tell nothing of a machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_pages import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SPEEDRUN_LOGS = ROOT.parent / "shared" / "data" / "speedrun.parquet"
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|var|usr|opt|mnt|work|Users|private)/|\b[A-Z]:\\\\")


def _read(path: Path) -> Any:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    """It runs without an error and gives outputs of the kinds that are saved with it."""
    _check_runs(path, tmp_path, tmp_path / "no logs")


@pytest.mark.skipif(not SPEEDRUN_LOGS.exists(), reason="the logs of the speed run are not beside the clone")
@pytest.mark.parametrize("name", ["02_query.ipynb", "03_compare_runs.ipynb"])
def test_the_questions_are_answered_on_real_logs_too(name: str, tmp_path: Path) -> None:
    _check_runs(ROOT / "notebooks" / name, tmp_path, SPEEDRUN_LOGS)


def _check_runs(path: Path, tmp_path: Path, logs: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CKPTLAKE_DIR"}
    environment |= {"JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(ROOT)}
    environment["SPEEDRUN_LOGS"] = str(logs)
    program = [
        sys.executable,
        str(Path(__file__).with_name("execute_notebook.py")),
        str(path),
        str(tmp_path / path.name),
    ]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    saved, executed = _read(path), _read(tmp_path / path.name)
    kinds = [[_kinds(cell) for cell in notebook.cells] for notebook in (saved, executed)]
    assert kinds[0] == kinds[1], "run the notebook again and save it, as execute_notebook.py says"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_saved_outputs_are_of_one_whole_run(path: Path) -> None:
    cells = [cell for cell in _read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_saved_outputs_hold_no_absolute_path(path: Path) -> None:
    outputs = json.dumps([cell.get("outputs", []) for cell in _read(path).cells])
    assert not _ABSOLUTE_PATH.search(outputs)


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


def _kinds(cell: Any) -> list[str]:
    return [output.output_type for output in cell.get("outputs", [])]
