"""Training alone, as a flow: what a work pool runs for a pipeline whose compute target names it."""

from pathlib import Path

from prefect import flow

from trainyard.flows.answers import answered
from trainyard.flows.caller_watch import ended_with_caller
from trainyard.flows.handover import Origin, TrainedOnPool
from trainyard.flows.pipeline_run import PipelineRunner, name_training
from trainyard.flows.pool_cache import note_environment
from trainyard.flows.work_pools import own_pool
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, InvalidInputError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.policy import Policies
from trainyard.tasks.staging.task import stage
from trainyard.tasks.training.task import train as train_task


@flow(name="train", flow_run_name=name_training, persist_result=True, result_serializer="compressed/json")
@answered
def train(
    estimator: PyTorch,
    *,
    policies: Policies = None,
    store: str | None = None,
    origin: Origin | None = None,
) -> TrainedOnPool:
    """Stage data and train where this runs.

    Args:
        estimator: The training job.
        policies: Retries, timeout and cache of the stages, in place of the defaults.
        store: URL of the artifact store; by default this machine's own.
        origin: Filled in by a pipeline that trains here; leave it empty.

    Returns:
        The staged data, what training made, and how both went.
    """
    with ended_with_caller(_presence(origin, store)):
        return _train(estimator, policies, store, origin)


def _train(estimator: PyTorch, policies: Policies, store: str | None, origin: Origin | None) -> TrainedOnPool:
    if origin is not None:
        estimator = _from_snapshot(estimator, origin, store)
    note_environment(ArtifactStore(store or Settings().store_url), own_pool())
    run = PipelineRunner.prepare(estimator, None, policies, store, run_folder=origin.run_folder if origin else None)
    data = run.stage("stage", stage, estimator.references)
    trained = run.stage("train", train_task, estimator, data, slots=own_pool())
    return TrainedOnPool(staged=data, trained=trained, outcomes=run.outcomes)


def _from_snapshot(estimator: PyTorch, origin: Origin, store: str | None) -> PyTorch:
    """The same job on a copy of the pipeline's source.

    Raises:
        InvalidInputError: This machine does not see the pipeline's store.
    """
    settings = Settings()
    url = store or settings.store_url
    directory = settings.home / "sources" / origin.source.sha256[:32] / origin.name
    try:
        ArtifactStore(url).materialize_once(origin.source, directory)
    except ArtifactDamagedError as error:
        raise InvalidInputError(
            f"The source that the pipeline put into the store {url} is not there, seen from this machine: name a store "
            f"that both machines reach (TRAINYARD_STORE, or store=...), for example s3://bucket/store. ({error})"
        ) from error
    return estimator.model_copy(update={"source_directory": str(Path(directory))})


def _presence(origin: Origin | None, store: str | None) -> Location | None:
    if origin is None or origin.presence is None:
        return None
    return ArtifactStore(store or Settings().store_url).root / origin.presence
