"""Processes of this machine, for tests that count who is left."""

import os
import time
from pathlib import Path

import psutil


def wait_for(condition, seconds=15):
    """Whether a condition came true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def marked(mark):
    """Living processes with a mark in an argument or in the environment that they were started with."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline() + Path(f"/proc/{process.pid}/environ").read_bytes().decode(
                errors="replace"
            ).split("\0")
            if process.status() != psutil.STATUS_ZOMBIE and any(mark in word for word in words):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.pid != os.getpid()]


def describe(processes):
    """What they are, for a test's message."""
    lines = []
    for process in processes:
        try:
            lines.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            continue
    return "\n".join(lines)
