"""Runs a launch command on this machine, and keeps it from leaving processes behind."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainyard.tasks.runtime import supervisor
from trainyard.tasks.runtime.scratch import remove_abandoned, scratch_prefix
from trainyard.tasks.training.launchers.command import LaunchCommand

TICK_S = 0.25
SPEC, REPORT = "spec.json", "exit.json"


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


class LocalJob:
    """A launch command that runs under a supervisor on this machine.

    Whatever ends the wait for it (an exception, Ctrl-C, a cancellation), and whatever ends this process, the
    command and all its descendants are ended too.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", scratch: Path, log_path: Path, grace_s: float) -> None:
        self._process = process
        self._scratch = scratch
        self._log_path = log_path
        self._grace_s = grace_s

    @property
    def logs(self) -> Path:
        """The command's own output."""
        return self._log_path

    @property
    def ended(self) -> bool:
        """Whether the supervisor has exited, which it does last."""
        return self._process.poll() is not None

    def wait(self, on_tick: Callable[[], None]) -> ExitReport:
        """Wait for its end; see ``Job``."""
        try:
            while self._process.poll() is None:
                on_tick()
                time.sleep(TICK_S)
        finally:
            self.terminate()
        on_tick()
        report = _read_report(self._scratch, self._process.returncode)
        shutil.rmtree(self._scratch, ignore_errors=True)
        return report

    def terminate(self) -> None:
        """Have the supervisor end everything; it has already where it has exited."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(timeout=self._grace_s + supervisor.KILL_WAIT_S + 10)


def start(command: LaunchCommand, *, log_path: Path, grace_s: float, held: int | None = None) -> LocalJob:
    """Start a launch command under a supervisor; see ``Launcher.start``."""
    remove_abandoned()
    scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix("launch")))
    spec_path = scratch / SPEC
    spec_path.touch(0o600)  # it holds the environment
    spec_path.write_text(json.dumps(_supervisor_spec(command, scratch, grace_s)))
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(spec_path), str(scratch / REPORT)],
            stdin=subprocess.PIPE,  # our end closes when this process ends, however it ends
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal reaches us; the supervisor hears it from us
            pass_fds=() if held is None else (held,),
        )
    return LocalJob(process, scratch, log_path, grace_s)


def run_command(
    command: LaunchCommand, *, log_path: Path, grace_s: float, on_tick: Callable[[], None], held: int | None = None
) -> ExitReport:
    """Start a launch command on this machine and wait for its end."""
    return start(command, log_path=log_path, grace_s=grace_s, held=held).wait(on_tick)


def _supervisor_spec(command: LaunchCommand, scratch: Path, grace_s: float) -> dict[str, Any]:
    return {
        "argv": list(command.argv),
        "env": {**command.env, **dict.fromkeys(command.scratch_variables, str(scratch))},
        "cwd": str(command.cwd),
        "timeout_s": command.timeout_s,
        "grace_s": grace_s,
    }


def _read_report(scratch: Path, supervisor_status: int) -> ExitReport:
    path = scratch / REPORT
    if not path.exists():
        return ExitReport(supervisor_status, "supervisor-lost", 0.0, 0)
    return ExitReport(**json.loads(path.read_bytes()))
