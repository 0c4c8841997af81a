"""What a rank has computed on."""

import os
import platform
import sys
from pathlib import Path
from typing import Any


def device_in_use() -> dict[str, Any]:
    """What this process has computed on, so far; imports nothing that the script has not.

    Returns:
        ``device`` (``cpu`` or ``cuda:1``), ``model`` (the name of the CPU or GPU), and ``num_threads``, of torch where
        the script uses it; None where nothing says.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    facts = {"device": "cpu", "model": _cpu_model(), "num_threads": int(threads) if threads.isdecimal() else None}
    torch = sys.modules.get("torch")
    try:
        return facts if torch is None else facts | {"num_threads": torch.get_num_threads()} | _cuda_device(torch)
    except (AttributeError, RuntimeError):  # half imported, or a device in trouble: no reason to fail what ended well
        return facts


def _cuda_device(torch: Any) -> dict[str, str]:
    """The GPU that has held most of this process's tensors; none where CUDA was not used."""
    if not torch.cuda.is_initialized():
        return {}
    peaks = {index: torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())}
    index = max(peaks, key=lambda each: peaks[each])
    if not peaks[index]:
        return {}
    return {"device": f"cuda:{index}", "model": torch.cuda.get_device_name(index)}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
