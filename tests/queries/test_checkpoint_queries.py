"""The queries about checkpoints, their tensors and what they take on the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pytest
from query_scenes import NAN, Scene

from ckptlake import Capture, Run

Arrays = Mapping[str, npt.NDArray[np.float64]]


def start(scene: Scene, run_id: str, experiment: str) -> Run:
    return scene.lake.run(experiment, run_id=run_id, capture=Capture.nothing())


@pytest.fixture(scope="module")
def saved(make_scene: Callable[[str], Scene]) -> Scene:
    """Two runs of one experiment, one of another without a direction, all with the metric loss."""
    scene = make_scene("checkpoints")
    frozen, zeros = np.full(20_000, 2.0), np.zeros(100)
    zeros[:5] = 1.0
    with start(scene, "net", "e/net") as run:
        run.define("loss", direction="min")
        for step, loss in enumerate([3.0, 1.0, NAN, 2.0]):
            growing = np.full(100, 4.0 ** (step * step))
            dying = np.ones(100) if step < 2 else zeros
            broken = np.array([NAN if step == 2 else 1.0, 1.0])
            model = {"frozen": frozen, "growing": growing, "dying": dying, "broken": broken}
            run.save_checkpoint({"model": model, "other": np.ones(3) * 100**step}, step=step, metrics={"loss": loss})
    with start(scene, "twin", "e/net") as run:
        run.save_checkpoint({"model": {"frozen": frozen}}, step=7, metrics={"loss": 1.0})
        run.save_checkpoint({"model": {"frozen": frozen}}, step=8, metrics={"else": 1.0})
    with start(scene, "free", "free") as run:
        run.save_checkpoint({"model": {"w": np.ones(10)}}, step=0, metrics={"loss": 1.0})
    start(scene, "empty", "free").finish()
    return scene


def test_best_checkpoint_per_experiment(saved: Scene) -> None:
    rows = saved.ask("best_checkpoint_per_experiment", metric="loss")
    assert [(row["experiment"], row["run_id"], row["step"], row["value"], row["candidates"]) for row in rows] == [
        ("e/net", "twin", 7, 1.0, 5),
        ("free", None, None, None, 1),
    ]
    assert [row["direction"] for row in rows] == ["min", None]
    assert rows[0]["checkpoint_id"] == saved.lake.checkpoints.get("best:loss", run="twin").id
    assert saved.ask("best_checkpoint_per_experiment", metric="no such") == []


def test_exploding_layers(saved: Scene) -> None:
    rows = {row["path"]: row for row in saved.ask("exploding_layers", run="net", prefix="model/")}
    assert rows.keys() == {"model/growing", "model/broken"}
    growing = rows["model/growing"]
    assert (growing["checkpoints"], growing["first_norm"], growing["worst_step"]) == (4, 10.0, 3)
    assert growing["growth"] == pytest.approx(4.0**9)
    assert growing["worst_growth"] == pytest.approx(4.0**5)
    assert (rows["model/broken"]["first_bad_step"], growing["first_bad_step"]) == (2, None)
    every = saved.ask("exploding_layers", run="net", factor=1e5)
    assert [row["path"] for row in every] == ["other", "model/growing", "model/broken"]
    assert saved.ask("exploding_layers", run="free") == []


def test_dead_layers(saved: Scene) -> None:
    (row,) = saved.ask("dead_layers", run="net")
    assert row == {
        "path": "model/dying",
        "num_elements": 100,
        "step": 3,
        "zeros": 0.95,
        "first_zeros": 0.0,
        "dead_since": 2,
    }
    assert saved.ask("dead_layers", run="net", zero_fraction=0.99) == []
    assert saved.ask("dead_layers", run="net", prefix="other") == []


def test_storage(saved: Scene) -> None:
    rows = saved.ask("storage_by_run")
    records = saved.lake.checkpoints.list()
    for row in rows:
        own = [record for record in records if record.run_id == row["run_id"]]
        assert row["checkpoints"] == len(own)
        assert row["stored_bytes"] == sum(record.stored_bytes for record in own)
        assert row["logical_bytes"] == sum(record.logical_bytes for record in own)
    assert [row["run_id"] for row in rows] == ["net", "free", "empty", "twin"]
    by_experiment = saved.ask("storage_by_experiment")
    assert [(row["experiment"], row["runs"], row["checkpoints"]) for row in by_experiment] == [
        ("e/net", 2, 6),
        ("free", 2, 1),
    ]
    assert sum(row["share"] for row in by_experiment) == pytest.approx(1.0)
    used = {usage.name: usage.stored_bytes for usage in saved.lake.checkpoints.usage("experiment")}
    manifests = dict.fromkeys(used, 0)
    for record in records:
        manifests[record.experiment] += (saved.lake.path / record.location).stat().st_size
    assert {row["experiment"]: row["stored_bytes"] + manifests[row["experiment"]] for row in by_experiment} == used
    assert [row["experiment"] for row in saved.ask("storage_by_experiment", experiment="e")] == ["e/net"]


def test_dedup_savings(saved: Scene) -> None:
    frozen_bytes = 160_000
    rows = {row["experiment"]: row for row in saved.ask("dedup_savings")}
    net = rows["e/net"]
    assert (net["checkpoints"], net["tensors"]) == (6, 22)
    assert net["logical_bytes"] == net["stored_bytes"] + net["saved_by_sharing"] + net["saved_by_compression"]
    assert net["saved_by_sharing"] >= 5 * frozen_bytes
    assert (rows["free"]["saved_by_sharing"], rows["free"]["factor"]) == (0, 1.0)


def test_disk_by_file_count(saved: Scene) -> None:
    rows = {row["experiment"]: row for row in saved.ask("disk_by_file_count")}
    root = saved.lake.path
    packs = {pack for (pack,) in saved.lake.sql("select unnest(packs) from checkpoints").fetchall()}
    assert sum(row["packs"] for row in rows.values()) == len(packs)
    assert all(list(root.glob(f"{pack}.*")) for pack in packs)
    assert rows["e/net"]["files"] == rows["e/net"]["packs"] + 6
    assert rows["free"]["bytes_per_file"] == rows["free"]["stored_bytes"] / 2


def test_after_compression_and_deletion(scene: Scene) -> None:
    with start(scene, "net", "e") as run:
        weights = np.random.default_rng(0).normal(size=5000)
        for step in range(3):
            weights = weights + (np.arange(5000) == step)
            run.save_checkpoint({"model": {"w": weights, "same": np.ones(5000)}}, step=step)
    before = scene.lake.query("dedup_savings").fetchall()
    scene.lake.checkpoints.compact(keep_raw=0)
    scene.lake.commit()
    (row,) = scene.ask("dedup_savings")
    assert (row["tensors"], row["logical_bytes"]) == (6, 3 * 2 * 40_000)
    assert row["saved_by_compression"] > 0
    assert row["factor"] > before[0][-1]
    assert row["checkpoints"] == 3
    scene.lake.checkpoints.delete(scene.lake.checkpoints.list()[-1].id)
    scene.renew()
    (row,) = scene.ask("dedup_savings")
    assert (row["checkpoints"], row["tensors"]) == (2, 4)
    assert scene.ask("storage_by_run")[0]["checkpoints"] == 2
