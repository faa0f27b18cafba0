"""Valid files changed in every way: each is read, or refused with an error that is declared, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import Change, mutated
from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]
WITHOUT_ATHERIS = """
import runpy, sys
sys.modules["atheris"] = None
runpy.run_module("tests.fuzz", run_name="__main__")
"""
numbers = st.integers(0, 2**16)
changes = st.lists(st.builds(Change, numbers, numbers, numbers, numbers), min_size=1, max_size=4)
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@each_target
def test_valid_files_are_read(target: Target) -> None:
    assert target.specimens()
    for data in target.specimens():
        target.read(data)
        if target.reseal is not None:
            target.read(target.reseal(data))


@each_target
@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(start=numbers, changed=changes, form=numbers)
def test_changed_files_are_read_or_refused(target: Target, start: int, changed: list[Change], form: int) -> None:
    files = target.specimens()
    forms = [*target.forms, None]
    target.check(mutated(files[start % len(files)], changed, files, forms[form % len(forms)]))


@each_target
def test_changes_reach_what_is_behind_checksums(target: Target) -> None:
    """Of files changed within their form some are still read, or what is refused is more than one thing."""
    said = set()
    for number in range(40):
        change = Change(2 * (number % 5) + 1, 7919 * number, number, number)
        for form in target.forms:
            data = mutated(target.specimens()[-1], [change], target.specimens(), form)
            try:
                target.read(target.reseal(data) if target.reseal is not None else data)
            except target.declared as error:
                said.add(str(error)[-60:])
    assert len(said) > 3 or not target.forms


def driven(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-m", "tests.fuzz"] if code is None else ["-c", code]), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_driver_tells_how_to_install_what_it_needs() -> None:
    done = driven("manifest", code=WITHOUT_ATHERIS)
    assert done.returncode == 2
    assert "pip install atheris" in done.stderr


def test_a_finding_can_be_read_again_without_it(tmp_path: Path) -> None:
    (tmp_path / "finding").write_bytes(b"no manifest")
    done = driven("manifest", "--replay", str(tmp_path / "finding"), code=WITHOUT_ATHERIS)
    assert done.returncode == 0, done.stderr
    done = driven("nothing", "--replay", str(tmp_path / "finding"))
    assert done.returncode == 2
    assert "no target is called nothing; there are manifest, raw_pack" in done.stderr
