"""Prefect process workers on this machine, one for each work pool."""

import os
import socket
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import Worker, WorkerStatus
from prefect.exceptions import ObjectNotFound

from trainyard.deployments.local.background import (
    PYTHON,
    Background,
    last_lines,
    log_path,
    record_path,
    recorded,
    recorded_elsewhere,
    start,
    stop,
)
from trainyard.deployments.local.connection import LOCALHOST, Connection, is_same_server
from trainyard.deployments.local.server import is_healthy, prefect_folder, server_environment, services_folder
from trainyard.tasks.credentials import redacted_url
from trainyard.tasks.errors import InvalidInputError, PrefectUnavailableError

START_TIMEOUT_S = 120.0
STOP_S = 5.0
QUERY_SECONDS = "2"
"""Between two looks for work: Prefect's default of 10 is for many workers on one server."""


def ensure_workers(pools: Iterable[str], connection: Connection, home: Path) -> list[Background]:
    """Start a worker for each pool that has none of ours, and wait until the server knows all of them.

    Raises:
        InvalidInputError: A worker of ours works for another server.
        PrefectUnavailableError: A worker does not come up; says where its log is.
    """
    folder = services_folder(home)
    running = {pool: _running(pool, connection, folder) for pool in pools}  # all of them, before any is started
    with get_client(sync_client=True) as client:
        earlier = {pool: _heard(client, pool) for pool, worker in running.items() if worker is None}
        workers = {pool: worker or _start(pool, connection, home) for pool, worker in running.items()}
        for pool, worker in workers.items():
            _wait_until_online(client, pool, worker, folder, unlike=earlier.get(pool))
    return list(workers.values())


def _running(pool: str, connection: Connection, folder: Path) -> Background | None:
    """Our worker of a pool; one of an earlier server of this machine, which is gone, is ended.

    Raises:
        InvalidInputError: It works for another server, and may be at a run of that one; or one of another machine that
            shares the home is recorded.
    """
    _refuse_to_forget(recorded_elsewhere(folder, _name(pool)), connection, folder)
    worker = recorded(folder, _name(pool))
    if worker is None or is_same_server(worker.address, connection.address):
        return worker
    is_left_over = urlsplit(worker.address).hostname == LOCALHOST and not is_healthy(worker.address)
    if not is_left_over:
        raise InvalidInputError(
            f"The worker of the pool {pool!r} on this machine works for the server {redacted_url(worker.address)}, not "
            f"for {connection.shown}: 'trainyard down' ends it, with the runs that it is at."
        )
    stop(worker, STOP_S)
    worker.forget(folder)
    return None


def _refuse_to_forget(other: Background | None, connection: Connection, folder: Path) -> None:
    """A record of another machine would be overwritten, and nobody could end its worker there by ``trainyard down``."""
    if other is None or (connection.is_local and urlsplit(other.address).hostname == LOCALHOST):
        return  # that one's server was on this database, which is ours now: it is gone, and its machine perhaps
    raise InvalidInputError(
        f"{record_path(folder, other.name)} is the record of a worker on the machine {other.host}. Set TRAINYARD_HOME "
        "to a folder that no other machine shares, or run 'trainyard down' there; if it is gone, remove the file."
    )


def worker_name(pool: str) -> str:
    """What the server knows this machine's worker as."""
    return f"{socket.gethostname()}-{pool}"


def _name(pool: str) -> str:
    return f"worker-{pool}"


def _start(pool: str, connection: Connection, home: Path) -> Background:
    argv = [*PYTHON, "prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", worker_name(pool)]
    own = server_environment(prefect_folder(home)) if connection.is_local else dict(os.environ)
    env = {
        **own,
        "TRAINYARD_HOME": str(home),
        "PREFECT_API_URL": connection.address,
        "PREFECT_WORKER_QUERY_SECONDS": QUERY_SECONDS,
    }
    return start(_name(pool), argv, env=env, folder=services_folder(home), address=connection.address)


def _wait_until_online(
    client: SyncPrefectClient, pool: str, worker: Background, folder: Path, *, unlike: datetime | None
) -> None:
    """Until the server hears from this process, and not only heard from an earlier one of the name.

    Args:
        client: Of the server.
        pool: The worker's.
        worker: Its process.
        folder: Where its log is.
        unlike: When the server last heard from the name before the process was started; of the server's clock.
    """
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        found = _known(client, pool)
        is_online = found is not None and found.status == WorkerStatus.ONLINE and found.last_heartbeat_time != unlike
        if is_online and worker.alive:
            return
        if not worker.alive or time.monotonic() > until:
            state = "does not report to the server" if worker.alive else "ended at once"
            raise PrefectUnavailableError(
                f"The worker of the pool {pool!r} {state}; the end of its log, {log_path(folder, _name(pool))}:\n"
                f"{last_lines(folder, _name(pool))}"
            )
        time.sleep(0.25)


def _heard(client: SyncPrefectClient, pool: str) -> datetime | None:
    found = _known(client, pool)
    return found.last_heartbeat_time if found else None


def _known(client: SyncPrefectClient, pool: str) -> Worker | None:
    """What the server knows of this machine's worker."""
    try:
        workers = client.read_workers_for_work_pool(pool)
    except ObjectNotFound:  # of a pool that the worker itself creates
        return None
    return next((worker for worker in workers if worker.name == worker_name(pool)), None)
