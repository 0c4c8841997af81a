"""Whether Horovod's GPU operations can be built here, and with which CUDA toolkit and NCCL."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Horovod's own build settings that a person may give; the rest of HOROVOD_* is decided by the recipe.
USER_SETTINGS = (
    "HOROVOD_BUILD_CUDA_CC_LIST",
    "HOROVOD_NCCL_HOME",
    "HOROVOD_NCCL_INCLUDE",
    "HOROVOD_NCCL_LIB",
    "HOROVOD_NCCL_LINK",
)


@dataclass(frozen=True, slots=True)
class CudaToolkit:
    """A CUDA toolkit to compile with.

    Args:
        home: The folder that holds ``bin/nvcc`` and ``include/cuda_runtime.h``.
        version: For example ``13.0``.
    """

    home: Path
    version: str


@dataclass(frozen=True, slots=True)
class GpuOperations:
    """What decides Horovod's GPU half.

    Args:
        reason: Why GPU operations are built, or why not, for the person at the terminal.
        toolkit: The toolkit to build them with; None leaves them out.
        nccl_home: The NCCL that came with torch; None lets Horovod look in the toolkit and the system.
        settings: Those of ``USER_SETTINGS`` that the environment gives; they win.
    """

    reason: str
    toolkit: CudaToolkit | None = None
    nccl_home: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def choose_gpu_operations(
    torch_cuda: str | None, nccl_home: Path | None, environ: Mapping[str, str] = os.environ
) -> GpuOperations:
    """NCCL where torch is a CUDA build and a toolkit of its CUDA version is here; none elsewhere.

    Args:
        torch_cuda: CUDA version of the installed torch, None for a CPU build.
        nccl_home: The NCCL that came with torch, if any.
        environ: Where ``HOROVOD_CUDA_HOME``, ``CUDA_HOME``, ``CUDA_PATH``, ``PATH`` and ``USER_SETTINGS`` are read.
    """
    if torch_cuda is None:
        return GpuOperations("no GPU operations: this torch is a CPU build")
    toolkit = find_toolkit(environ)
    if toolkit is None:
        return GpuOperations(f"no GPU operations: no CUDA toolkit (nvcc) was found for torch's CUDA {torch_cuda}")
    if toolkit.version.split(".")[0] != torch_cuda.split(".")[0]:
        return GpuOperations(
            f"no GPU operations: torch has CUDA {torch_cuda}, and the toolkit in {toolkit.home} is {toolkit.version}"
        )
    settings = {name: environ[name] for name in USER_SETTINGS if environ.get(name)}
    reason = f"GPU operations by NCCL, with CUDA {toolkit.version} from {toolkit.home}"
    return GpuOperations(reason, toolkit, nccl_home, settings)


def find_toolkit(environ: Mapping[str, str] = os.environ) -> CudaToolkit | None:
    """The first whole toolkit among the named ones, the one nvcc on PATH belongs to, and ``/usr/local/cuda``."""
    for home in _candidate_homes(environ):
        if (home / "include" / "cuda_runtime.h").exists() and (version := _version_of(home / "bin" / "nvcc")):
            return CudaToolkit(home, version)
    return None


def _candidate_homes(environ: Mapping[str, str]) -> Iterator[Path]:
    for variable in ("HOROVOD_CUDA_HOME", "CUDA_HOME", "CUDA_PATH"):
        if environ.get(variable):
            yield Path(environ[variable])
    if nvcc := shutil.which("nvcc", path=environ.get("PATH", "")):
        yield Path(nvcc).resolve().parent.parent
    yield Path("/usr/local/cuda")


def _version_of(nvcc: Path) -> str | None:
    if not nvcc.exists():
        return None
    answer = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
    named = re.search(r"release (\d+\.\d+)", answer.stdout)
    return named.group(1) if named else None
