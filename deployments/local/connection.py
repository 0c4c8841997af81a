"""Which Prefect API this command talks to: the configured one, else this machine's own server."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from trainyard.deployments.local.server import ensure_server, own_address, running_server
from trainyard.tasks.settings import Settings


@dataclass(frozen=True, slots=True)
class Connection:
    """A Prefect API that this process uses from now on.

    Args:
        address: Of the API.
        is_local: Whether it is this machine's own background server.
        was_started: Whether it was started just now.
    """

    address: str
    is_local: bool
    was_started: bool = False

    @property
    def ui_address(self) -> str:
        """Of the pages for people."""
        return self.address.removesuffix("/api")


def configured_api() -> str | None:
    """What ``PREFECT_API_URL`` or the active Prefect profile says."""
    from prefect.settings import PREFECT_API_URL

    address: str | None = PREFECT_API_URL.value()
    return address


def find_server(settings: Settings) -> Connection | None:
    """Use the configured API, or this machine's own server where it runs; starts nothing."""
    configured = configured_api()
    if configured:
        return Connection(configured, is_local=configured == own_address(settings.home))
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
        return Connection(configured, is_local=configured == own_address(settings.home))
    address, was_started = ensure_server(settings, say)
    return _use(Connection(address, is_local=True, was_started=was_started))


def _use(connection: Connection) -> Connection:
    """Prefect read its settings when it was imported; have it read them again."""
    from prefect.context import refresh_global_settings_context

    os.environ["PREFECT_API_URL"] = connection.address
    refresh_global_settings_context()
    return connection
