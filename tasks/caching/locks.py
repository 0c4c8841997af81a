"""Whether somebody holds a lock file."""

import fcntl
import os
from pathlib import Path


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
