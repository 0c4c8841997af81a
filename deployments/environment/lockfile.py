"""``make lock``: resolve pyproject.toml with all its extras into requirements.lock, for every Python and platform."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
_HEADER = """\
# Every package that `make setup` installs, at one version each, for Python 3.10 to 3.13.
# Made by `make lock` from pyproject.toml (all extras) and deployments/environment/pins.txt; do not edit.
# Left out on purpose: the CUDA libraries of torch (nvidia-*, cuda-*, triton). The torch wheel that a machine
# installs, for CUDA or for the CPU alone, names the ones it needs at exact versions, and pip follows it.
# Left out too: Horovod, which is built against the installed torch (deployments/environment/horovod.py).
"""
_FOLLOWS_TORCH = re.compile(r"(nvidia|cuda|triton)\b")


def lock_command(root: Path) -> list[str]:
    """Arguments that resolve for every supported Python at once.

    Args:
        root: The repository; the command runs in it.
    """
    options = ["--universal", "--python-version", "3.10", "--all-extras", "--no-header", "--quiet"]
    pins = (FOLDER / "pins.txt").relative_to(root)
    uv = Path(sys.executable).parent / "uv"
    return [str(uv), "pip", "compile", *options, "--constraints", str(pins), "pyproject.toml"]


def without_torch_companions(resolved: str) -> str:
    """The lock without the packages that follow from the torch wheel, and the comments below them."""
    kept: list[str] = []
    keeps = True
    for line in resolved.splitlines():
        if not line.startswith((" ", "#")):
            keeps = not _FOLLOWS_TORCH.match(line)
        if keeps:
            kept.append(line)
    return "\n".join(kept) + "\n"


def main() -> int:
    """Write the lock; return the exit status."""
    root = FOLDER.parents[1]
    resolved = subprocess.run(lock_command(root), cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if resolved.returncode != 0:
        return resolved.returncode
    (FOLDER / "requirements.lock").write_text(_HEADER + without_torch_companions(resolved.stdout))
    return 0


if __name__ == "__main__":
    sys.exit(main())
