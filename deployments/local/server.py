"""One Prefect server on this machine, with a data directory of its own below the Trainyard home.

Two things are had before the server is started, and handed to it. The lock on the data directory, which it holds until
its last moment, however it ends: there are never two servers on one database. And the socket that it will answer on,
which listens from the beginning: of two servers that want one port at the same moment, each has one of its own.
"""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from trainyard.deployments.local.background import PYTHON, Background, last_lines, log_path, recorded, start
from trainyard.tasks.errors import PrefectUnavailableError
from trainyard.tasks.settings import Settings

SERVER = "server"
START_TIMEOUT_S = 180.0
HEALTH_TIMEOUT_S = 5.0
LOCK_WAIT_S = 5.0
"""A process that was ended counts as gone when its first thread is; its locks go with the last one, a little later."""
_HOST_BYTES = 255
_BACKLOG = 2048
"""As many callers as uvicorn lets wait, too; for they come while the server still starts."""


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
        _wait_until_healthy(server, folder)
    return server.address, is_new


def _start(home: Path, wanted_port: int) -> Background:
    data = prefect_folder(home)
    data.mkdir(parents=True, exist_ok=True)
    database = _database_lock(data)
    try:
        with _listener(wanted_port) as listener:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            env = {**server_environment(data), "PREFECT_SERVER_UI_API_URL": address, "PREFECT__SERVER_FINAL": "1"}
            argv = [*PYTHON, "trainyard.deployments.local.prefect_server", str(listener.fileno())]
            held = (database, listener.fileno())
            return start(SERVER, argv, env=env, folder=services_folder(home), address=address, held=held)
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
    until = time.monotonic() + LOCK_WAIT_S
    while not _locked(descriptor):
        if time.monotonic() > until:
            host = os.read(descriptor, _HOST_BYTES).decode(errors="replace") or "an unknown machine"
            os.close(descriptor)
            raise PrefectUnavailableError(
                f"Another Prefect server works on {prefect_home}; it was started on {host}, and no process of it is "
                "recorded here. End it (on its machine, 'trainyard down'), set PREFECT_API_URL to its address, or set "
                "TRAINYARD_HOME to another folder, which no other machine shares."
            )
        time.sleep(0.1)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, socket.gethostname().encode()[:_HOST_BYTES])
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def one_at_a_time(folder: Path, what: str = "up") -> Iterator[None]:
    """One command at a time starts things; the others wait, and find them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{what}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _listener(wanted_port: int) -> socket.socket:
    """A socket that listens on the wanted port, or on any free one where it is taken."""
    for port in (wanted_port, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            # With SO_REUSEADDR two may bind a port, but only one of them may listen (socket(7)).
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
        else:
            return listener
    raise PrefectUnavailableError("No port is free on 127.0.0.1 for a Prefect server.")


def _wait_until_healthy(server: Background, folder: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        answers = is_healthy(server.address)
        is_alive = server.alive  # now: another's server may answer on the port once this one has ended
        if answers and is_alive:
            return
        if not is_alive or time.monotonic() > until:
            state = "does not answer" if is_alive else "ended at once"
            raise PrefectUnavailableError(
                f"The Prefect server that was started at {server.address} {state}; the end of its log, "
                f"{log_path(folder, SERVER)}:\n{last_lines(folder, SERVER)}"
            )
        time.sleep(0.1)


def is_healthy(address: str) -> bool:
    """Whether a Prefect server answers there."""
    try:
        return httpx.get(f"{address}/health", timeout=HEALTH_TIMEOUT_S, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
