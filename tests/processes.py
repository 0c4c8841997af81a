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
    """What a condition gives as soon as that is true, or in the end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.1)
    return condition()


def is_living(process):
    """Whether a process runs; one that has ended is none, also while its parent has not heard of it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def are_gone(processes):
    """Whether none of some processes is living."""
    return not any(map(is_living, processes))


def command_of(process):
    """A process's arguments; none where it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


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
                if is_living(process):
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
