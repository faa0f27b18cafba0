"""Every block of the documentation runs, every command exists, every link leads somewhere."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from markdown_pages import LINKED, PAGES, ROOT, Block, anchors, blocks, links

import ckptlake

_COMMAND = re.compile(r"(\.venv/bin/)?ckptlake ")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_and_sql_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks run in order in one namespace and an empty directory; SQL runs on the page's `lake` and
    finds rows, unless a comment says that there are none.

    A Python block whose first line is a file name is written there and started as a program beside the others.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CKPTLAKE_DIR", raising=False)
    module = ModuleType("documentation_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    namespace: dict[str, Any] = vars(module)
    programs: list[subprocess.Popen[bytes]] = []
    try:
        for block in blocks(page):
            if block.not_run is None:
                _run(block, namespace, programs, tmp_path)
        for program in programs:
            assert program.wait(timeout=60) == 0, f"{program.args} failed"
    finally:
        for program in programs:
            program.kill()
        for value in namespace.values():
            if isinstance(value, ckptlake.Lake):
                value.close()


def _run(block: Block, namespace: dict[str, Any], programs: list[subprocess.Popen[bytes]], directory: Path) -> None:
    if block.language == "python" and block.file_name is not None:
        (directory / block.file_name).write_text(block.text)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        programs.append(subprocess.Popen([sys.executable, "-W", "error", block.file_name], env=environment))
    elif block.language == "python":
        exec(compile(block.padded, str(block.page), "exec"), namespace)
    elif block.language == "sql" and "lake" in namespace:
        rows = namespace["lake"].sql(block.text).fetchall()
        assert bool(rows) != block.no_rows, f"{block.page.name}, line {block.line}: {len(rows)} rows"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_blocks_that_do_not_run_say_why(page: Path) -> None:
    assert all(block.not_run != "" for block in blocks(page))


def _commands() -> Iterator[Any]:
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("console", "sh") and block.not_run is None:
                text = block.text.replace("\\\n", " ")
                for line in text.splitlines():
                    command = line.strip().removeprefix("$ ")
                    if _COMMAND.match(command):
                        yield pytest.param(command, id=f"{_name(page)}: {command}")


def _root_command() -> Any:
    import typer

    cli = importlib.import_module("ckptlake.cli")
    try:
        app: Any = getattr(cli, "app", None) or importlib.import_module("ckptlake.cli.app")
    except ModuleNotFoundError:
        pytest.skip("ckptlake.cli has no app yet")
    return typer.main.get_command(app.app if isinstance(app, ModuleType) else app)


def _parse(command: Any, words: Sequence[str]) -> None:
    """Parse words as the command line does, without running anything.

    Raises:
        Exception: there is no such command or option.
    """
    context = command.context_class(command, info_name="ckptlake")
    while hasattr(command, "commands"):
        parser = command.make_parser(context)
        parser.allow_interspersed_args = False
        _, words, _ = parser.parse_args(args=list(words))
        if not words:
            return
        name, found, words = command.resolve_command(context, list(words))
        command, context = found, found.context_class(found, info_name=name, parent=context)
    command.make_parser(context).parse_args(args=list(words))


@pytest.mark.parametrize("command", list(_commands()))
def test_documented_commands_exist(command: str) -> None:
    words = shlex.split(command, comments=True)
    end = next((index for index, word in enumerate(words) if word in {"|", ">", ">>", "&&", ";", "<"}), len(words))
    _parse(_root_command(), words[1:end])


@pytest.mark.parametrize("command", ["ckptlake fly", "ckptlake sql --sideways"])
def test_a_command_that_does_not_exist_would_be_noticed(command: str) -> None:
    root = _root_command()
    with pytest.raises(Exception, match=r"(?i)no such"):
        _parse(root, shlex.split(command)[1:])


@pytest.mark.parametrize("page", LINKED, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{_name(page)} links to {target}, which is not there"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{_name(page)} links to {target}; no heading has this anchor"
