"""Prefect's embedded server must not outlive the process that started it.

Where no server is configured, Prefect starts one as a child process and stops it at exit; a SIGKILL skips that, and
the server would stay (seen with Prefect 3.8.8).
"""

import os
import subprocess
import sys
from pathlib import Path

from trainyard.tasks.runtime import watchdog
from trainyard.tasks.runtime.supervisor import descendants

SERVER_MARK = b"prefect.server.api.server"

_watched: dict[int, "subprocess.Popen[bytes]"] = {}


def guard_embedded_server() -> None:
    """Have a watchdog end this process's embedded server, if there is one, once this process is gone."""
    if not Path("/proc/self").exists():
        return
    for pid in descendants(os.getpid()):
        started = watchdog.start_time(pid)
        if pid not in _watched and started is not None and SERVER_MARK in _command_line(pid):
            _watched[pid] = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, str(pid), started],
                stdin=subprocess.PIPE,  # never written to: its end closes when this process ends, however it ends
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
