"""One process at a time, on this machine: a locked file that says who holds it."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from trainyard.tasks.caching.waiting import Wait

POLL_S = (0.05, 1.0)
"""Bounds of the seconds between two tries: as long as the waiting so far, so that short waits stay short."""


@contextmanager
def exclusive(path: Path, elsewhere: str, timeout_s: float | None = None) -> Iterator[int]:
    """Hold a file's lock (``flock``), waiting for it where it is taken.

    The kernel frees it when the last process that has the descriptor is gone. A process that is handed it
    (``held=...`` of a launcher) therefore keeps it when this one is killed.

    Args:
        path: The file; made where it is missing.
        elsewhere: What is going on where it is taken, for the log.
        timeout_s: Seconds to wait at most; the stage's time limit.

    Yields:
        The descriptor.

    Raises:
        StageTimeoutError: It was not free in time; names who holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(path, Wait(elsewhere, timeout_s))
    try:
        _note_holder(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path, wait: Wait) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _try(descriptor) and _is_at(descriptor, path):
                return descriptor
            wait.tell(_holder(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        wait.sleep(*POLL_S)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file is still the one at the path: who removes it (``filelock`` does) makes room for another."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _note_holder(descriptor: int) -> None:
    """For people who wait. It stays when the lock is free again, and says nothing then."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    with suppress(OSError):  # a full disk: nobody is told, and nothing else is lost
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _holder(descriptor: int) -> str:
    """Who holds it and what can be done, as a sentence; empty where it does not say."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        pid, host, since_s = int(holder["pid"]), str(holder["host"]), float(holder["since"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    since = datetime.fromtimestamp(since_s, timezone.utc).astimezone()
    who = f"process {pid} on {host}, since {since:%Y-%m-%d %H:%M:%S}"
    if host == socket.gethostname() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
        return f"It was taken by {who}; that one has ended, and what it started is still being ended."
    return f"It is held by {who}. If that one hangs, end it (kill {pid} on {host}), and this goes on."
