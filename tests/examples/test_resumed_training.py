"""A training that was killed goes on from its newest good checkpoint and ends where it would have ended."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

import ckptlake

REPOSITORY = Path(__file__).resolve().parents[2]
EPOCHS, STEPS_PER_EPOCH = 5, 16
TOTAL_STEPS = EPOCHS * STEPS_PER_EPOCH

PROGRAM = """
    import os, random, signal, sys
    from dataclasses import replace

    import numpy as np
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    import ckptlake
    from examples.aircraft_pose.train import QUATERNION_MLP, train

    root, how, seed, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    steps = 0

    def die_at_a_step(*_):
        global steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_pre_hook(die_at_a_step)
    config = replace(QUATERNION_MLP, width=32, depth=1, epochs=5, batch_size=128, train_views=2048, val_views=256)
    lake = ckptlake.open(root)
    quiet = ckptlake.Capture.nothing()
    if how == "start":
        with lake.run(experiment="pose", run_id="training", capture=quiet) as run:
            train(run, config)
    else:
        with lake.run(resume="training", capture=quiet) as run:
            train(run, config, resume_from="latest_good")
    lake.close()
"""


def run_training(root: Path, how: str, *, seed: int = 0, kill_at: int = 0) -> None:
    """Train in a process of its own whose global random generators are seeded; 0 never kills."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM), str(root), how, str(seed), str(kill_at)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (-signal.SIGKILL if kill_at else 0), done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a training that nothing interrupted."""
    root = tmp_path_factory.mktemp("whole")
    run_training(root, "start")
    return root


def logged(lake: ckptlake.Lake) -> pa.Table:
    """Every point as readers see it, values as their bits."""
    query = "select metric, step, value from metrics order by metric, step"
    table = lake.sql(query).to_arrow_table()
    bits = pa.array(table.column("value").to_numpy().view(np.int64))
    return table.drop_columns("value").append_column("bits", bits)


def bits_of(state: object, place: str = "") -> dict[str, object]:
    """A state as its leaves by their places, tensors as type, shape and bytes."""
    if isinstance(state, dict):
        return {k: v for name, part in state.items() for k, v in bits_of(part, f"{place}/{name}").items()}
    if isinstance(state, list | tuple):
        return {k: v for name, part in enumerate(state) for k, v in bits_of(part, f"{place}/{name}").items()}
    if isinstance(state, Tensor):
        return {place: (state.dtype, state.shape, state.numpy().tobytes())}
    if isinstance(state, np.ndarray):
        return {place: (state.dtype, state.shape, state.tobytes())}
    return {place: state}


def assert_same_end(root: Path, whole: Path) -> None:
    with ckptlake.open(root) as lake, ckptlake.open(whole) as reference:
        assert logged(lake).equals(logged(reference))
        found, expected = (
            one.checkpoints.load(
                "latest",
                "training",
            )
            for one in (lake, reference)
        )
        assert (found.step, found.epoch) == (expected.step, expected.epoch) == (TOTAL_STEPS, EPOCHS)
        assert found.id != expected.id
        assert bits_of(found.state) == bits_of(expected.state)
        assert found.metrics == expected.metrics
        digests = [one.checkpoints.get("latest").digest for one in (lake, reference)]
        assert digests[0] == digests[1] is not None


def test_killed_training_ends_as_if_it_had_not_been(tmp_path: Path, whole: Path) -> None:
    run_training(tmp_path, "start", kill_at=2 * STEPS_PER_EPOCH + 10)
    with ckptlake.open(tmp_path) as lake:
        lake.recover()
        assert lake.sql("select status from runs").fetchall() == [("killed",)]
        assert lake.checkpoints.get("latest").step in (STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH)

    run_training(tmp_path, "resume", seed=1)

    assert_same_end(tmp_path, whole)
    with ckptlake.open(tmp_path) as lake:
        assert lake.sql("select status, attempt from runs").fetchall() == [("finished", 2)]


def test_it_may_be_killed_again_and_again(tmp_path: Path, whole: Path) -> None:
    run_training(tmp_path, "start", kill_at=STEPS_PER_EPOCH * 2 + 1)
    run_training(tmp_path, "resume", seed=1, kill_at=STEPS_PER_EPOCH * 2)
    run_training(tmp_path, "resume", seed=2)
    assert_same_end(tmp_path, whole)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, whole: Path) -> None:
    run_training(tmp_path, "start", kill_at=4 * STEPS_PER_EPOCH + 1)
    with ckptlake.open(tmp_path) as lake:
        lake.recover()
        before = lake.checkpoints.list()
        newest = before[-1]
        with lake.checkpoints.open(newest.id) as opened:
            weight = next(tensor for tensor in opened.manifest.tensors if tensor.path == "model/stem.weight")
        pack = tmp_path / f"{weight.pack}.safetensors"
        content = bytearray(pack.read_bytes())
        behind_header = 8 + int.from_bytes(content[:8], "little")
        content[behind_header + weight.offset + weight.nbytes // 2] ^= 1
        pack.write_bytes(content)

    run_training(tmp_path, "resume", seed=1)

    assert_same_end(tmp_path, whole)
    with ckptlake.open(tmp_path) as lake:
        status = {one.id: one.status for one in lake.checkpoints.list()}
        assert status.pop(newest.id) == "quarantined"
        assert set(status.values()) == {"good"}
        again = [one for one in lake.checkpoints.list() if one.attempt == 2]
        assert again[0].step == before[-2].step + STEPS_PER_EPOCH == newest.step
        (finding,) = lake.sql("select finding from verifications where verdict = 'damaged'").fetchall()
        assert "stem.weight" in finding[0]


def test_the_weights_have_been_trained(whole: Path) -> None:
    """The comparison above would be worth nothing if checkpoints held the first weights."""
    with ckptlake.open(whole) as lake:
        first, last = (lake.checkpoints.load(step, "training")["model"] for step in (STEPS_PER_EPOCH, TOTAL_STEPS))
        assert first.keys() == last.keys()
        assert not any(torch.equal(first[name], last[name]) for name in first)
