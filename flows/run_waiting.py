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
from prefect.events.schemas.automations import EventTrigger
from prefect.exceptions import ObjectNotFound

from trainyard.flows.prefect_errors import prefect_errors
from trainyard.flows.work_pools import live_workers
from trainyard.tasks.errors import PrefectUnavailableError, RunCancelledError, WorkerUnavailableError
from trainyard.tasks.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 1.0
PATIENCE_S = 120.0
"""Seconds without an answer of the Prefect server until waiting is given up."""

REMIND_S = 60.0
"""Seconds between two words about a run that has not been started."""

RETRY_AUTOMATION = "trainyard-retry-crashed"
RESTART_SLACK_S = 30.0
"""Seconds beyond its own in which that automation starts a crashed pipeline again: Prefect looks now and then."""

BUSY = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)


@prefect_errors()
def wait_for_end(
    client: SyncPrefectClient,
    run_id: UUID,
    *,
    pool: str | None = None,
    started_again: bool = False,
    on_answer: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = log.info,
) -> FlowRun:
    """Wait until a run has ended.

    Args:
        client: One for the whole wait: Prefect's client tries a refused connection again where it had one before.
        run_id: The run.
        pool: Its work pool, where that is known whatever becomes of the run.
        started_again: Whether it is a run that the automation starts again when it crashes: that is no end then.
        on_answer: Called whenever the server has said how the run goes.
        say: Told every ``REMIND_S`` why the run has not been started.

    Raises:
        PrefectUnavailableError: The server has not answered for ``PATIENCE_S``, or refuses.
        WorkerUnavailableError: Nobody would start the run; it is left as it is.
        RunCancelledError: The run was deleted.
    """
    heard_at, start, crash = time.monotonic(), _Start(say), _Crash()
    while True:
        try:
            run = _read(client, run_id)
            pool = pool or run.work_pool_name  # which nothing tells any more when its queue is deleted
            hold = _hold(client, run, pool) if pool is not None and _is_scheduled(run) else None
            has_ended = (
                run.state is not None and run.state.is_final() and not (started_again and crash.passes(client, run))
            )
        except httpx.HTTPError as error:
            if not _may_pass(error):
                raise
            if time.monotonic() - heard_at > PATIENCE_S:
                raise _silent(error) from error
            start = _Start(say)  # meanwhile the workers could not be heard of either
        else:
            heard_at = time.monotonic()
            on_answer()
            if has_ended:
                return run
            start.check(run, hold)
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class _Hold:
    """Why a run has not been started."""

    reason: str
    """For people, with what to do."""

    passes: bool = False
    """Whether it will be started as things are."""


class _Start:
    """Waits for a run to be started, for as long as somebody would start it, and not in silence.

    Args:
        say: Told now and then what holds it up.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._wait_s = Settings().worker_wait_s
        self._hold: _Hold | None = None
        self._held_since = self._said_at = time.monotonic()

    def check(self, run: FlowRun, hold: _Hold | None) -> None:
        now = time.monotonic()
        if hold != self._hold:
            self._hold, self._held_since = hold, now
        if hold is None:
            self._said_at = now
            return
        if not hold.passes and now - self._held_since > self._wait_s:
            raise WorkerUnavailableError(
                f"The run {run.name!r} ({run.id}) has waited for a worker for {timedelta(seconds=self._wait_s)}: "
                f"{hold.reason}"
            )
        if now - self._said_at > REMIND_S:
            self._say(f"The run {run.name!r} has not been started yet: {hold.reason}")
            self._said_at = now


class _Crash:
    """A crash of a pipeline, which is its end only where nothing starts it again."""

    def __init__(self) -> None:
        self._state_id: UUID | None = None
        self._ends_at = 0.0

    def passes(self, client: SyncPrefectClient, run: FlowRun) -> bool:
        """Whether a run that has ended may be started again at any moment."""
        if run.state is None or not run.state.is_crashed():
            return False
        if run.state.id != self._state_id:
            wait_s = _wait_for_restart_s(client) if run.run_count > 0 else 0.0
            self._state_id = run.state.id  # only now: the server may not have answered
            self._ends_at = time.monotonic() + wait_s
        return time.monotonic() < self._ends_at


def _wait_for_restart_s(client: SyncPrefectClient) -> float:
    """In how many seconds the automation will have started a crashed run again; 0 where there is none that does."""
    try:
        found = client.read_automations_by_name(RETRY_AUTOMATION)
    except httpx.HTTPStatusError as error:
        if _may_pass(error):
            raise
        return 0.0  # of a server that does not show automations
    triggers = [automation.trigger for automation in found if automation.enabled]
    if not triggers:
        return 0.0
    own = (trigger.within.total_seconds() for trigger in triggers if isinstance(trigger, EventTrigger))
    return max(own, default=0.0) + RESTART_SLACK_S


def _read(client: SyncPrefectClient, run_id: UUID) -> FlowRun:
    try:
        return client.read_flow_run(run_id)
    except ObjectNotFound as error:
        raise RunCancelledError(f"The run {run_id} was deleted from the Prefect server at {client.api_url}.") from error


def _is_scheduled(run: FlowRun) -> bool:
    return run.state is None or run.state.is_scheduled()


def _hold(client: SyncPrefectClient, run: FlowRun, pool: str) -> _Hold:
    try:
        is_paused = client.read_work_pool(pool).is_paused
        queue = client.read_work_queue(run.work_queue_id) if run.work_queue_id else None
    except ObjectNotFound:
        return _Hold(
            f"there is no work pool {pool!r}, or no such queue of it, any more. Cancel the run and start another."
        )
    if is_paused:
        return _Hold(f"the work pool {pool!r} is paused: prefect work-pool resume {pool}")
    if queue is None:
        return _Hold(f"its queue of the work pool {pool!r} was deleted. Cancel the run and start another.")
    if queue.is_paused:
        return _Hold(
            f"the queue {queue.name!r} of the work pool {pool!r} is paused: prefect work-queue resume {queue.name} "
            f"--pool {pool}"
        )
    num_workers = len(live_workers(client, pool))
    if num_workers == 0:
        return _Hold(
            f"the work pool {pool!r} has no live worker. Start one on a machine that should run it: prefect worker "
            f"start --pool {pool} ('trainyard up' starts those of 'cpu' and 'gpu' on this machine)."
        )
    return _Hold(f"the live workers of the work pool {pool!r} ({num_workers}) are busy, or at a limit.", passes=True)


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
