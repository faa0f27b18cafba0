"""What importing costs, and which package opens the door to which engine."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptlake

PACKAGE = Path(ckptlake.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ["duckdb", "polars", "pyarrow", "deltalake", "torch", "numpy", "pandas", "psutil", "rich", "typer"]


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh process has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return set(found.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import ckptlake",
        "import ckptlake; dir(ckptlake); ckptlake.Settings(); ckptlake.RunStatus.FAILED; ckptlake.QueryError",
        "import ckptlake, tempfile; lake = ckptlake.open(tempfile.mkdtemp()); repr(lake); lake.close()",
    ],
)
def test_importing_and_opening_load_no_engine(statement: str) -> None:
    assert loaded_by(statement).isdisjoint(HEAVY)


def test_reading_loads_neither_torch_nor_polars() -> None:
    statement = "import ckptlake, tempfile; ckptlake.open(tempfile.mkdtemp()).sql('FROM runs').fetchall()"
    assert loaded_by(statement).isdisjoint({"torch", "polars"})


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every module imported at run time anywhere in a module, with its line."""
    if is_type_checking(tree):
        assert isinstance(tree, ast.If)
        for other in tree.orelse:
            yield from imported(other)
        return
    if isinstance(tree, ast.Import):
        yield from ((alias.name, tree.lineno) for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom) and tree.level == 0:
        yield str(tree.module), tree.lineno
    elif isinstance(tree, ast.Call) and ast.unparse(tree.func).endswith(("import_module", "__import__")):
        argument = tree.args[0] if tree.args else None
        if isinstance(argument, ast.Constant):
            yield str(argument.value), tree.lineno
    for node in ast.iter_child_nodes(tree):
        yield from imported(node)


def importers(engine: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for name, _ in imported(tree_of(path))
        if name.partition(".")[0] == engine
    }


def within(directory: str) -> set[str]:
    return {str(path.relative_to(PACKAGE)) for path in (PACKAGE / directory).rglob("*.py")}


def test_the_scan_sees_imports() -> None:
    tree = ast.parse(
        "if TYPE_CHECKING:\n    import a\nelse:\n    import b\n"
        "def f():\n    from c.d import e\n    import_module('g.h')"
    )
    assert sorted(name for name, _ in imported(tree)) == ["b", "c.d", "g.h"]


@pytest.mark.parametrize(
    ("engine", "doors"),
    [
        ("deltalake", {"tables/delta.py"}),
        ("duckdb", {"query/duck.py"}),
        ("torch", within("checkpoints/formats")),
        ("pandas", set()),
        ("polars", {"checkpoints/comparison.py", *within("analytics"), *within("query/analysis")}),
        *((name, within("analytics")) for name in ("scipy", "statsmodels", "sklearn", "optuna", "ruptures")),
        ("pyspark", {"query/spark.py"}),
        ("fcntl", {"_internal/locks.py"}),
    ],
)
def test_every_engine_has_one_door(engine: str, doors: set[str]) -> None:
    assert importers(engine) <= doors


def test_the_public_names_are_those_that_can_be_imported() -> None:
    assert sorted(ckptlake.__all__) == ckptlake.__all__ == dir(ckptlake)
    for name in ckptlake.__all__:
        assert getattr(ckptlake, name) is not None
    public = {name for name in vars(ckptlake) if not name.startswith("_")}
    submodules = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    extra = public - set(ckptlake.__all__) - submodules - {"annotations", "import_module", "TYPE_CHECKING"}
    assert extra == set()
    with pytest.raises(AttributeError, match="no_such_name"):
        ckptlake.no_such_name  # noqa: B018


def test_every_error_is_public() -> None:
    from ckptlake import errors

    raised = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert raised <= set(ckptlake.__all__)
    drawn = errors.__doc__ or ""
    assert {name for name in raised if name not in drawn} == set(), "the tree in the docstring shows every error"
