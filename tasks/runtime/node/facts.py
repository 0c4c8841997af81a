"""What a node is: name, processors, network, launcher, libraries, space."""

import json
import os
import re
import shutil
import socket
import sys
import uuid
from pathlib import Path
from typing import Any

from trainyard.tasks.runtime.node.network import interfaces, ssh_address
from trainyard.tasks.runtime.node.processes import output_of

PROBE_TIMEOUT_S = 60.0

# Run by the interpreter that will run the script: this module may be in one without its packages.
_DISTRIBUTIONS = """
import importlib.metadata, json, platform
names = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
print(json.dumps({"python": platform.python_version(), "distributions": names}))
"""
_DEVICES = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
NOT_COMPARED = {"trainyard", "pip", "uv"}
"""Trainyard's code is sent to the nodes; installers do not run in training."""


def identity() -> dict[str, Any]:
    """What a launch must know of this machine."""
    mpirun = mpirun_path()
    return {
        "hostname": socket.gethostname(),
        "num_cpus": len(os.sched_getaffinity(0)),
        "as_root": os.geteuid() == 0,
        "interfaces": interfaces(),
        "ssh_address": ssh_address(),
        "mpirun": mpirun,
        "mpi_version": mpi_version(mpirun) if mpirun else None,
    }


def mpirun_path() -> str | None:
    """The ``mpirun`` beside the interpreter, else the one on the PATH."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def mpi_version(mpirun: str) -> str | None:
    """Open MPI's version, for example ``5.0.11``; None where it is another MPI or does not run."""
    status, output, _ = output_of((mpirun, "--version"), PROBE_TIMEOUT_S)
    found = re.search(r"\(Open MPI\) ([0-9][0-9.]*)", output)
    return found.group(1) if found and status == 0 else None


def environment(python: str, with_devices: bool) -> dict[str, Any]:
    """The interpreter's version and distributions, and how many CUDA devices its torch sees.

    Returns:
        ``python``, ``distributions`` (normalized name to version), ``num_devices`` (None where not asked), or
        ``error``.
    """
    status, output, errors = output_of((python, "-c", _DISTRIBUTIONS), PROBE_TIMEOUT_S)
    if status != 0:
        return {"error": f"{python} does not run: {_last_line(errors)}"}
    facts: dict[str, Any] = json.loads(output)
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in facts["distributions"].items()}
    facts["distributions"] = {name: names[name] for name in sorted(names) if name not in NOT_COMPARED}
    facts["num_devices"] = None
    if with_devices:
        status, output, errors = output_of((python, "-c", _DEVICES), PROBE_TIMEOUT_S)
        facts["num_devices"] = int(output) if status == 0 else 0
        facts["device_error"] = _last_line(errors) if status else "torch.cuda.is_available() is False"
    return facts


def space(root: Path) -> dict[str, Any]:
    """Whether a directory can be made and written, and how many bytes are free; ``error`` where not."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        token = root / f".token-{uuid.uuid4().hex}"
        token.touch()
    except OSError as error:
        return {"error": f"cannot write to {root} ({error.strerror or error})"}
    return {"free_bytes": free_bytes(root), "token": token.name}


def tokens(root: Path) -> list[str]:
    """Tokens that are to be seen in a directory: of others, too, where they share it."""
    return sorted(path.name for path in root.glob(".token-*"))


def discard_token(root: Path, token: str) -> None:
    """Remove the token of ``space``."""
    (root / token).unlink(missing_ok=True)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def free_bytes(root: Path) -> int:
    """Bytes that can still be written below a directory."""
    return shutil.disk_usage(root).free
