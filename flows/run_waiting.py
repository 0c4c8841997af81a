"""Waiting for the end of a flow run: patient with the Prefect server, not with a work pool that nobody serves."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from trainyard.flows.prefect_errors import prefect_errors
from trainyard.flows.work_pools import live_workers
from trainyard.tasks.errors import PrefectUnavailableError, RunCancelledError, WorkerUnavailableError
from trainyard.tasks.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 1.0
PATIENCE_S = 120.0
"""Seconds without an answer of the Prefect server until waiting is given up."""

BUSY = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)


@prefect_errors()
def wait_for_end(
    client: SyncPrefectClient,
    run_id: UUID,
    *,
    pool: str | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> FlowRun:
    """Wait until a run has ended.

    Args:
        client: One for the whole wait: Prefect's client tries a refused connection again where it had one before.
        run_id: The run.
        pool: Its work pool, where that is known whatever becomes of the run.
        on_answer: Called whenever the server has said how the run goes.

    Raises:
        PrefectUnavailableError: The server has not answered for ``PATIENCE_S``, or refuses.
        WorkerUnavailableError: Nobody would start the run; it is left as it is.
        RunCancelledError: The run was deleted.
    """
    wait_s, heard_at, standstill = Settings().worker_wait_s, time.monotonic(), _Standstill()
    while True:
        try:
            run = _read(client, run_id)
            obstacle = _obstacle(client, run, pool)
        except httpx.HTTPError as error:
            if not _may_pass(error):
                raise
            if time.monotonic() - heard_at > PATIENCE_S:
                raise _silent(error) from error
            standstill = _Standstill()  # meanwhile the workers could not be heard of either
        else:
            heard_at = time.monotonic()
            on_answer()
            if run.state is not None and run.state.is_final():
                return run
            if standstill.lasts_s(obstacle) > wait_s:
                raise WorkerUnavailableError(
                    f"The run {run.name!r} ({run.id}) has waited for a worker for {timedelta(seconds=wait_s)}: "
                    f"{obstacle}"
                )
        time.sleep(POLL_S)


@dataclass(slots=True)
class _Standstill:
    """What keeps a run from being started, and since when."""

    obstacle: str | None = None
    since: float = 0.0

    def lasts_s(self, obstacle: str | None) -> float:
        """Seconds for which the same obstacle has been there, now that this one is; 0 for none."""
        if obstacle != self.obstacle:
            self.obstacle, self.since = obstacle, time.monotonic()
        return time.monotonic() - self.since if obstacle else 0.0


def _read(client: SyncPrefectClient, run_id: UUID) -> FlowRun:
    try:
        return client.read_flow_run(run_id)
    except ObjectNotFound as error:
        raise RunCancelledError(f"The run {run_id} was deleted from the Prefect server at {client.api_url}.") from error


def _obstacle(client: SyncPrefectClient, run: FlowRun, pool: str | None) -> str | None:
    """Why nobody would start a run as things are; None where somebody would, or has."""
    pool = pool or run.work_pool_name
    if pool is None or not (run.state is None or run.state.is_scheduled()):
        return None
    if not live_workers(client, pool):
        return (
            f"the work pool {pool!r} has no live worker. Start one on a machine that should run it: prefect worker "
            f"start --pool {pool} ('trainyard up' starts those of 'cpu' and 'gpu' on this machine)."
        )
    return None


def _may_pass(error: httpx.HTTPError) -> bool:
    """Whether the same question may be answered later: not where the server has understood and refused it."""
    if not isinstance(error, httpx.HTTPStatusError):
        return True
    return error.response.status_code in BUSY or error.response.is_server_error


def _silent(error: httpx.HTTPError) -> PrefectUnavailableError:
    line = (str(error).splitlines() or [""])[0]
    return PrefectUnavailableError(
        f"The Prefect server has not answered for {PATIENCE_S:g} s ({type(error).__name__}: {line})."
    )
