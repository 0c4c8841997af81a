"""The one function that runs a launch command, and everything that keeps it from leaving processes behind."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainyard.tasks.runtime import supervisor
from trainyard.tasks.training.launchers.command import LaunchCommand

TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a launch command ended."""

    returncode: int
    """The launcher's exit status; negative for a signal."""

    reason: Literal["exited", "deadline", "stopped", "parent-lost", "not-started", "supervisor-lost"]
    """Why it ended; ``exited`` is of its own accord."""

    seconds: float
    """Wall-clock seconds."""

    leftovers: int
    """Processes of the job that were still there when the launcher had ended, and were ended too."""

    error: str = ""
    """Why it could not be started."""


def run_command(
    command: LaunchCommand, *, log_path: Path, grace_s: float, on_tick: Callable[[], None], held: int | None = None
) -> ExitReport:
    """Run a launch command to its end under a supervisor.

    Whatever ends this function (an exception, Ctrl-C, a cancellation), and whatever ends this process, the
    command and all its descendants are ended too.

    Args:
        command: What to run.
        log_path: Receives the launcher's own output; the ranks have logs of their own.
        grace_s: Seconds between SIGTERM and SIGKILL when it has to be stopped.
        on_tick: Called several times a second while it runs, and once after.
        held: A descriptor that stays open until nothing of the command is left, even where this process is
            killed before: that of a lock on what the command uses.

    Returns:
        How it ended. An unsuccessful end is not an error here.
    """
    with tempfile.TemporaryDirectory(prefix="trainyard-") as scratch:
        report_path = Path(scratch) / "exit.json"
        process = _start(command, Path(scratch) / "spec.json", report_path, log_path, grace_s, held)
        try:
            while process.poll() is None:
                on_tick()
                time.sleep(TICK_S)
        finally:
            _stop(process, grace_s)
        on_tick()
        return _read_report(report_path, process.returncode)


def _start(
    command: LaunchCommand, spec_path: Path, report_path: Path, log_path: Path, grace_s: float, held: int | None
) -> "subprocess.Popen[bytes]":
    spec = {
        "argv": list(command.argv),
        "env": dict(command.env),
        "cwd": str(command.cwd),
        "timeout_s": command.timeout_s,
        "grace_s": grace_s,
    }
    spec_path.touch(0o600)  # it holds the environment
    spec_path.write_text(json.dumps(spec))
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(spec_path), str(report_path)],
            stdin=subprocess.PIPE,  # our end closes when this process ends, however it ends
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal reaches us; the supervisor hears it from us
            pass_fds=() if held is None else (held,),
        )


def _stop(process: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """Have the supervisor end everything; it has already where it has exited."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
    process.wait(timeout=grace_s + supervisor.KILL_WAIT_S + 10)


def _read_report(path: Path, supervisor_status: int) -> ExitReport:
    if not path.exists():
        return ExitReport(supervisor_status, "supervisor-lost", 0.0, 0)
    return ExitReport(**json.loads(path.read_bytes()))
