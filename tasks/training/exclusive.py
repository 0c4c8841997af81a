"""One attempt at a training at a time, also while an earlier one is still being stopped."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def exclusive(
    path: Path, elsewhere: str = "processes of an earlier attempt at this training are still being stopped"
) -> Iterator[int]:
    """Hold a file's lock (``flock``), waiting for it where it is taken.

    The kernel frees it when the last process that has the descriptor is gone. A process that is handed it
    (``held=...`` of a launcher) therefore keeps it when this one is killed.

    Args:
        path: The file; made where it is missing.
        elsewhere: What is going on where it is taken, for the log.

    Yields:
        The descriptor.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, elsewhere)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, elsewhere: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("Waiting: %s.", elsewhere)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
