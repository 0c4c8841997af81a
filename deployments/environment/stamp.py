"""The note in ``.venv`` that says what it was set up from, so that a second ``make setup`` has nothing to do."""

import hashlib
import json
import sys
from pathlib import Path

from trainyard.deployments.environment.virtualenv import python_of

STAMP_NAME = ".trainyard-setup.json"
_OWN_FOLDER = Path("deployments", "environment")
_DECISIVE_TABLES = ("[build-system", "[project", "[tool.setuptools")


def expected_stamp(root: Path) -> dict[str, str]:
    """What an environment set up now would be set up from.

    Args:
        root: The repository.

    Returns:
        A digest or a version for each thing that decides what is installed, by the name a person knows it by.
    """
    own = sorted(path for path in (root / _OWN_FOLDER).rglob("*") if path.suffix in {".py", ".cmake", ".txt"})
    return {
        "requirements.lock": _digest((root / _OWN_FOLDER / "requirements.lock").read_bytes()),
        "pyproject.toml": _digest(_decisive_part((root / "pyproject.toml").read_text()).encode()),
        "set-up code": _digest(b"\0".join(path.read_bytes() for path in own)),
        "place": str(root),  # the editable install and every script in .venv/bin name it
        "Python": "{}.{}".format(*sys.version_info[:2]),
    }


def changed_since_setup(root: Path, folder: Path) -> list[str]:
    """Names of what changed since the environment was set up; empty where it is up to date.

    Args:
        root: The repository.
        folder: The virtual environment.
    """
    expected = expected_stamp(root)
    if not python_of(folder).exists():
        return list(expected)
    found = _read(folder / STAMP_NAME)
    return [name for name, value in expected.items() if found.get(name) != value]


def write_stamp(root: Path, folder: Path) -> None:
    """Note that the environment is set up from what is there now."""
    unfinished = folder / f"{STAMP_NAME}.new"
    unfinished.write_text(json.dumps(expected_stamp(root), indent=2) + "\n")
    unfinished.replace(folder / STAMP_NAME)


def _read(path: Path) -> dict[str, str]:
    try:
        stamp = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _decisive_part(pyproject: str) -> str:
    """The tables that decide what is installed; those of linters and tests do not.

    Read by lines, because Python 3.10 has no tomllib.
    """
    kept: list[str] = []
    decisive = False
    for line in pyproject.splitlines():
        if line.startswith("["):
            decisive = line.startswith(_DECISIVE_TABLES)
        if decisive:
            kept.append(line)
    return "\n".join(kept)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
