"""Training on a work pool must not outlive the pipeline that waits for it.

A pipeline that ends in order cancels the training that it started. One that is killed (SIGKILL, a machine that is
lost) cannot: so it renews a file in the store while it waits, and the training watches it.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.states import Cancelling

from trainyard.flows.work_pools import UNREACHABLE
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.caching.presence import PresenceWatch

log = logging.getLogger(__name__)

MOST_POLL_S = 10.0
CANCEL_S = 60.0
"""Seconds that the worker has to end a run that was asked to be cancelled: it looks every few seconds."""
PATIENCE_S = 12.0
"""Seconds that this process has to end itself, where the worker did not."""


@contextmanager
def ended_with_caller(location: Location | None) -> Iterator[None]:
    """Have this flow run cancelled when nobody waits for it any more.

    Args:
        location: What the caller renews; None where nobody waits.
    """
    context = FlowRunContext.get()
    if location is None or context is None or context.flow_run is None:
        yield
        return
    done = threading.Event()
    watch = PresenceWatch(location)
    thread = threading.Thread(
        target=_watch, args=(watch, context.flow_run.id, done), name="trainyard-caller-watch", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        done.set()


def _watch(watch: PresenceWatch, run_id: UUID, done: threading.Event) -> None:
    while not done.wait(min(MOST_POLL_S, watch.ttl_s / 4)):
        if watch.is_lost():
            _end(watch, run_id, done)
            return


def _end(watch: PresenceWatch, run_id: UUID, done: threading.Event) -> None:
    """By the worker, which reports it; by ourselves where the worker or the server does not come to it."""
    message = f"The pipeline that waited for this training has not been heard of for {watch.ttl_s:g} s."
    log.error("%s It ends.", message)
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run_id, Cancelling(message=message))
    except UNREACHABLE as error:
        log.error("It could not be cancelled (%s) and is ended.", error)
    else:
        if done.wait(CANCEL_S):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    if not done.wait(PATIENCE_S):
        os._exit(128 + signal.SIGTERM)
