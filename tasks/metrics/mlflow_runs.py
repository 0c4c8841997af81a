"""MLflow's runs: the metrics, parameters and tags in them, by MLflow's own client (an optional extra)."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainyard.tasks.metrics.names import distinct_names
from trainyard.tasks.metrics.reading import Record

MISSING = (
    "The script logged to MLflow, which is not read, since mlflow is not installed here: "
    "pip install 'trainyard[mlflow]' and run again; only the metrics are collected anew."
)


def read_mlflow_runs(folder: Path) -> tuple[list[Record], list[str]]:
    """Every metric, parameter and tag of the runs that a script logged, as records, and notes for people.

    A name that several runs use is prefixed with its run's. MLflow's own tags are left out.

    Args:
        folder: MLflow's files, as its client writes them; a copy, whose missing folders are made.
    """
    if find_spec("mlflow") is None:
        return [], [MISSING]
    try:
        _restore_empty_folders(folder)
        with _reading_files():
            runs = list(_runs(folder))
    except Exception as error:  # whatever a damaged store makes a foreign reader raise: training went well
        return [], [f"What the script logged to MLflow cannot be read ({type(error).__name__}: {error})."]
    counts = Counter(name for name, _, _ in runs)
    logged = [
        (name if counts[name] == 1 else run_id[:8], record) for name, run_id, records in runs for record in records
    ]
    names = distinct_names((place, str(record["name"])) for place, record in logged)
    return [{**record, "name": names[place, str(record["name"])]} for place, record in logged], []


def _restore_empty_folders(folder: Path) -> None:
    """Artifact stores keep no empty folders, and the client knows no run without all of its own."""
    for run in folder.glob("*/*/meta.yaml"):
        for name in ("artifacts", "metrics", "params", "tags"):
            (run.parent / name).mkdir(exist_ok=True)


def _runs(folder: Path) -> Iterator[tuple[str, str, list[Record]]]:
    """Name, id and records of every run, the first to start first."""
    client = import_module("mlflow").MlflowClient(tracking_uri=folder.resolve().as_uri())
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, order_by=["attributes.start_time ASC"]):
        yield run.info.run_name or "", run.info.run_id, list(_records(client, run))


def _records(client: Any, run: Any) -> Iterator[Record]:
    for key in sorted(run.data.metrics):
        for metric in client.get_metric_history(run.info.run_id, key):
            yield {
                "kind": "scalar",
                "name": key,
                "value": float(metric.value),
                "step": int(metric.step),
                "time": metric.timestamp / 1000,
            }
    words = {**run.data.params, **{k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")}}
    for key, word in sorted(words.items()):
        yield {"kind": "tag", "name": key, "value": str(word), "time": run.info.start_time / 1000}


@contextmanager
def _reading_files() -> Iterator[None]:
    """Let the client open a store of files, and send nothing about it to anybody."""
    wanted = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
