"""``trainyard down``: ends this machine's background processes, by their ids."""

from collections.abc import Callable

from trainyard.deployments.local.background import all_recorded, stop
from trainyard.deployments.local.server import SERVER, services_folder
from trainyard.tasks.settings import Settings


def bring_down(settings: Settings, say: Callable[[str], None]) -> int:
    """End the workers with the runs in them, and then the server.

    Returns:
        How many processes were ended.
    """
    folder = services_folder(settings.home)
    processes = sorted(all_recorded(folder), key=lambda process: process.name == SERVER)
    for process in processes:
        stop(process, settings.stop_grace_s + 5)  # training has its own grace within it
        process.forget(folder)
        say(f"{process.name}: ended")
    return len(processes)
