"""Horovod: is it there, is it built for the torch that is installed, and what can it do?"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from trainyard.deployments.doctor.check import Check
from trainyard.deployments.doctor.probing import Answer

_REBUILD = "build it for the installed torch: make setup, or trainyard install-horovod"


def check_horovod(torch: Answer, horovod: Answer) -> Iterator[Check]:
    """Two answers: does Horovod fit the installed torch, and which operations were built.

    Args:
        torch: What torch answered.
        horovod: What Horovod answered.
    """
    built_for = torch_built_for()
    if built_for is None:
        yield Check("Horovod", "fail", "not installed", _REBUILD)
        return
    installed = torch.facts.get("version")
    if installed and built_for != installed:
        found = f"built for torch {built_for}, and torch {installed} is installed"
        yield Check("Horovod", "fail", f"{found}; {horovod.failure or 'it imports, by luck'}", _REBUILD)
        return
    if horovod.failure:
        yield Check("Horovod", "fail", f"built for torch {built_for}, but: {horovod.failure}", _REBUILD)
        return
    yield Check("Horovod", "ok", f"{horovod.facts['version']}, built for this torch ({built_for})")
    yield check_operations(horovod, has_gpu=bool(torch.facts.get("devices")))


def check_operations(horovod: Answer, *, has_gpu: bool) -> Check:
    """Were MPI, Gloo and, where there is a GPU, NCCL built in?"""
    built = {name: bool(horovod.facts[name.lower()]) for name in ("MPI", "Gloo", "NCCL")}
    found = ", ".join(name for name, is_built in built.items() if is_built) or "none"
    if not built["MPI"]:
        return Check("Horovod operations", "fail", f"{found}: no MPI", _REBUILD)
    if not built["Gloo"]:
        return Check("Horovod operations", "warn", f"{found}: no Gloo, which elastic training needs", _REBUILD)
    if has_gpu and not built["NCCL"]:
        remedy = f"install the CUDA toolkit (nvcc) of torch's CUDA version, then {_REBUILD}"
        return Check("Horovod operations", "warn", f"{found}: no NCCL, so GPUs cannot train together", remedy)
    return Check("Horovod operations", "ok", found)


def torch_built_for() -> str | None:
    """Version of torch that the installed Horovod was built for, from Horovod's own note; None without Horovod."""
    spec = find_spec("horovod")
    if spec is None or spec.origin is None:
        return None
    note = Path(spec.origin).parent / "metadata.json"
    return str(json.loads(note.read_text()).get("pytorch", "no torch at all")) if note.exists() else "an unknown torch"
