"""Which Prefect API this command talks to: the configured one, else this machine's own server."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from trainyard.deployments.local.server import ensure_server, own_address, running_server
from trainyard.tasks.credentials import redacted_url
from trainyard.tasks.settings import Settings

LOCALHOST = "127.0.0.1"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Connection:
    """A Prefect API that this process uses from now on.

    Args:
        address: Of the API; may hold a password, so it is never shown.
        is_local: Whether it is this machine's own background server.
        was_started: Whether it was started just now.
    """

    address: str
    is_local: bool
    was_started: bool = False

    @property
    def shown(self) -> str:
        """The address, for people: without a password."""
        return redacted_url(self.address)

    @property
    def ui_address(self) -> str:
        """Of the pages for people, likewise."""
        return self.shown.rstrip("/").removesuffix("/api")


def configured_api() -> str | None:
    """What ``PREFECT_API_URL`` or the active Prefect profile says."""
    from prefect.settings import PREFECT_API_URL

    address: str | None = PREFECT_API_URL.value()
    return address


def is_same_server(one: str, other: str | None) -> bool:
    """Whether two addresses, differently written perhaps, are those of one server."""
    return other is not None and _place(one) == _place(other)


def _place(address: str) -> tuple[str, int | None, str]:
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # no address at all: of no server that we know
        return address, None, ""
    return LOCALHOST if host == "localhost" else host, port, parts.path.rstrip("/")


def find_server(settings: Settings) -> Connection | None:
    """Use the configured API, or this machine's own server where it runs; starts nothing."""
    configured = configured_api()
    if configured:
        return Connection(configured, is_local=is_same_server(configured, own_address(settings.home)))
    address = running_server(settings.home)
    return _use(Connection(address, is_local=True)) if address else None


def connect(settings: Settings, say: Callable[[str], None]) -> Connection:
    """Use the configured API, else this machine's own server, which is started where it does not run.

    Args:
        settings: This machine's.
        say: Tells the person that a server is being started, before it is.

    Raises:
        PrefectUnavailableError: The server does not come up.
    """
    configured = configured_api()
    if configured:
        return Connection(configured, is_local=is_same_server(configured, own_address(settings.home)))
    address, was_started = ensure_server(settings, say)
    return _use(Connection(address, is_local=True, was_started=was_started))


def _use(connection: Connection) -> Connection:
    """Prefect read its settings when it was imported; have it read them again."""
    from prefect.context import refresh_global_settings_context

    os.environ["PREFECT_API_URL"] = connection.address
    refresh_global_settings_context()
    return connection
