"""`ckptlake checkpoints diff`, `export` and `import`: what goes out can be read elsewhere, and comes in again."""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import HOSTILE, Outcome, invoke
from safetensors.numpy import load_file, save_file

import ckptlake
from ckptlake import Lake, Run

Cli = Callable[..., Outcome]


@pytest.fixture
def saved(start: Callable[..., Run]) -> list[str]:
    """Two checkpoints of which one tensor of four is the same."""
    with start("pose", run_id="run-a") as run:
        ids = []
        for step in (1, 2):
            w = np.array([3.0, 4.0], "f4") * step
            state = {"model": {"w": w, "frozen": np.ones(3, "f4"), "head": np.zeros(2 * step, "f4")}, "lr": step}
            if step == 2:
                state["extra"] = np.arange(2)
            ids.append(run.save_checkpoint(state, step=step).id)
    return ids


class TestDiff:
    def test_tells_what_differs(self, cli: Cli, saved: list[str]) -> None:
        rows = {row["path"]: row for row in cli("checkpoints", "diff", "1", "2", "--json").json}
        assert rows["model/frozen"]["is_same"] is True
        assert rows["model/w"]["l2_distance"] == pytest.approx(5.0)
        assert rows["model/w"]["relative_change"] == pytest.approx(1.0)
        assert (rows["extra"]["in_a"], rows["extra"]["in_b"]) == (False, True)
        assert len(saved) == 2

    def test_shows_only_that(self, cli: Cli, saved: list[str]) -> None:
        shown = cli("checkpoints", "diff", *saved)
        cells = {line.split()[0]: line for line in shown.lines[2:-1]}
        assert set(cells) == {"model/w", "model/head", "extra"}
        assert "100%" in cells["model/w"]
        assert "2 → 4" in cells["model/head"]
        assert "only in B" in cells["extra"]
        assert shown.lines[-1] == "3 of 4 tensors differ"
        assert cli("checkpoints", "diff", "1", "1").out == "no difference in 3 tensors\n"

    def test_by_layer(self, cli: Cli, saved: list[str]) -> None:
        rows = {row["layer"]: row for row in cli("checkpoints", "diff", *saved, "--depth", "1", "--json").json}
        assert (rows["model"]["num_tensors"], rows["model"]["num_changed"]) == (3, 2)
        assert cli("checkpoints", "diff", *saved, "--depth", "1").lines[0].startswith("layer")

    def test_what_is_no_number_stays_json(self, cli: Cli, start: Callable[..., Run]) -> None:
        with start(run_id="run-z") as run:
            for step, value in ((1, 0.0), (2, 1.0)):
                run.save_checkpoint({"w": np.full(3, value, "f4"), "n": np.array([math.nan, step], "f4")}, step=step)
        rows = {row["path"]: row for row in cli("checkpoints", "diff", "1", "2", "--json").json}
        assert rows["w"]["relative_change"] == "Infinity"
        assert "from 0" in cli("checkpoints", "diff", "1", "2").out


