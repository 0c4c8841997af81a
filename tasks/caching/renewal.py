"""A small file in the store that changes for as long as somebody lives: what leases and presence have in common."""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.errors import PipelineError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.spec import Spec

log = logging.getLogger(__name__)

RENEWALS_PER_TTL = 3


class Lease(Spec):
    """What such a file says."""

    holder: str
    """Who holds it: a new name for each time it is taken."""

    host: str
    """On which machine, for people."""

    process: int
    """In which process, for people."""

    renewals: int = 0
    """How often it was renewed: what changes while its holder lives."""

    ttl_s: float
    """Seconds without a change after which it is dead."""

    @classmethod
    def new(cls) -> "Lease":
        """One of this process's."""
        ttl_s = Settings().lease_ttl_s
        return cls(holder=uuid.uuid4().hex, host=socket.gethostname(), process=os.getpid(), ttl_s=ttl_s)

    @property
    def text(self) -> bytes:
        """The file's content."""
        return self.model_dump_json().encode()


@contextmanager
def renewed(
    location: Location, lease: Lease, write: Callable[[Lease], bool], is_ours: Callable[[], bool]
) -> Iterator[None]:
    """Keep the file changing while the block runs, and remove it then.

    Args:
        location: The file, which is there.
        lease: What it says.
        write: Writes what it says next; False where there is no more to write. A store that fails is asked again.
        is_ours: Whether the file is to be removed at the end.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_renew, args=(location, lease, write, stop), daemon=True, name="renewal")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(PipelineError):
            if is_ours():
                location.delete()


def _renew(location: Location, lease: Lease, write: Callable[[Lease], bool], stop: threading.Event) -> None:
    while not stop.wait(lease.ttl_s / RENEWALS_PER_TTL):
        lease = lease.model_copy(update={"renewals": lease.renewals + 1})
        try:
            if not write(lease):
                return
        except PipelineError as error:
            log.warning("%s could not be renewed this time: %s", location.url, error)
