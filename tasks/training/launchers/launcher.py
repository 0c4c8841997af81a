"""What every launcher can do; each is one module beside this one."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trainyard.tasks.training.launchers.command import LaunchCommand, LaunchSpec
from trainyard.tasks.training.process import ExitReport


class Job(Protocol):
    """A job that a launcher has started."""

    def wait(self, on_tick: Callable[[], None]) -> ExitReport:
        """Wait for its end, and end it with everything it started where waiting is interrupted by an exception.

        Args:
            on_tick: Called several times a second while the job runs, and once after.

        Returns:
            How it ended. An unsuccessful end is not an error here.
        """

    def terminate(self) -> None:
        """End the job and everything it started; does nothing where it has ended. May be called at any time."""

    @property
    def ended(self) -> bool:
        """Whether it has ended, and everything it started with it."""

    @property
    def logs(self) -> Path:
        """The launcher's own output; the ranks have logs of their own."""


class Launcher(Protocol):
    """One way to run ranks."""

    def build(self, spec: LaunchSpec) -> LaunchCommand:
        """The exact request, as a value. Pure: nothing is started and nothing looked up outside the spec."""

    def start(self, command: LaunchCommand, *, log_path: Path, grace_s: float, held: int | None = None) -> Job:
        """Start the job.

        Args:
            command: What ``build`` gave.
            log_path: Receives the launcher's own output.
            grace_s: Seconds between SIGTERM and SIGKILL when it has to be stopped.
            held: A descriptor that stays open until nothing of the job is left, even where this process is killed
                before: that of a lock on what the job uses.
        """
