"""Training on a work pool, seen from the pipeline: start the flow ``train`` there, wait for it, take its answer."""

import logging
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.runtime import task_run
from prefect.states import Cancelling
from prefect.utilities.urls import url_for

from trainyard.flows.answers import read_answer
from trainyard.flows.crash_cause import last_error
from trainyard.flows.handover import Origin, TrainedOnPool
from trainyard.flows.pool_cache import trained_before
from trainyard.flows.portable import anchored
from trainyard.flows.prefect_errors import prefect_errors
from trainyard.flows.run_waiting import wait_for_end
from trainyard.flows.work_pools import UNREACHABLE, container_variables, training_deployment
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.products import ANSWERS
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.presence import presence
from trainyard.tasks.caching.stage import StageContext, StageResult
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.errors import (
    RunCancelledError,
    StorageNotFoundError,
    TrainingFailedError,
    WorkerLostError,
)
from trainyard.tasks.retries import retry_if_transient, retry_if_worker_lost
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.policy import StageName, StagePolicy
from trainyard.tasks.training.snapshot import snapshot_source

log = logging.getLogger(__name__)

RETRIES_OF_A_LOST_WORKER = 1

_TrainOnPool: TypeAlias = "Task[..., State[StageResult[TrainedOnPool]]]"


@task(name="train", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def train_on_pool(
    pool: str, estimator: PyTorch, policies: dict[StageName, StagePolicy], context: StageContext
) -> "State[StageResult[TrainedOnPool]]":
    """Stage data and train on a machine of a work pool; its cache, checkpoints and data are that machine's."""
    source = snapshot_source(Path(estimator.source_directory).expanduser(), context.store)
    context.note_inputs("train", {"input:source": source.sha256})
    trained = trained_before(pool, estimator, source, policies, context)
    if trained is None:
        trained = _train_there(pool, estimator, source, policies, context)
    outcome = trained.outcomes["train"]
    result: StageResult[TrainedOnPool] = StageResult(
        product=trained, status=outcome.status, cache_key=outcome.cache_key, num_bytes=outcome.num_bytes
    )
    return as_state(result)


def retried_when_lost(policy: StagePolicy) -> "tuple[_TrainOnPool, StagePolicy]":
    """The task and its policy: where the policy leaves ``retries`` open, a lost worker is retried, and nothing else."""
    if "retries" in policy.model_fields_set:
        return train_on_pool, policy
    once_more = policy.model_copy(update={"retries": RETRIES_OF_A_LOST_WORKER})
    return train_on_pool.with_options(retry_condition_fn=retry_if_worker_lost), once_more


def _train_there(
    pool: str,
    estimator: PyTorch,
    source: ArtifactRef,
    policies: dict[StageName, StagePolicy],
    context: StageContext,
) -> TrainedOnPool:
    waiting = f"{ANSWERS}{_attempt()}/waiting.json"  # below a folder of its own, so that 'trainyard gc' finds it
    origin = Origin(source=source, name=_project(estimator), run_folder=context.run_folder, presence=waiting)
    there = {"compute_target": "local", "custom_docker_image": None, "shm_size": None}  # of the container it then is in
    parameters = {
        "estimator": anchored(estimator).model_copy(update=there).model_dump(mode="json"),
        "policies": {name: policy.model_dump(mode="json") for name, policy in policies.items()},
        "store": Location(context.store_url).url,
        "origin": origin.model_dump(mode="json"),
    }
    with presence(context.store.root / waiting):
        return _run_child(pool, estimator, parameters, context)


def _project(estimator: PyTorch) -> str:
    """The source directory's name, also where it is given as ``.``."""
    return Path(estimator.source_directory).expanduser().resolve().name


def _attempt() -> str:
    return f"{task_run.id}-{task_run.run_count}"


def _run_child(pool: str, estimator: PyTorch, parameters: dict[str, Any], context: StageContext) -> TrainedOnPool:
    with prefect_errors(), get_client(sync_client=True) as client:
        deployment = training_deployment(client, pool)
        variables = container_variables(client, pool, estimator)
        child = run_deployment(
            deployment,
            parameters=parameters,
            flow_run_name=f"train {_project(estimator)} {estimator.topology}",
            job_variables=variables or None,
            timeout=0,
            idempotency_key=_attempt(),
        )
        assert isinstance(child, FlowRun)  # its type also allows for a coroutine, inside an event loop
        log.info("Training on the work pool %r: %s", pool, url_for(child) or child.id)
        try:
            ended = wait_for_end(client, child.id, pool=pool)
        except BaseException:  # Ctrl-C and cancellation too: nobody would wait for the child any more
            _cancel(client, child.id)
            raise
        assert ended.state is not None
        cause = last_error(client, ended.id, ended.state.message or "") if ended.state.is_crashed() else None
        return _answer(ended, cause, pool, context)


def _answer(child: FlowRun, cause: str | None, pool: str, context: StageContext) -> TrainedOnPool:
    """What the child gave.

    Raises:
        PipelineError: Why it failed, of the kind that it raised there.
    """
    where, state = f"The training run {child.name!r} ({child.id}) on the work pool {pool!r}", child.state
    assert state is not None
    if state.is_cancelled():
        raise RunCancelledError(f"{where} was cancelled.")
    if state.is_crashed():
        why = f" The last error in its log: {cause}" if cause else ""
        raise WorkerLostError(f"{where} crashed: {state.message or 'its worker is gone'}{why}")
    try:
        return read_answer(context.store, child.id, TrainedOnPool)
    except StorageNotFoundError as error:
        raise TrainingFailedError(
            f"{where} ended as {state.name} ({state.message}) and left no answer in the store "
            f"{context.store_url}. Where the pool's machines do not see that address, name a store that both do: "
            "TRAINYARD_STORE or store=..."
        ) from error


def _cancel(client: SyncPrefectClient, run_id: UUID) -> None:
    """Ask the worker to end a run; a server that is away must not hide why."""
    try:
        client.set_flow_run_state(run_id, Cancelling(message="The pipeline that waited for it has ended."))
    except UNREACHABLE as error:
        log.error("The training run %s could not be cancelled: %s", run_id, error)
