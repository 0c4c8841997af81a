"""Single flight on one disk: locks of the kernel (``flock``), which it frees when their holder dies."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from trainyard.tasks.errors import StageTimeoutError

log = logging.getLogger(__name__)

_LEAST_WAIT_S = 0.01
WAITING = "Another run is making the same result; waiting for it."


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a stage waits for another run that makes the same result: no longer than an attempt may take.

    Args:
        limit_s: Seconds from now; None is for ever. Prefect ends most stages in time itself; training it does not.
    """

    limit_s: float | None = None
    _started_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float | None:
        """Seconds that are left; None is for ever."""
        return None if self.limit_s is None else max(0.0, self.limit_s - (time.monotonic() - self._started_s))

    def require(self) -> None:
        """Raise ``StageTimeoutError`` where nothing is left."""
        if self.left_s == 0:
            raise StageTimeoutError(
                f"Another run has been making the same result for more than {self.limit_s:g} seconds, the time limit "
                "of this stage. Wait for it and run again, which reuses its result, or set a longer "
                "StagePolicy.timeout_s."
            )


@contextmanager
def held_lock(path: Path, patience: Patience) -> Iterator[None]:
    """Hold a file's lock while the block runs; waits while another process or thread does.

    Raises:
        StageTimeoutError: The patience ended first.
        OSError: There can be no such file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info(WAITING)
        _wait_for(lock, patience)
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file; asking changes nothing about it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _wait_for(lock: FileLock, patience: Patience) -> None:
    while True:
        left_s = patience.left_s
        try:
            lock.acquire(timeout=-1 if left_s is None else max(_LEAST_WAIT_S, left_s))
            return
        except Timeout:
            patience.require()
