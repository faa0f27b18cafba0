"""MLflow asked for the same runs, in a process of its own, as its packages and ours need not fit into one environment.

Run as a script by the Python that has MLflow, it takes runs as lines of JSON, then answers each line by one search.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PYTHON = "CKPTLAKE_MLFLOW_PYTHON"
"""The environment variable that names the Python with MLflow, where it is not this one."""

# MLflow compares params as text alone, so what is to be less than something has to be a metric.
SEARCH = "tags.stage = 'pretrain' and metrics.lr < 0.005"
ORDER = "metrics.`val/loss` ASC"


def mlflow_python() -> str | None:
    """Return the Python that has MLflow, or None where there is none."""
    if os.environ.get(PYTHON):
        return os.environ[PYTHON]
    return sys.executable if importlib.util.find_spec("mlflow") is not None else None


class MlflowPeer:
    """An MLflow store with runs of the given params, tags and last values, in SQLite.

    Args:
        python: the Python that has MLflow.
        directory: where the store is made.
        runs: of each run ``name``, ``params``, ``tags`` and ``metrics``.
    """

    def __init__(self, python: str, directory: Path, runs: Iterable[Mapping[str, Any]]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [python, __file__, str(directory / "mlflow.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for run in runs:
            self._say(json.dumps(run))
        self.version = self._say("")

    def _say(self, text: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"MLflow ended with exit code {self._process.wait()}")
        return answer.strip()

    def search(self) -> list[str]:
        """Return the names of the ten best runs."""
        names: list[str] = json.loads(self._say("search"))
        return names

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()


def serve(database: str, lines: Iterable[str]) -> None:
    """Fill a store with the runs of `lines` up to an empty one, then search it once for each further line."""
    import mlflow
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient
    from mlflow.version import VERSION

    mlflow.set_tracking_uri(f"sqlite:///{database}")
    client = MlflowClient()
    experiment = client.create_experiment("bench")
    told = iter(lines)
    for line in told:
        if not line.strip():
            break
        run = json.loads(line)
        run_id = client.create_run(experiment, run_name=run["name"]).info.run_id
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, 1_750_000_000_000, 0) for name, value in run["metrics"].items()],
            params=[Param(name, str(value)) for name, value in run["params"].items()],
            tags=[RunTag(name, value) for name, value in run["tags"].items()],
        )
        client.set_terminated(run_id)
        _answer("stored")
    _answer(VERSION)
    for _ in told:
        found = mlflow.search_runs([experiment], filter_string=SEARCH, order_by=[ORDER], max_results=10)
        _answer(json.dumps(found["tags.mlflow.runName"].tolist()))


def _answer(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Serve the store named by the only argument."""
    serve(arguments[0], sys.stdin)


if __name__ == "__main__":
    main(sys.argv[1:])
