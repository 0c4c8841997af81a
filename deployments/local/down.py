"""``trainyard down``: ends this machine's background processes, by their ids."""

import time
from collections.abc import Callable
from uuid import UUID

from trainyard.deployments.local.background import Background, all_recorded, all_recorded_elsewhere, stop
from trainyard.deployments.local.server import SERVER, one_at_a_time, running_server, services_folder
from trainyard.tasks.errors import PrefectUnavailableError
from trainyard.tasks.settings import Settings

CANCEL_WAIT_S = 30.0


def bring_down(settings: Settings, say: Callable[[str], None]) -> int:
    """Cancel the workers' runs, and end the workers and then the server.

    Returns:
        How many processes were ended.
    """
    folder = services_folder(settings.home)
    processes = all_recorded(folder)
    servers = [process for process in processes if process.name == SERVER]
    workers = [process for process in processes if process.name != SERVER]
    own = running_server(settings.home)
    if workers and own:
        _cancel_runs(own, say)

    def end(process: Background) -> None:
        stop(process, settings.stop_grace_s + 5)  # training has its own grace within it
        process.forget(folder)
        say(f"{process.name}: ended")

    for worker in workers:
        end(worker)
    for server in servers:
        with one_at_a_time(folder, "starting"):  # who wants a server meanwhile waits, finds none, and starts another
            end(server)
    for other in all_recorded_elsewhere(folder):
        say(f"{other.name} on {other.host}: left alone; 'trainyard down' there ends it")
    return len(processes)


def _cancel_runs(own_server: str, say: Callable[[str], None]) -> None:
    """Else they would count as crashed, and the next ``trainyard up`` would start them again.

    Those of this machine's own server, also where another one is configured: that one's runs are not ours to cancel.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from trainyard.flows.prefect_errors import prefect_errors
    from trainyard.flows.work_pools import cancel_active_runs

    found: set[UUID] = set()
    remaining: set[UUID] = set()
    until = time.monotonic() + CANCEL_WAIT_S
    try:
        with temporary_settings({PREFECT_API_URL: own_server}), prefect_errors():
            while (remaining := cancel_active_runs()) and time.monotonic() < until:
                found |= remaining
                time.sleep(0.5)
    except PrefectUnavailableError as error:
        say(str(error))
        return
    ended = found - remaining
    if ended:
        say(f"{_runs(ended)}: cancelled")
    if remaining:
        say(f"{_runs(remaining)}: did not end within {CANCEL_WAIT_S:.0f} s, and end with the workers")


def _runs(runs: set[UUID]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"
