"""Open MPI: the launcher and the library must be of one environment."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from trainyard.deployments.doctor.check import Check
from trainyard.deployments.doctor.probing import Answer

_INSTALL = "install both into this environment: make setup, or pip install 'trainyard[distributed]'"


def environment_mpirun() -> Path:
    """Where the ``mpirun`` of this environment is, or would be: beside its interpreter."""
    return Path(sys.executable).parent / "mpirun"


def launch_variables(base: Mapping[str, str] = os.environ, user_id: int | None = None) -> dict[str, str]:
    """The environment for ``mpirun``, which refuses to run as root unless told twice (containers run as root).

    Args:
        base: Variables to start from.
        user_id: The user's number; this process's own by default.
    """
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**base, **(as_root if (os.geteuid() if user_id is None else user_id) == 0 else {})}


def check_mpirun(environ: Mapping[str, str] = os.environ) -> Check:
    """Is Open MPI in this environment, and does another one stand before it on PATH?"""
    own = environment_mpirun()
    if not own.exists():
        return Check("Open MPI", "fail", f"no mpirun at {own}", _INSTALL)
    version = _version_of(own)
    if version is None:
        return Check("Open MPI", "fail", f"{own} does not say that it is Open MPI", _INSTALL)
    on_path = shutil.which("mpirun", path=environ.get("PATH", ""))
    if on_path and not Path(on_path).samefile(own):
        note = f"{own} is the one to run; mpirun on PATH is another: {on_path}"
        return Check("Open MPI", "warn", f"{version}; {note}", "take that one off PATH before calling mpirun by hand")
    return Check("Open MPI", "ok", f"{version} ({own})")


def check_mpi4py(mpi4py: Answer) -> Check:
    """Does mpi4py import, and is the library that it loads Open MPI?"""
    if mpi4py.failure:
        return Check("mpi4py", "fail", mpi4py.failure, _INSTALL)
    found = f"{mpi4py.facts['version']}, on {mpi4py.facts['library']}"
    if "Open MPI" not in mpi4py.facts["library"]:
        return Check("mpi4py", "fail", found, f"another MPI was found before Open MPI's library; {_INSTALL}")
    return Check("mpi4py", "ok", found)


def _version_of(mpirun: Path) -> str | None:
    answer = subprocess.run([mpirun, "--version"], env=launch_variables(), capture_output=True, text=True, check=False)
    named = re.search(r"\(Open MPI\) (\S+)", answer.stdout)
    return named.group(1) if named else None
