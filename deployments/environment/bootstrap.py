"""``make setup``: check that this Python can do it, then hand over to ``provision``.

Runs with the standard library alone, before anything is installed. This file keeps to syntax that Python 3.6
reads, so that an old interpreter gets a sentence and not a syntax error.
"""

import os
import sys
from pathlib import Path

OLDEST = (3, 10)
NEWEST = (3, 13)


def unsupported(version: "tuple[int, ...]", platform: str) -> str:
    """Say why this interpreter cannot run Trainyard, or return an empty string.

    Args:
        version: The interpreter's major and minor version.
        platform: The value of ``sys.platform``.
    """
    if not platform.startswith("linux"):
        return f"Trainyard trains on Linux, and this is {platform}; use a Linux machine, a container or WSL"
    if not OLDEST <= version <= NEWEST:
        oldest, newest, found = (".".join(map(str, release)) for release in (OLDEST, NEWEST, version))
        return (
            f"Python {oldest} to {newest} is needed, and {sys.executable} is Python {found}; "
            "install one of those and name it, for example: make setup PYTHON=python3.12"
        )
    return ""


def main() -> int:
    """Set up ``.venv`` in the repository that holds this file; return the exit status."""
    problem = unsupported(sys.version_info[:2], sys.platform)
    if problem:
        sys.stderr.write(f"setup: {problem}\n")
        return 1
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    sys.path[0] = root  # was this folder, whose modules would hide others of the same name

    from trainyard.deployments.environment.provision import provision

    return provision(Path(root))


if __name__ == "__main__":
    sys.exit(main())
