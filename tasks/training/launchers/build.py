"""Which launcher a job takes."""

from trainyard.tasks.training.launchers import mpi, single
from trainyard.tasks.training.launchers.command import LaunchCommand, LaunchSpec


def build_launch_command(spec: LaunchSpec) -> LaunchCommand:
    """The exact command for a job; pure, so that tests assert on it without running anything."""
    return mpi.build(spec) if spec.distributed_backend == "mpi" else single.build(spec)
