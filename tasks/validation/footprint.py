"""What a session costs: load time and peak memory, in a process of its own, and which provider ran which node.

``python -m trainyard.tasks.validation.footprint`` is that process (see ``ModelProcess``): memory that this one holds
for torch would hide the session's.
"""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ExportError, ValidationFailedError
from trainyard.tasks.models.process import Facts, ModelProcess
from trainyard.tasks.models.serving import serve
from trainyard.tasks.validation.figures import Footprint
from trainyard.tasks.validation.session import open_model

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MODULE = "trainyard.tasks.validation.footprint"
_NODE = "_kernel_time"


def measure_footprint(path: Path, provider: str, inputs: "dict[str, Array]", scratch: Path) -> Footprint:
    """Load a model in a fresh process, call it twice, and say what that took.

    Args:
        path: ``model.onnx``.
        provider: The execution provider.
        inputs: One batch.
        scratch: An existing folder.

    Raises:
        ValidationFailedError: It does not run there, or the process ended; says why.
    """
    try:
        with ModelProcess(MODULE, scratch) as process:
            facts, _ = process.ask("measure", {"path": str(path), "provider": provider}, inputs)
    except ExportError as error:
        raise ValidationFailedError(str(error)) from error
    return Footprint(provider=provider, **facts)


def _measure(facts: Facts, inputs: "dict[str, Array]") -> "tuple[Facts, dict[str, Array]]":
    import onnxruntime

    onnxruntime.get_available_providers()  # what the library itself takes is not the session's
    path, provider = Path(facts["path"]), facts["provider"]
    before = _status("VmRSS")
    started = time.perf_counter()
    model = open_model(path, provider)
    load_ms = (time.perf_counter() - started) * 1000
    for _ in range(2):
        model(inputs)
    peak = _status("VmHWM")
    del model
    return {
        "load_ms": load_ms,
        "peak_num_bytes": max(0, peak - before),
        "nodes": _nodes_by_provider(path, provider, inputs),
    }, {}


def _nodes_by_provider(path: Path, provider: str, inputs: "dict[str, Array]") -> dict[str, int]:
    """Which provider ran how many nodes, from a profile of one call."""
    model = open_model(path, provider, profile_prefix="profile")
    model(inputs)
    events = json.loads(Path(model.session.end_profiling()).read_bytes())
    ran = [event["args"]["provider"] for event in events if str(event.get("name")).endswith(_NODE)]
    return {name: ran.count(name) for name in sorted(set(ran))}


def _status(field: str) -> int:
    """A size of this process from /proc/self/status, in bytes (proc(5)); 0 where there is none."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    serve(sys.argv[1:], {"measure": _measure})
