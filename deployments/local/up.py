"""``trainyard up``: a server, the deployments and workers, whatever of them is missing."""

from collections.abc import Callable
from pathlib import Path

from trainyard.deployments.deploy.command import deploy
from trainyard.deployments.deploy.wanted import Options
from trainyard.deployments.local.background import all_recorded
from trainyard.deployments.local.connection import Connection, connect
from trainyard.deployments.local.server import one_at_a_time, services_folder
from trainyard.deployments.local.workers import ensure_workers
from trainyard.tasks.settings import Settings

POOLS = ("cpu", "gpu")


def bring_up(settings: Settings, say: Callable[[str], None]) -> Connection:
    """Start what does not run yet, and wait until all of it is healthy.

    Args:
        settings: This machine's.
        say: Tells the person what happens.

    Raises:
        PrefectUnavailableError: Something does not come up.
    """
    with one_at_a_time(services_folder(settings.home)):
        return _bring_up(settings, say)


def _bring_up(settings: Settings, say: Callable[[str], None]) -> Connection:
    connection = connect(settings, say)
    say(f"server: {connection.address}{' (started)' if connection.was_started else ''}")
    deploy(settings, Options(project=Path.cwd()), yes=True, dry_run=False, confirm=lambda question: True)
    before = {process.pid for process in all_recorded(services_folder(settings.home))}
    for worker in ensure_workers(POOLS, connection, settings.home):
        say(f"{worker.name}: process {worker.pid}{'' if worker.pid in before else ' (started)'}")
    return connection
