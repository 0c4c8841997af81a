"""Scratch directories that say whose they are, so that what a killed process left is removed by a later one."""

import contextlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from trainyard.tasks.runtime import watchdog

LEAST_AGE_S = 600.0
"""What a process that was killed had started may still be ending, and write its last words."""

_NAME = re.compile(r"trainyard-[a-z]+-(?P<namespace>[0-9]+)-(?P<pid>[0-9]+)-(?P<started>[0-9]+)-[^/]*")


def scratch_prefix(what: str) -> str:
    """How the name of a scratch directory of this process begins, for ``tempfile``.

    Args:
        what: What it is for, in lower-case letters.
    """
    pid = os.getpid()
    return f"trainyard-{what}-{_namespace()}-{pid}-{watchdog.start_time(pid) or 0}-"


def remove_abandoned(least_age_s: float = LEAST_AGE_S) -> int:
    """Remove this user's scratch directories whose process has ended; how many there were.

    Args:
        least_age_s: Seconds since something was last made or removed in them.
    """
    count = 0
    for entry in os.scandir(tempfile.gettempdir()):
        with contextlib.suppress(OSError):  # gone meanwhile
            if _is_abandoned(entry, least_age_s):
                shutil.rmtree(entry.path, ignore_errors=True)
                count += 1
    return count


def _is_abandoned(entry: "os.DirEntry[str]", least_age_s: float) -> bool:
    name = _NAME.fullmatch(entry.name)
    if name is None or not entry.is_dir(follow_symlinks=False) or name["started"] == "0":
        return False
    status = entry.stat(follow_symlinks=False)
    if status.st_uid != os.geteuid() or time.time() - status.st_mtime < least_age_s:
        return False
    # process ids of another container that shares the directory mean nothing here
    return name["namespace"] == _namespace() and watchdog.start_time(int(name["pid"])) != name["started"]


def _namespace() -> str:
    """The number of this process's pid namespace; 0 where there is none."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    return "0"
