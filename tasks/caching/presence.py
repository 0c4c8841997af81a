"""That somebody waits for work on another machine: a file in the store that changes for as long as they do.

Who waits renews it; who works for them watches it. As with the leases of single flight, nobody's clock is compared
with another's: who waits is lost when the file, as its watcher saw it, has not changed for the time-to-live it names.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.caching.renewal import Lease, renewed
from trainyard.tasks.errors import PipelineError, StorageNotFoundError
from trainyard.tasks.settings import Settings

log = logging.getLogger(__name__)


@contextmanager
def presence(location: Location) -> Iterator[None]:
    """Keep the file changing while the block runs; it is there before the block begins, and gone after it.

    Raises:
        PipelineError: The store cannot keep it.
    """

    def write(lease: Lease) -> bool:
        location.write_bytes(lease.text)
        return True

    lease = Lease.new()
    write(lease)
    with renewed(location, lease, write, is_ours=lambda: True):
        yield


class PresenceWatch:
    """Tells when who waits is lost.

    Args:
        location: The file.
        clock: Seconds that pass steadily.
    """

    def __init__(self, location: Location, clock: Callable[[], float] = time.monotonic) -> None:
        self._location = location
        self._clock = clock
        self._seen: Lease | None = None
        self._unchanged_since_s = clock()
        self.ttl_s = Settings().lease_ttl_s

    def is_lost(self) -> bool:
        """Look once. A store that does not answer says nothing: then who waits cannot renew either, and gets new time.

        A file that is gone counts as one that does not change.
        """
        try:
            found = _read(self._location)
        except PipelineError as error:
            log.warning("Whether the pipeline still waits cannot be seen at the moment: %s", error)
            self._unchanged_since_s = self._clock()
            return False
        if found is not None and found != self._seen:
            self._seen, self._unchanged_since_s, self.ttl_s = found, self._clock(), found.ttl_s
        return self._clock() - self._unchanged_since_s > self.ttl_s


def _read(location: Location) -> Lease | None:
    try:
        return Lease.model_validate_json(location.read_bytes())
    except (StorageNotFoundError, ValidationError):
        return None
