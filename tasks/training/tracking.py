"""What a script leaves with TensorBoard's writers and with MLflow, brought to where the metrics stage looks for it."""

import os
import shutil
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from trainyard.tasks.training.run_directory import RunDirectory

EVENT_FILE = "events.out.tfevents"
EVENTS, RUNS = "tensorboard", "mlflow"
"""Folders beside the ranks' records."""

TRACKING_URI_VARIABLE = "MLFLOW_TRACKING_URI"


def tracking_environment(environment: Mapping[str, str], run: RunDirectory) -> dict[str, str]:
    """Where MLflow keeps what the script logs: a folder of the run, unless the user has said otherwise.

    Newer releases keep files only where they are told that it is meant (seen with 3.17); nothing but files works with
    mlflow-skinny, which has no database.
    """
    if TRACKING_URI_VARIABLE in environment:
        return {}
    return {TRACKING_URI_VARIABLE: _store(run).as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}


def keep_tracking(run: RunDirectory, source_files: Container[str]) -> None:
    """Put event files and MLflow runs beside the ranks' records, and MLflow's artifacts below ``outputs/mlflow``.

    Event files count wherever the script wrote them in its working directory: ``SummaryWriter()`` makes ``runs/``,
    other libraries have habits of their own.

    Args:
        run: A run whose processes have ended.
        source_files: The files of the snapshot: what was there before is not what this training logged.
    """
    for path in _event_files(run.source):
        relative = path.relative_to(run.source)
        if relative.as_posix() not in source_files:
            _copy(path, run.records / EVENTS / relative)
    for path in sorted(_store(run).rglob("*")) if _store(run).is_dir() else ():
        relative = path.relative_to(_store(run))
        if path.is_symlink() or not path.is_file() or ".trash" in relative.parts:
            continue
        if "artifacts" in relative.parts[2:3]:  # <experiment>/<run>/artifacts/...
            _copy(path, run.source / "outputs" / RUNS / relative.parts[1] / Path(*relative.parts[3:]))
        else:
            _copy(path, run.records / RUNS / relative)


def _store(run: RunDirectory) -> Path:
    return run.path / RUNS


def _event_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob(f"*{EVENT_FILE}*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)  # nobody writes to it any more
    except OSError:
        shutil.copyfile(path, target)
