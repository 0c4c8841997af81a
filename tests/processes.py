"""Processes of this machine, for tests that count who is left."""

import os
import time
from pathlib import Path

import psutil

LIMIT_S = 15
"""Seconds within which nothing is left of a run that was ended."""
CANCEL_POLL_S = 5
"""Seconds, beside these, until a worker has seen that a run is to be cancelled: it looks every two."""


def wait_for(condition, seconds=15):
    """Whether a condition came true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return bool(condition())


def marked(mark):
    """Living processes with a mark in an argument or in the environment that they were started with.

    Asked many times a second while the machine is busy with what is tested: so by two reads a process.
    """
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            words = Path(entry.path, "environ").read_bytes() + Path(entry.path, "cmdline").read_bytes()
            if mark.encode() in words:
                process = psutil.Process(int(entry.name))
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def describe(processes):
    """What they are, for a test's message."""
    lines = []
    for process in processes:
        try:
            lines.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            continue
    return "\n".join(lines)
