"""Launch commands as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.runtime.argv import shielded
from trainyard.tasks.training.hosts.plan import HostsPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """What to launch; everything that a launcher may look at."""

    python: str
    """The interpreter that runs the script."""

    entry_script: str
    """Relative to the working directory."""

    arguments: tuple[str, ...]
    """The script's argv, after its name."""

    working_directory: Path
    """The run's own copy of the source."""

    environment: Mapping[str, str]
    """The whole environment of the launcher and, through it, of every rank."""

    process_count_per_node: int
    """Ranks on each machine."""

    node_count: int
    """Machines."""

    num_cpus: int
    """Processor cores that this process may use, on one machine."""

    as_root: bool
    """Whether the launcher runs as root, which Open MPI must be told."""

    distributed_backend: str | None = None
    """``mpi``, ``gloo`` or ``nccl``, or None for one process."""

    use_gpu: bool = False
    """Whether the ranks compute on GPUs."""

    timeout_s: float | None = None
    """Seconds until the whole job is ended."""

    hosts: HostsPlan | None = None
    """The machines, where they are others than this one."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.node_count * self.process_count_per_node

    @property
    def rank_command(self) -> tuple[str, ...]:
        """What one rank runs, after the interpreter and its options."""
        return ("-m", "trainyard.tasks.runtime", f"./{self.entry_script}", *map(shielded, self.arguments))


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchCommand:
    """The exact request: nothing but a scratch directory is added when it is run."""

    argv: tuple[str, ...]
    """Program and arguments; no shell reads them."""

    env: Mapping[str, str]
    """The whole environment."""

    cwd: Path
    """Working directory."""

    timeout_s: float | None
    """Seconds until it is ended, or None."""

    scratch_variables: tuple[str, ...] = ()
    """Environment variables that name a directory of the job's own, on this machine's disk and removed after it."""


def thread_environment(spec: LaunchSpec) -> dict[str, str]:
    """Share the cores among a machine's ranks, where the user has not said otherwise."""
    threads = str(max(1, spec.num_cpus // spec.process_count_per_node))
    return {} if "OMP_NUM_THREADS" in spec.environment else {"OMP_NUM_THREADS": threads}


def device_environment(spec: LaunchSpec) -> dict[str, str]:
    """Hide GPUs from a run that did not ask for them."""
    return {} if spec.use_gpu else {"CUDA_VISIBLE_DEVICES": ""}
