"""One Prefect server on this machine, with a data directory of its own below the Trainyard home.

The lock on the data directory is handed to the server, which holds it until its last moment, however it ends: there
are never two servers on one database.
"""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from trainyard.deployments.local.background import PYTHON, Background, last_lines, log_path, recorded, start
from trainyard.tasks.errors import PrefectUnavailableError
from trainyard.tasks.settings import Settings

SERVER = "server"
START_TIMEOUT_S = 180.0
HEALTH_TIMEOUT_S = 5.0
_LISTEN = "0A"
"""The state of a listening socket in ``/proc/net/tcp`` (proc(5); include/net/tcp_states.h)."""


class _PortTakenError(PrefectUnavailableError):
    """A server that was started ended, for another has its port."""


def services_folder(home: Path) -> Path:
    """Records and logs of this machine's background processes."""
    return home / "services"


def prefect_folder(home: Path) -> Path:
    """The data directory of the server and its workers."""
    return home / "prefect"


def own_address(home: Path) -> str | None:
    """The API address of this machine's own server, if one runs."""
    server = recorded(services_folder(home), SERVER)
    return server.address if server else None


def running_server(home: Path) -> str | None:
    """Likewise, if it answers."""
    address = own_address(home)
    return address if address and is_healthy(address) else None


def ensure_server(settings: Settings, say: Callable[[str], None]) -> tuple[str, bool]:
    """Find this machine's own server, or start it and wait until it answers.

    Args:
        settings: This machine's.
        say: Tells the person that a server is being started, before it is.

    Returns:
        The address of its API, and whether it was started now.

    Raises:
        PrefectUnavailableError: It does not come up; says where its log is.
    """
    found = running_server(settings.home)
    if found:
        return found, False
    folder = services_folder(settings.home)
    with one_at_a_time(folder, "starting"):
        server = recorded(folder, SERVER)
        is_new = server is None
        if server is None:
            say("Starting a Prefect server in the background; that takes some 20 seconds.")
            server = _start(settings.home, settings.server_port)
        try:
            _wait_until_healthy(server, folder)
        except _PortTakenError:  # by one that started at the same moment: it was free when this one looked
            server = _start(settings.home, wanted_port=0)
            _wait_until_healthy(server, folder)
    return server.address, is_new


def _start(home: Path, wanted_port: int) -> Background:
    port = _free_port(wanted_port)
    address = f"http://127.0.0.1:{port}/api"
    data = prefect_folder(home)
    data.mkdir(parents=True, exist_ok=True)
    database = _database_lock(data)
    try:
        argv = [*PYTHON, "uvicorn", "--factory", "prefect.server.api.server:create_app", "--lifespan", "on"]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
        env = {**server_environment(data), "PREFECT_SERVER_UI_API_URL": address, "PREFECT__SERVER_FINAL": "1"}
        return start(SERVER, argv, env=env, folder=services_folder(home), address=address, held=database)
    finally:
        os.close(database)


def server_environment(prefect_home: Path) -> dict[str, str]:
    """This process's environment, without Prefect settings that are for somebody else's server."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **inherited,
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _database_lock(prefect_home: Path) -> int:
    """A descriptor whose lock the server keeps.

    Raises:
        PrefectUnavailableError: Another server has the data directory.
    """
    descriptor = os.open(prefect_home / "server.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise PrefectUnavailableError(
            f"Another Prefect server works on {prefect_home}, and nothing is recorded of it: end it, set "
            "PREFECT_API_URL to its address, or choose another TRAINYARD_HOME."
        ) from error
    return descriptor


@contextmanager
def one_at_a_time(folder: Path, what: str = "up") -> Iterator[None]:
    """One command at a time starts things; the others wait, and find them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{what}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_port(wanted: int) -> int:
    """The wanted port, or any free one where it is taken."""
    port = _bound(wanted) or _bound(0)
    if port is None:
        raise PrefectUnavailableError("No port is free on 127.0.0.1 for a Prefect server.")
    return port


def _bound(port: int) -> int | None:
    """The port, or for 0 some port, if it is free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: Background, folder: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while not (is_healthy(server.address) and _listens(server)):
        if not server.alive or time.monotonic() > until:
            state = "does not answer" if server.alive else "ended at once"
            is_taken = not server.alive and _bound(_port(server)) is None
            raise (_PortTakenError if is_taken else PrefectUnavailableError)(
                f"The Prefect server that was started at {server.address} {state}; the end of its log, "
                f"{log_path(folder, SERVER)}:\n{last_lines(folder, SERVER)}"
            )
        time.sleep(0.1)


def _listens(server: Background) -> bool:
    """Whether it is this server that answers: another's may have taken the port after it was found free."""
    port = _port(server)
    files = _open_files(server.pid)
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row for row in sockets if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]
    return any(f"socket:[{row[9]}]" in files for row in listening)


def _port(server: Background) -> int:
    port = urlsplit(server.address).port
    assert port is not None, server.address
    return port


def _open_files(pid: int) -> set[str]:
    """What a process has open, as far as it stays open while this looks."""
    found = set()
    with suppress(OSError):  # the process has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(entry))
    return found


def is_healthy(address: str) -> bool:
    """Whether a Prefect server answers there."""
    try:
        return httpx.get(f"{address}/health", timeout=HEALTH_TIMEOUT_S, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
