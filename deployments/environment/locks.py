"""One process at a time, by a lock that the kernel frees when its holders end."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, *, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold an exclusive lock (flock) on a file, made where it is missing.

    Args:
        path: The file; it stays after the lock is released.
        on_wait: Called once where another process holds the lock, before waiting for it.

    Yields:
        The lock's file descriptor. A child process that inherits it holds the lock too: where this process is
        killed, the next one waits until its children have ended as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
