"""The demo: what it prints, and that it goes on with what was stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ckptlake
from examples.aircraft_pose import demo
from examples.aircraft_pose.train import Config, Run, train


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_stopped_demo_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--lake", str(tmp_path), "--epochs", "2", "--seeds", "1"]

    def stop(epoch: int) -> None:
        raise KeyboardInterrupt

    def interrupted(run: Run, config: Config, **_: object) -> None:
        train(run, config, on_epoch=stop)

    with monkeypatch.context() as patch:
        patch.setattr(demo, "train", interrupted)
        with pytest.raises(SystemExit):
            demo.main(arguments)
    assert f"demo --lake {tmp_path} --epochs 2 --seeds 1 --resume" in capsys.readouterr().out

    for _ in range(2):
        demo.main([*arguments, "--resume"])

    with ckptlake.open(tmp_path) as lake:
        runs = lake.sql("select name, status, attempt from runs order by name").fetchall()
        assert runs == [("quaternion-mlp-seed0", "finished", 2), ("sixd-mlp-seed0", "finished", 1)]
        saved = [(one.epoch, one.attempt) for one in lake.checkpoints.list() if one.run_id == first_run(lake)]
        assert saved == [(1, 1), (2, 2)]
        best = lake.checkpoints.best("val/rotation_deg_median", experiment=demo.EXPERIMENT)
    out = capsys.readouterr().out
    assert f"Best checkpoint: {best.id}, epoch {best.epoch}" in out
    assert "Space: 4 checkpoints" in out
    assert "blocks.0.inner.weight" in out
    assert str(tmp_path) in out


def first_run(lake: ckptlake.Lake) -> str:
    (found,) = lake.sql("select run_id from runs order by started_at limit 1").fetchall()
    return str(found[0])