class TestExport:
    def test_others_read_it(self, cli: Cli, tmp_path: Path, saved: list[str]) -> None:
        path = tmp_path / "out.safetensors"
        done = cli("checkpoints", "export", "2", str(path), "--part", "model", "--json").json
        assert (done["checkpoint_id"], done["format"], done["num_tensors"]) == (saved[1], "safetensors", 3)
        assert done["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert done["size_bytes"] == path.stat().st_size
        np.testing.assert_array_equal(load_file(path)["w"], [6.0, 8.0])

    def test_only_what_is_asked_for(self, cli: Cli, tmp_path: Path, saved: list[str]) -> None:
        path = tmp_path / "some.bin"
        words = ("checkpoints", "export", saved[0], str(path), "--format", "npz", "--only", "*/w", "--only", "*/head")
        assert cli(*words).out.startswith(f"wrote 2 tensors of {saved[0]}, ")
        with np.load(path) as archive:
            assert sorted(name for name in archive.files if "ckptlake" not in name) == ["model/head", "model/w"]

    def test_nothing_is_replaced_unasked(self, cli: Cli, tmp_path: Path, saved: list[str]) -> None:
        path = tmp_path / "out.npz"
        path.write_text("mine")
        done = cli("checkpoints", "export", "latest", str(path))
        assert (done.code, done.out, path.read_text(), len(saved)) == (1, "", "mine", 2)
        assert "--overwrite" in done.err
        assert cli("checkpoints", "export", "latest", str(path), "--overwrite").code == 0
        assert path.read_bytes()[:2] == b"PK"

    @pytest.mark.parametrize("name", ["out", "out.xyz", "no/out.npz", *(f"{text}.txt" for text in HOSTILE)])
    def test_where_it_cannot_go(self, cli: Cli, tmp_path: Path, saved: list[str], name: str) -> None:
        done = cli("checkpoints", "export", "latest", str(tmp_path / name))
        assert (done.code, done.out, len(saved)) == (1, "", 2)
        assert done.err.count("\n") == 1
        assert "\x1b" not in done.err
        assert [path.name for path in tmp_path.iterdir()] == ["lake"]

    def test_damage_is_not_handed_on(self, cli: Cli, root: Path, tmp_path: Path, saved: list[str]) -> None:
        pack = root / "blobs" / f"{saved[1]}.safetensors"
        pack.write_bytes(pack.read_bytes()[:-4] + b"\x7f\x7f\x7f\x7f")
        done = cli("checkpoints", "export", saved[1], str(tmp_path / "out.npz"))
        assert (done.code, done.out) == (1, "")
        assert not (tmp_path / "out.npz").exists()


class TestImport:
    def test_into_a_new_run(self, cli: Cli, lake: Lake, tmp_path: Path) -> None:
        path = tmp_path / "theirs.safetensors"
        save_file({"a.weight": np.arange(6, dtype="f4").reshape(2, 3)}, path)
        words = ("--experiment", "imported", "--name", "base", "--step", "7", "--metric", "a=b=0.5", "--alias", "first")
        done = cli("checkpoints", "import", str(path), *words, "--json").json
        assert (done["step"], done["metrics"], done["aliases"]) == (7, {"a=b": 0.5}, ["first"])
        assert "theirs.safetensors" in done["note"]
        loaded = lake.checkpoints.load("first")
        np.testing.assert_array_equal(loaded["a.weight"], [[0, 1, 2], [3, 4, 5]])
        assert [run["name"] for run in cli("runs", "list", "--status", "finished", "--json").json] == ["base"]

    def test_into_a_run_that_is_there(self, cli: Cli, tmp_path: Path, saved: list[str]) -> None:
        path = tmp_path / "out.npz"
        assert cli("checkpoints", "export", "2", str(path)).code == 0
        shown = cli("checkpoints", "import", str(path), "--run", "run-", "--note", "again")
        assert "run         run-a, attempt 2\n" in shown.out
        assert "step        2\n" in shown.out
        assert len(cli("checkpoints", "list", "--run", "run-a", "--json").json) == len(saved) + 1

    def test_what_would_run_code_starts_no_run(self, cli: Cli, lake: Lake, tmp_path: Path) -> None:
        class Attack:
            def __reduce__(self) -> tuple[object, ...]:
                return (Path.touch, (tmp_path / "ran",))

        evil, cut = tmp_path / "evil.pkl", tmp_path / "cut.safetensors"
        evil.write_bytes(pickle.dumps(Attack()))
        cut.write_bytes(b"\xff" * 12)
        for path in (evil, cut, tmp_path / "nothing", tmp_path):
            done = cli("checkpoints", "import", str(path), "--experiment", "x")
            assert (done.code, done.out) == (1, ""), path
            assert done.err.count("\n") == 1
        assert not (tmp_path / "ran").exists()
        assert cli("runs", "list", "--json").json == []
        assert lake.checkpoints.list() == []

    @pytest.mark.parametrize(
        "words",
        [
            (),
            ("--run", "a", "--experiment", "b"),
            ("--run", "a", "--name", "b"),
            ("--experiment", "e", "--metric", "x"),
        ],
    )
    def test_where_to_must_be_clear(self, cli: Cli, lake: Lake, words: tuple[str, ...]) -> None:
        done = cli("checkpoints", "import", "x.npz", *words)
        assert (done.code, done.out, lake.checkpoints.list()) == (2, "", [])

    def test_from_another_lake(self, root: Path, tmp_path: Path, saved: list[str]) -> None:
        other = tmp_path / "other"
        ckptlake.open(other).close()
        manifest = root / "checkpoints" / f"{saved[0]}.json"
        done = invoke("checkpoints", "import", str(manifest), "--experiment", "x", "--lake", str(other), "--json")
        assert (done.code, done.json["step"]) == (0, 1)
        np.testing.assert_array_equal(ckptlake.open(other).checkpoints.load("latest")["model"]["w"], [3.0, 4.0])
