"""docs/cli.md names every command and every option there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ckptlake.cli.app import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if getattr(command, "commands", None):
        for word, below in command.commands.items():
            yield from commands(below, f"{name} {word}")
    else:
        yield name, command


COMMANDS = dict(commands(typer.main.get_command(app), "ckptlake"))


def section(name: str) -> str:
    """Return what the page says below the heading of a command."""
    match = re.search(rf"^## `{re.escape(name)}[ `].*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/cli.md has no heading for `{name}`"
    return match[0]


def options(command: Any) -> set[str]:
    given = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    return {word for option in given for word in (*option.opts, *option.secondary_opts)} - {"--help", "-h"}


def options_made_when_asked(command: Any) -> set[str]:
    """Return the options of the commands below one that are not there before they are asked for."""
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    return {word for name in names for word in options(command.get_command(None, name))}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described(name: str) -> None:
    text = section(name)
    general = {"--lake", "--json"}
    described = set(re.findall(r"`(-{1,2}[a-z][a-z-]*)", text))
    assert options(COMMANDS[name]) - general <= described
    assert described <= options(COMMANDS[name]) | options_made_when_asked(COMMANDS[name]) | {"--yes", "--apply"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_with_its_output(name: str) -> None:
    blocks = re.findall(r"^```console\n(.*?)^```", section(name), re.MULTILINE | re.DOTALL)
    assert any(f"$ {name}" in block and len(block.splitlines()) > 1 for block in blocks)


def test_every_argument_stands_in_its_heading() -> None:
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                assert parameter.metavar in section(name).splitlines()[0], name


def test_every_command_takes_a_lake_and_json() -> None:
    for name, command in COMMANDS.items():
        assert {"--lake", "--json"} <= options(command), name
    assert "`--lake DIR`" in PAGE
    assert "`--json`" in PAGE


def test_no_heading_is_left_of_a_command_that_is_gone() -> None:
    headings = re.findall(r"^## `(ckptlake[a-z ]*[a-z])", PAGE, re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)
