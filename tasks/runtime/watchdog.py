"""End some processes when the parent is gone: ``python -I -S watchdog.py PID START_TIME [PID START_TIME ...]``.

For processes that somebody else's code started and that would outlive a SIGKILL of their parent. The parent holds
the other end of standard input. A process is known by its id and its start time, so that an id that has been used
again is left alone.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

GRACE_S = 3.0


def start_time(pid: int) -> str | None:
    """A process's start time in clock ticks since boot (proc(5), field 22), or None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def end(processes: Sequence[tuple[int, str]]) -> None:
    """SIGTERM, time to end well, SIGKILL."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for pid, started in processes:
            if start_time(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until and any(start_time(pid) == started for pid, started in processes):
            time.sleep(0.05)


def main() -> None:
    """Wait for the parent's end of the pipe to close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    words = sys.argv[1:]
    processes = [(int(pid), started) for pid, started in zip(words[::2], words[1::2], strict=True)]
    while os.read(0, 1):
        pass
    end(processes)


if __name__ == "__main__":
    main()
