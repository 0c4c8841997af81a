"""``trainyard down``: ends this machine's background processes, by their ids."""

import time
from collections.abc import Callable

from trainyard.deployments.local.background import all_recorded, stop
from trainyard.deployments.local.connection import find_server
from trainyard.deployments.local.server import SERVER, running_server, services_folder
from trainyard.tasks.errors import PrefectUnavailableError
from trainyard.tasks.settings import Settings

CANCEL_WAIT_S = 30.0


def bring_down(settings: Settings, say: Callable[[str], None]) -> int:
    """Cancel the workers' runs, and end the workers and then the server.

    Returns:
        How many processes were ended.
    """
    folder = services_folder(settings.home)
    processes = sorted(all_recorded(folder), key=lambda process: process.name == SERVER)
    if len(processes) > 1 and running_server(settings.home):
        _cancel_runs(settings, say)
    for process in processes:
        stop(process, settings.stop_grace_s + 5)  # training has its own grace within it
        process.forget(folder)
        say(f"{process.name}: ended")
    return len(processes)


def _cancel_runs(settings: Settings, say: Callable[[str], None]) -> None:
    """Else they would count as crashed, and the next ``trainyard up`` would start them again."""
    from trainyard.flows.prefect_errors import prefect_errors
    from trainyard.flows.work_pools import cancel_active_runs

    connection = find_server(settings)
    if connection is None or not connection.is_local:  # another server's runs are not ours to cancel
        return
    until = time.monotonic() + CANCEL_WAIT_S
    try:
        with prefect_errors():
            cancelled = cancel_active_runs()
            while cancel_active_runs() and time.monotonic() < until:
                time.sleep(0.5)
    except PrefectUnavailableError as error:
        say(str(error))
    else:
        if cancelled:
            say(f"{cancelled} runs: cancelled")
