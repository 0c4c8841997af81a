"""Prefect's embedded server must have time to start, and must not outlive the process that started it.

Where no server is configured, Prefect starts one as a child process and stops it at exit; a SIGKILL skips that, and
the server would stay (seen with Prefect 3.8.8). Prefect gives it 20 seconds to start, which a busy machine exceeds:
importing this module gives it more, unless the user has set that limit. It must be done before a flow is called.
"""

import os
import subprocess
import sys
from pathlib import Path

from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL, get_current_settings

from trainyard.tasks.runtime import watchdog
from trainyard.tasks.runtime.supervisor import descendants

SERVER_MARK = b"prefect.server.api.server"

START_TIMEOUT_S = 180

_watched: dict[int, "subprocess.Popen[bytes]"] = {}


def guard_embedded_server() -> None:
    """Have a watchdog end this process's embedded server, if there is one, once this process is gone.

    Where the API has an address, its server was started by somebody who decides when it ends: by ``trainyard run``,
    for example, as the background server that later runs find. It is a child of this process, too.
    """
    if PREFECT_API_URL.value() or not Path("/proc/self").exists():
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


def _give_time_to_start() -> None:
    if "startup_timeout_seconds" not in get_current_settings().server.ephemeral.model_fields_set:
        os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = str(START_TIMEOUT_S)
        refresh_global_settings_context()  # Prefect read its settings when it was imported


_give_time_to_start()
