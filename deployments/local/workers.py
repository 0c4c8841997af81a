"""Prefect process workers on this machine, one for each work pool."""

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import WorkerStatus

from trainyard.deployments.local.background import PYTHON, Background, last_lines, log_path, recorded, start
from trainyard.deployments.local.connection import Connection
from trainyard.deployments.local.server import prefect_folder, server_environment, services_folder
from trainyard.tasks.errors import PrefectUnavailableError

START_TIMEOUT_S = 120.0
QUERY_SECONDS = "2"
"""Between two looks for work: Prefect's default of 10 is for many workers on one server."""


def ensure_workers(pools: Iterable[str], connection: Connection, home: Path) -> list[Background]:
    """Start a worker for each pool that has none of ours, and wait until the server knows all of them.

    Raises:
        PrefectUnavailableError: A worker does not come up; says where its log is.
    """
    folder = services_folder(home)
    workers = {pool: recorded(folder, _name(pool)) or _start(pool, connection, home) for pool in pools}
    with get_client(sync_client=True) as client:
        for pool, worker in workers.items():
            _wait_until_online(client, pool, worker, folder)
    return list(workers.values())


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
    return start(_name(pool), argv, env=env, folder=services_folder(home))


def _wait_until_online(client: SyncPrefectClient, pool: str, worker: Background, folder: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while not _is_online(client, pool):
        if not worker.alive or time.monotonic() > until:
            state = "does not report to the server" if worker.alive else "ended at once"
            raise PrefectUnavailableError(
                f"The worker of the pool {pool!r} {state}; the end of its log, {log_path(folder, _name(pool))}:\n"
                f"{last_lines(folder, _name(pool))}"
            )
        time.sleep(0.25)


def _is_online(client: SyncPrefectClient, pool: str) -> bool:
    workers = client.read_workers_for_work_pool(pool)
    return any(worker.name == worker_name(pool) and worker.status == WorkerStatus.ONLINE for worker in workers)
