"""How a Horovod wheel is built, as values: what decides it, its cache key, and the build's environment."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard.deployments.environment.cuda import GpuOperations, choose_gpu_operations
from trainyard.deployments.environment.inspection import Environment

HOROVOD_VERSION = "0.28.1"
REQUIREMENT = Path(__file__).resolve().parent / "horovod.txt"
CMAKE_FOLDER = Path(__file__).resolve().parent / "cmake"
NUM_BYTES_PER_JOB = 1_500_000_000  # memory of one compiler that reads torch's headers, rounded up
_VECTOR_FLAGS = ("avx", "f16c", "fma")  # the ones that Horovod's code makes use of
_MISLEADING = {"CMAKE_GENERATOR", "MAKELEVEL", "MFLAGS", "PYTHONHOME", "PYTHONPATH"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a Horovod wheel holds.

    Args:
        torch: Version of torch, with its local part.
        openmpi: Version of Open MPI.
        python_abi: For example ``cpython-311-x86_64-linux-gnu``.
        libc: For example ``glibc-2.36``.
        vector_flags: Instruction sets to compile for, a subset of avx, f16c and fma.
        gpu: The GPU half.
    """

    torch: str
    openmpi: str
    python_abi: str
    libc: str
    vector_flags: tuple[str, ...]
    gpu: GpuOperations

    @property
    def key(self) -> str:
        """Name of the wheel's folder in the cache: readable, and ended by a digest of the rest that decides."""
        toolkit = self.gpu.toolkit
        rest = [self.libc, self.vector_flags, dict(self.gpu.settings), _recipe_texts()]
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:12]
        gpu = f"nccl-cuda{toolkit.version}" if toolkit else "cpu"
        versions = f"horovod-{HOROVOD_VERSION}_torch-{self.torch}_openmpi-{self.openmpi}"
        return f"{versions}_{self.python_abi}_{gpu}_{digest}"


def plan_recipe(environment: Environment, environ: Mapping[str, str] = os.environ) -> Recipe:
    """The recipe for an environment on this machine.

    Args:
        environment: Where Horovod will run.
        environ: Where the CUDA toolkit is looked for and Horovod's settings are read.
    """
    return Recipe(
        torch=environment.torch,
        openmpi=environment.openmpi,
        python_abi=environment.python_abi,
        libc="-".join(platform.libc_ver()),
        vector_flags=_vector_flags(),
        gpu=choose_gpu_operations(environment.torch_cuda, environment.nccl_home, environ),
    )


def build_environment(
    recipe: Recipe, environment: Environment, *, num_jobs: int, nccl_lib: Path | None, base: Mapping[str, str]
) -> dict[str, str]:
    """Environment variables of the build: MPI and Gloo, torch alone, C++17, NCCL where the recipe says so.

    Args:
        recipe: What to build.
        environment: Where; its Open MPI and its programs come first.
        num_jobs: Compilers to run at once.
        nccl_lib: A folder that holds ``libnccl.so``, where NCCL's own folder only has ``libnccl.so.2``.
        base: Variables to start from; what could lead the build elsewhere is left out.
    """
    kept = {name: value for name, value in base.items() if not name.startswith("HOROVOD_") and name not in _MISLEADING}
    programs = [str(environment.mpi_home / "bin"), str(environment.python.parent), base.get("PATH", os.defpath)]
    fixed = {
        "PATH": os.pathsep.join(programs),
        "MPI_HOME": str(environment.mpi_home),
        "MAKEFLAGS": f"-j{num_jobs}",
        "CMAKE_TOOLCHAIN_FILE": str(CMAKE_FOLDER / "toolchain.cmake"),
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # the bundled Gloo names a version that CMake 4 refuses
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
    }
    if recipe.vector_flags:
        fixed["HOROVOD_BUILD_ARCH_FLAGS"] = " ".join(f"-m{flag}" for flag in recipe.vector_flags)
    return {**kept, **fixed, **_gpu_variables(recipe.gpu, nccl_lib)}


def _gpu_variables(gpu: GpuOperations, nccl_lib: Path | None) -> dict[str, str]:
    if gpu.toolkit is None:
        return {}
    variables = {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_CUDA_HOME": str(gpu.toolkit.home),
        "CUDA_HOME": str(gpu.toolkit.home),  # torch's own search takes a wrapper script's folder for the toolkit
        "HOROVOD_NCCL_LINK": "SHARED",  # one NCCL in the process: torch's
    }
    if gpu.nccl_home is not None:
        variables["HOROVOD_NCCL_HOME"] = str(gpu.nccl_home)
        variables["HOROVOD_NCCL_INCLUDE"] = str(gpu.nccl_home / "include")
    if nccl_lib is not None:
        variables["HOROVOD_NCCL_LIB"] = str(nccl_lib)
    return {**variables, **gpu.settings}


def count_jobs() -> int:
    """Compilers to run at once: one a core that this process may use, as far as memory goes."""
    num_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), num_bytes // NUM_BYTES_PER_JOB))


def _vector_flags() -> tuple[str, ...]:
    """What this processor has of them; Horovod's own test asks the program gcc, which may not be the compiler."""
    if platform.machine() != "x86_64":
        return ()
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    return tuple(flag for flag in _VECTOR_FLAGS if flag in flags.split())


def _recipe_texts() -> list[str]:
    return [path.read_text() for path in (REQUIREMENT, *sorted(CMAKE_FOLDER.rglob("*.cmake")))]
