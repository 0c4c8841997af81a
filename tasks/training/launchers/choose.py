"""Which launcher a job takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.training import process
from trainyard.tasks.training.launchers import mpi, mpi_hosts, single, torchrun
from trainyard.tasks.training.launchers.command import LaunchCommand, LaunchSpec
from trainyard.tasks.training.launchers.launcher import Job, Launcher


@dataclass(frozen=True, slots=True)
class LocalLauncher:
    """Runs a command on this machine; see ``Launcher``.

    Args:
        command: Builds it.
    """

    command: Callable[[LaunchSpec], LaunchCommand]

    def build(self, spec: LaunchSpec) -> LaunchCommand:
        """The exact request, as a value."""
        return self.command(spec)

    def start(self, command: LaunchCommand, *, log_path: Path, grace_s: float, held: int | None = None) -> Job:
        """Start the job."""
        return process.start(command, log_path=log_path, grace_s=grace_s, held=held)


LOCAL_LAUNCHERS: Mapping[str | None, Launcher] = {
    None: LocalLauncher(single.build),
    "mpi": LocalLauncher(mpi.build),
    "gloo": LocalLauncher(torchrun.build),
    "nccl": LocalLauncher(torchrun.build),
}
"""By ``distributed_backend``."""

HOSTS_LAUNCHERS: Mapping[str | None, Launcher] = {"mpi": LocalLauncher(mpi_hosts.build)}
"""By ``distributed_backend``, over several hosts; what runs on this machine holds their connections."""


def launcher_for(spec: LaunchSpec) -> Launcher:
    """The launcher of a job."""
    launchers = LOCAL_LAUNCHERS if spec.hosts is None else HOSTS_LAUNCHERS
    return launchers[spec.distributed_backend]


def build_launch_command(spec: LaunchSpec) -> LaunchCommand:
    """The exact command for a job; pure, so that tests assert on it without running anything."""
    return launcher_for(spec).build(spec)
