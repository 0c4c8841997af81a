"""torch, its GPU, and ONNX Runtime."""

from pathlib import Path

from trainyard.deployments.doctor.check import Check
from trainyard.deployments.doctor.probing import Answer

_NVIDIA_DEVICE = Path("/dev/nvidiactl")


def check_torch(torch: Answer) -> Check:
    """Does torch import?"""
    if torch.failure:
        return Check("torch", "fail", torch.failure, "install it: make setup, or pip install torch")
    cuda = torch.facts["cuda"]
    return Check("torch", "ok", f"{torch.facts['version']} ({f'CUDA {cuda}' if cuda else 'CPU build'})")


def check_gpu(torch: Answer, device_file: Path = _NVIDIA_DEVICE) -> Check:
    """Does torch see a GPU, and where it does not, is there one?

    Args:
        torch: What torch answered.
        device_file: Exists where the NVIDIA driver runs.
    """
    names = torch.facts.get("devices", [])
    if names:
        return Check("GPU", "ok", f"{len(names)} visible: {', '.join(names)}")
    if not device_file.exists():
        return Check("GPU", "skip", "none: training runs on the CPU, and use_gpu=True is refused")
    remedy = "install a CUDA build of torch whose CUDA version the driver supports, then build Horovod again"
    return Check("GPU", "warn", f"an NVIDIA driver is here ({device_file}), but torch sees no device", remedy)


def check_onnxruntime(onnxruntime: Answer) -> Check:
    """Does ONNX Runtime import, and what can it run on?"""
    if onnxruntime.failure:
        return Check("ONNX Runtime", "fail", onnxruntime.failure, "install it: make setup, or pip install onnxruntime")
    providers = ", ".join(onnxruntime.facts["providers"])
    return Check("ONNX Runtime", "ok", f"{onnxruntime.facts['version']}: {providers}")
