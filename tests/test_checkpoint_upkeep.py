"""What happens by itself after a save: retention and compression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ckptlake
from ckptlake import Best, InvalidInputError, Lake, Latest, Settings
from ckptlake.config import Capture


def state(step: int) -> dict[str, np.ndarray]:
    weights = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    return {"w": weights + np.float32(step * 1e-6), "frozen": weights[:1000].copy()}


def steps(lake: Lake) -> list[int | None]:
    return [record.step for record in lake.checkpoints.list()]


def test_a_policy_is_applied_after_each_save(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake, lake.run(capture=Capture.nothing()) as run:
        run.define("loss", direction="min")
        run.save_checkpoint(state(0), step=0, metrics={"loss": 0.1})
        run.retain_checkpoints("latest(2)")
        for step in range(1, 6):
            run.save_checkpoint(
                state(step), step=step, metrics={"loss": float(step)}, async_=step % 2 == 0, pin=step == 2
            )
        run.load_checkpoint("latest")
        assert steps(lake) == [0, 2, 4, 5]
        files = {path.name for path in (lake.path / "checkpoints").glob("*.json")}
        assert files == {f"{record.id}.json" for record in lake.checkpoints.list()}
        run.retain_checkpoints(Latest(1))
        run.save_checkpoint(state(6), step=6)
        assert steps(lake) == [0, 2, 6]
        run.retain_checkpoints(None)
        run.save_checkpoint(state(7), step=7)
        assert steps(lake) == [0, 2, 6, 7]
        assert all(lake.checkpoints.verify(record.id).is_good for record in lake.checkpoints.list())


def test_a_policy_that_cannot_be_read(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake, lake.run(capture=Capture.nothing()) as run:
        with pytest.raises(InvalidInputError, match="newest"):
            run.retain_checkpoints("newest(2)")
        with pytest.raises(InvalidInputError, match="many"):
            run.retain_checkpoints("latest(2)", quota="many")


def test_what_goes_wrong_is_raised_at_the_next_call(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake, lake.run(capture=Capture.nothing()) as run:
        run.retain_checkpoints(Best("loss"))
        saved = run.save_checkpoint(state(0), metrics={"loss": 1.0})
        with pytest.raises(InvalidInputError, match="direction"):
            run.log({"loss": 1.0})
        assert lake.checkpoints.get("latest").id == saved.id


def test_older_ones_are_compressed_in_the_background(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake", settings=Settings(compress_checkpoints=True)) as lake:
        with lake.run(capture=Capture.nothing()) as run:
            for step in range(4):
                run.save_checkpoint(state(step), step=step)
                assert run._session is not None
                run._session.upkeep.join()
        blobs = lake.path / "blobs"
        assert (len(list(blobs.glob("*.ckpk"))), len(list(blobs.glob("*.safetensors")))) == (3, 1)
        for step in range(4):
            assert np.array_equal(lake.checkpoints.load(step)["w"], state(step)["w"])


def test_two_checkpoints_are_compared(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake, lake.run(capture=Capture.nothing()) as run:
        for step in range(2):
            run.save_checkpoint(state(step), step=step)
        frame = lake.diff(0, 1)
    distances = dict(zip(frame["path"], frame["l2_distance"], strict=True))
    assert distances["frozen"] == 0
    assert distances["w"] == pytest.approx(float(np.linalg.norm(state(1)["w"] - state(0)["w"])), rel=1e-3)
