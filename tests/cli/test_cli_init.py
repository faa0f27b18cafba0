"""`ckptlake init`, and that nothing else creates a lake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome, invoke

import ckptlake

READING = [
    ("runs", "list"),
    ("runs", "show", "x"),
    ("runs", "delete", "x", "--yes"),
    ("sql", "select 1"),
    ("tail", "x"),
    ("recover",),
    ("compact",),
    ("vacuum",),
    ("du",),
]


def test_creates_a_lake_and_says_where_and_what_next(cli: Callable[..., Outcome], root: Path) -> None:
    done = cli("init")
    assert done.code == 0
    assert done.lines[0] == f"Created a lake in {root}"
    program = done.out[done.out.index("    import") : done.out.index("and look")]
    exec("\n".join(line.removeprefix("    ") for line in program.splitlines()), {})
    runs = ckptlake.open(root, create=False).sql("select experiment, status from runs").fetchall()
    assert runs == [("first", "finished")]
    assert done.lines[-1].split() == ["ckptlake", "runs", "list", "--lake", str(root)]


def test_a_lake_that_is_there_stays_as_it_is(cli: Callable[..., Outcome], root: Path) -> None:
    first = cli("init", "--json").json
    before = (root / "lake.json").read_bytes()
    second = cli("init", "--json").json
    assert (first["created"], second["created"]) == (True, False)
    assert {name: first[name] for name in ("path", "lake_id", "created_at")} == {
        name: second[name] for name in ("path", "lake_id", "created_at")
    }
    assert first["path"] == str(root)
    assert cli("init").out == f"There is a lake already in {root}\n"
    assert (root / "lake.json").read_bytes() == before


def test_the_directory_of_something_else_is_left_alone(cli: Callable[..., Outcome], root: Path) -> None:
    root.mkdir()
    (root / "thesis.tex").write_text("x")
    done = cli("init", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert "thesis.tex" in done.err
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


def test_a_strange_path_can_be_pasted_from_the_hints(tmp_path: Path) -> None:
    path = tmp_path / 'it\'s a "lake"'
    done = invoke("init", "--lake", str(path))
    program = done.out[done.out.index("    import") : done.out.index("and look")]
    exec("\n".join(line.removeprefix("    ") for line in program.splitlines()), {})
    assert len(ckptlake.open(path, create=False).sql("select * from runs").fetchall()) == 1


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_no_other_command_creates_one(words: tuple[str, ...], cli: Callable[..., Outcome], root: Path) -> None:
    done = cli(*words)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"error: {root} is not a lake: it has no lake.json; create one with `ckptlake init --lake {root}`\n"
    )
    assert not root.exists()


def test_the_lake_comes_from_the_option_then_the_environment_then_the_working_directory(tmp_path: Path) -> None:
    for name in ("lake", "from-env", "given"):
        invoke("init", "--lake", str(tmp_path / name))

    def path_of(*words: str, **environment: str) -> str:
        return Path(invoke("version", "--json", *words, **environment).json["lake"]["path"]).name

    assert path_of() == "lake"
    assert path_of(CKPTLAKE_DIR=str(tmp_path / "from-env")) == "from-env"
    assert path_of("--lake", str(tmp_path / "given"), CKPTLAKE_DIR=str(tmp_path / "from-env")) == "given"
    assert path_of(CKPTLAKE_DIR="") == "lake"
