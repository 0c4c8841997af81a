"""Work pools that can train: a pool can when the flow ``train`` is deployed on it."""

from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType, WorkerStatus
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelling

from trainyard.tasks.errors import InvalidInputError, PrefectUnavailableError
from trainyard.tasks.specs.estimator import PyTorch

TRAIN_FLOW = "train"
TRAIN_ENTRYPOINT = "trainyard.flows.train.train"
TAG = "trainyard"
"""Tag of the deployments of our flows."""

ACTIVE = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, PrefectException, RuntimeError)


def pool_problems(pool: str | None, estimator: PyTorch) -> list[str]:
    """Why a work pool cannot train what is asked for, one sentence each."""
    if pool is None:
        return []
    try:
        with get_client(sync_client=True) as client:
            training_deployment(client, pool)
            container_variables(client, pool, estimator)
    except InvalidInputError as error:
        return list(error.problems) or [str(error)]
    except UNREACHABLE as error:
        return [f"compute_target {pool!r}: the Prefect server does not answer ({error}); check PREFECT_API_URL"]
    return []


def training_deployment(client: SyncPrefectClient, pool: str) -> UUID:
    """The deployment that trains on a work pool.

    Raises:
        InvalidInputError: There is no such pool, it is paused, or nothing there can train.
    """
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound as error:
        raise InvalidInputError(_unknown(client, pool)) from error
    if found.is_paused:
        raise InvalidInputError(
            f"compute_target {pool!r} is a work pool that is paused: prefect work-pool resume {pool}"
        )
    deployments = client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[TRAIN_FLOW])),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    ours = [item for item in deployments if item.entrypoint == TRAIN_ENTRYPOINT or TAG in (item.tags or ())]
    if not ours:  # a flow of that name may be anybody's
        raise InvalidInputError(
            f"compute_target {pool!r} is a work pool on which nothing can train yet: trainyard deploy --train-on {pool}"
        )
    return ours[0].id


def container_variables(client: SyncPrefectClient, pool: str, estimator: PyTorch) -> dict[str, str]:
    """The job variables of the container to train in, where one was asked for: as the pool's job template has them.

    Raises:
        InvalidInputError: The template has no such variable; names each.
    """
    settings = {"image": "custom_docker_image", "shm_size": "shm_size"}
    asked = {variable: getattr(estimator, setting) for variable, setting in settings.items()}
    wanted = {variable: value for variable, value in asked.items() if value is not None}
    if not wanted:
        return {}
    found = client.read_work_pool(pool)
    known = found.base_job_template.get("variables", {}).get("properties", {})
    problems = tuple(
        f"{settings[variable]}: the work pool {pool!r} (type {found.type}) starts no container that takes it: its base "
        f"job template has no variable {variable!r}"
        for variable in wanted
        if variable not in known
    )
    if problems:
        raise InvalidInputError("; ".join(problems), problems=problems)
    return wanted


def own_pool() -> str | None:
    """The work pool that runs this; None outside of one."""
    context = FlowRunContext.get()
    return context.flow_run.work_pool_name if context and context.flow_run else None


def own_gpu_limit() -> str | None:
    """The limit that counts the GPUs of the work pool that runs this, where there is one.

    Raises:
        PrefectUnavailableError: The Prefect server does not say.
    """
    pool = own_pool()
    if pool is None:
        return None
    try:
        with get_client(sync_client=True) as client:
            return client.read_global_concurrency_limit_by_name(pool).name
    except ObjectNotFound:
        return None
    except UNREACHABLE as error:
        raise PrefectUnavailableError(
            f"The Prefect server does not say whether a limit counts the GPUs of {pool!r} ({error})."
        ) from error


def live_workers(client: SyncPrefectClient, pool: str) -> list[str]:
    """Names of the workers of a pool that the server hears from."""
    workers = client.read_workers_for_work_pool(pool)
    return [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]


def _unknown(client: SyncPrefectClient, pool: str) -> str:
    pools = ", ".join(repr(found.name) for found in client.read_work_pools()) or "none"
    return (
        f"compute_target {pool!r} is neither 'local' nor a work pool of the Prefect server at {client.api_url} "
        f"(work pools there: {pools}); 'trainyard deploy' creates 'gpu'"
    )


def cancel_active_runs() -> set[UUID]:
    """Have the workers end every run that they are at; the ids of those that there still are."""
    active = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ACTIVE)))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=active))
        of_workers = [run for run in runs if run.work_pool_name is not None]
        for run in of_workers:
            if run.state_type != StateType.CANCELLING:
                client.set_flow_run_state(run.id, Cancelling(message="trainyard down"))
    return {run.id for run in of_workers}
