"""Processes of an earlier attempt at a training that nobody ends any more: found by their environment."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from trainyard.tasks.runtime import watchdog

log = logging.getLogger(__name__)

ROUNDS = 3


def end_remains(checkpoints: Path) -> int:
    """End every process that was started for a training, known by its checkpoint directory; how many there were.

    The last resort, for when a supervisor was killed with SIGKILL and so could not end what it had started. To be
    called by whoever holds the lock on the training: then no such process can be anybody's.

    Args:
        checkpoints: ``TRAINYARD_CHECKPOINT_DIR`` of the training, the same for all attempts at it.
    """
    count = 0
    for _ in range(ROUNDS):  # one that is ended may have started another meanwhile
        found = list(_marked(f"TRAINYARD_CHECKPOINT_DIR={checkpoints}".encode()))
        if not found:
            break
        count += len(found)
        watchdog.end(found)
    if count:
        log.warning("Ended %d processes of an earlier attempt at this training.", count)
    return count


def _marked(variable: bytes) -> Iterator[tuple[int, str]]:
    """Id and start time of every living process with a variable in the environment that it was started with."""
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another user's
            continue
        started = watchdog.start_time(pid)
        if started is not None and variable in environment and pid != os.getpid():
            yield pid, started
