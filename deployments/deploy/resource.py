"""What a Prefect server should hold, one value a thing."""

from abc import ABC, abstractmethod
from typing import Any

from prefect.client.orchestration import SyncPrefectClient

Facts = dict[str, Any]
"""Field to JSON value."""


class Resource(ABC):
    """One thing on a Prefect server, as it should be.

    Args:
        name: Its name on the server.
        wanted: The fields that we decide; others are left alone.
    """

    kind: str

    def __init__(self, name: str, wanted: Facts) -> None:
        self.name = name
        self.wanted = wanted

    @abstractmethod
    def find(self, client: SyncPrefectClient) -> Facts | None:
        """The same fields as they are on the server, or None where the thing is not there. Changes nothing.

        What a person may have changed on purpose (a schedule that was turned on) is taken over into ``wanted``.
        """

    @abstractmethod
    def put(self, client: SyncPrefectClient) -> None:
        """Create the thing, or make it as it should be; may be repeated."""

    def __str__(self) -> str:
        """For people, for example ``work pool gpu``."""
        return f"{self.kind} {self.name}"


class Removable(Resource):
    """A thing that is there only as long as somebody asks for it."""

    @abstractmethod
    def remove(self, client: SyncPrefectClient) -> None:
        """Remove the thing, which is there."""
