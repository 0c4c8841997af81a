"""Single flight of everybody who shares a store, on other machines too.

A store on a disk holds a lock file, ``leases/<stage>-<key>.lock``: two homes (of two users, or of two machines that
mount the disk) share it, and the kernel frees it. Elsewhere it holds a lease, renewed while its holder lives:
``leases/<stage>-<key>.json`` says who works at a key. Nobody's clock is compared with another's: a lease is dead when
it has not changed for its time-to-live, as the one who waits has watched it. Taking one, renewing it and taking over
a dead one are conditional writes (``If-None-Match``, ``If-Match``), so that of several exactly one succeeds. On a
server that ignores conditions two may in rare cases work at once: twice the work, the same result.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ValidationError

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.caching.locks import is_locked
from trainyard.tasks.caching.renewal import Lease, renewed
from trainyard.tasks.caching.waiting import Wait
from trainyard.tasks.errors import ObjectChangedError, StorageNotFoundError

log = logging.getLogger(__name__)

MOST_TTL_S = 3600.0
"""The longest time-to-live that a lease may have (see ``Settings``)."""

_LEAST_WAIT_S = 0.2
_MARGIN_S = 24 * 3600.0


@contextmanager
def held_lease(store: ArtifactStore, stage: str, key: str, timeout_s: float | None = None) -> Iterator[None]:
    """Hold the lease of a key while the block runs; waits while somebody else does.

    Args:
        store: The store.
        stage: Name of a stage.
        key: Digest of its key.
        timeout_s: Seconds to wait at most; the stage's time limit.

    Raises:
        StageTimeoutError: Its holder lives, and did not come to an end in time.
        PipelineError: The store does not answer, or refuses.
    """
    if store.root.is_local:
        with _held_on_disk(_lock_path(store, stage, key), timeout_s):
            yield
        return
    lease, location = Lease.new(), _location(store, stage, key)
    held = _take(location, lease, Wait("a run on another machine is making the same result", timeout_s))
    with renewed(location, lease, _Renewal(location, held), is_ours=lambda: _is_held(location, lease)):
        yield


def is_leased(store: ArtifactStore, stage: str, key: str) -> bool:
    """Whether somebody may hold the lease of a key. One that is dead for less than a day counts (see ``may_live``)."""
    if store.root.is_local:
        return is_locked(_lock_path(store, stage, key))
    found = _read(_location(store, stage, key))
    return found is not None and may_live(found[1], found[0].ttl_s, time.time())


def may_live(info: ObjectInfo, ttl_s: float, now_s: float) -> bool:
    """Whether the holder of a lease may live, for who asks once and does not wait to see it change.

    Here the server's clock is compared with this machine's: that is what the margin is for.

    Args:
        info: The lease, as it is listed.
        ttl_s: Its time-to-live, or the longest that any has.
        now_s: The time, in seconds since 1970.
    """
    return not info.modified_s or now_s - info.modified_s < ttl_s + _MARGIN_S


@contextmanager
def _held_on_disk(path: Path, timeout_s: float | None) -> Iterator[None]:
    """The lock, where this store takes one: results may be read from one that may not be written to."""
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(path, "another run is making the same result", timeout_s))
        except OSError as error:
            log.info("%s cannot be locked (%s): only runs of this home wait for each other.", path, error)
        yield


def _lock_path(store: ArtifactStore, stage: str, key: str) -> Path:
    return store.root.local_path / f"leases/{stage}-{key}.lock"


def _location(store: ArtifactStore, stage: str, key: str) -> Location:
    return store.root / f"leases/{stage}-{key}.json"


def _take(location: Location, lease: Lease, wait: Wait) -> ObjectInfo:
    """Take the lease as soon as it is free or dead."""
    watched: Lease | None = None
    unchanged_since_s = time.monotonic()
    while True:
        found = _read(location)
        if found is None:
            taken = location.swap_bytes(lease.text, None)
        elif found[0] == watched and time.monotonic() - unchanged_since_s > found[0].ttl_s:
            log.warning("The lease of %s (%s) is dead and is taken over.", found[0].host, location.url)
            taken = location.swap_bytes(lease.text, found[1])
        else:
            taken = None
        if taken and _is_held(location, lease):
            return taken
        if found and found[0] != watched:
            watched, unchanged_since_s = found[0], time.monotonic()
        if found:
            wait.tell(_who(found[0]))
        longest_s = max(_LEAST_WAIT_S, min(2.0, lease.ttl_s / 20))
        wait.sleep(longest_s, longest_s)


def _who(lease: Lease) -> str:
    """Who holds a lease and what can be done, as a sentence."""
    return (
        f"It is process {lease.process} on {lease.host}, which still renews its lease. If it hangs, end it (kill "
        f"{lease.process} on {lease.host}), and this goes on."
    )


def _is_held(location: Location, lease: Lease) -> bool:
    """Whether the lease there is this one: a server that ignores conditions lets the last writer win."""
    found = _read(location)
    return found is not None and found[0].holder == lease.holder


class _Renewal:
    """Writes a lease again as long as it is the version that was written last."""

    def __init__(self, location: Location, held: ObjectInfo) -> None:
        self._location = location
        self._known: ObjectInfo | None = held

    def __call__(self, lease: Lease) -> bool:
        self._known = self._location.swap_bytes(lease.text, self._known) or _own(self._location, lease)
        if self._known is None:
            log.warning("The lease %s was taken over: another run makes the same result, too.", self._location.url)
        return self._known is not None


def _own(location: Location, lease: Lease) -> ObjectInfo | None:
    """The lease's version where it is still ours: an answer that was lost leaves a write that was made."""
    found = _read(location)
    return found[1] if found and found[0].holder == lease.holder else None


def _read(location: Location) -> tuple[Lease, ObjectInfo] | None:
    try:
        info = location.find_object()
        if info is None:
            return None
        data = b"".join(location.read_version(info))
        return Lease.model_validate_json(data), info
    except (StorageNotFoundError, ObjectChangedError):
        return None
    except ValidationError:
        log.warning("%s is not a lease and is removed.", location.url)
        location.delete()
        return None
