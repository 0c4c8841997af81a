"""GPU slots of a work pool: a global concurrency limit named like the pool, one slot for each rank that uses a GPU."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from trainyard.tasks.errors import InvalidInputError, PrefectUnavailableError

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds after which the slots of a holder that died are free again; a living one renews its lease."""

NOT_LENT = (httpx.HTTPError, httpx.InvalidURL, ConcurrencySlotAcquisitionError, RuntimeError)
"""What Prefect raises for a server that does not answer, or refuses."""


@contextmanager
def gpu_slots(limit: str | None, num_slots: int) -> Iterator[None]:
    """Hold slots while training; waits for them where others train.

    Args:
        limit: Name of the limit; None holds nothing.
        num_slots: How many; none where training does not use GPUs.

    Raises:
        InvalidInputError: There is no such limit, or it will never have so many slots.
        PrefectUnavailableError: The Prefect server does not lend them; a retry may help.
    """
    if limit is None or num_slots == 0:
        yield
        return
    slots = ExitStack()
    try:
        _refuse_what_never_comes(limit, num_slots)
        log.info("Waiting for %d GPU slots of %r", num_slots, limit)
        slots.enter_context(concurrency(limit, occupy=num_slots, strict=True, lease_duration=LEASE_S))
    except NOT_LENT as error:
        raise PrefectUnavailableError(
            f"The Prefect server did not lend {num_slots} GPU slots of {limit!r} ({type(error).__name__}: {error}). "
            "Check that it runs, and PREFECT_API_URL."
        ) from error
    try:
        yield
    finally:
        _give_back(slots, limit)


def _give_back(slots: ExitStack, limit: str) -> None:
    """A server that is away when training ends must take neither its result nor its error."""
    try:
        slots.close()
    except NOT_LENT as error:
        log.warning("The GPU slots of %r were not given back and are free in %g s: %s", limit, LEASE_S, error)


def _refuse_what_never_comes(limit: str, num_slots: int) -> None:
    """Prefect would wait forever."""
    with get_client(sync_client=True) as client:
        try:
            slots = client.read_global_concurrency_limit_by_name(limit).limit
        except ObjectNotFound as error:
            raise InvalidInputError(
                f"The Prefect server has no concurrency limit {limit!r}, which counts the pool's GPUs: trainyard "
                f"deploy, or prefect gcl create {limit} --limit NUMBER"
            ) from error
    if num_slots > slots:
        raise InvalidInputError(
            f"Training needs {num_slots} GPUs at once, and the concurrency limit {limit!r} has {slots}: lower "
            f"process_count_per_node, or raise it with prefect gcl update {limit} --limit {num_slots}"
        )
