"""The virtual environment that ``make setup`` makes, and whether an existing one can still be used."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.problems import InstallerKilledError, SetupError

_INSTALLING = ".trainyard-installing"
_PLACE = ".trainyard-place"
_VERSION_PROGRAM = "import pip, sys; print('%d.%d' % sys.version_info[:2])"


def ensure_virtualenv(folder: Path, log: CommandLog) -> bool:
    """Make the virtual environment, or make it anew where the one that is there cannot be used.

    Args:
        folder: Where it is, for example ``.venv``.
        log: Takes the output; must not lie in the folder.

    Returns:
        Whether it was made.

    Raises:
        SetupError: Python could not make it.
    """
    if is_usable(folder):
        return False
    base_python = Path(sys.executable).resolve()  # not the link in a virtual environment that is about to go
    outcome = log.run([base_python, "-m", "venv", "--clear", folder])
    if outcome.exit_code != 0:
        last_line = (outcome.output.strip() or "no output").splitlines()[-1]
        raise SetupError(f"cannot make the virtual environment {folder}: {last_line}; all output is in {log.path}")
    (folder / _PLACE).write_text(str(folder.absolute()))
    return True


def is_usable(folder: Path) -> bool:
    """Whether the environment runs, has pip and this Python's version, was not moved, and was not left half done."""
    if (folder / _INSTALLING).exists() or not python_of(folder).exists() or _was_moved(folder):
        return False
    found = subprocess.run(
        [python_of(folder), "-I", "-c", _VERSION_PROGRAM], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() == "{}.{}".format(*sys.version_info[:2])


def _was_moved(folder: Path) -> bool:
    """Whether it was made somewhere else: its scripts then start with the wrong interpreter."""
    place = folder / _PLACE
    return place.exists() and place.read_text() != str(folder.absolute())


def python_of(folder: Path) -> Path:
    """The environment's interpreter, as an absolute path."""
    return folder.absolute() / "bin" / "python"


@contextmanager
def installing(folder: Path) -> Iterator[None]:
    """Mark that packages are being installed.

    The mark goes when the installer has ended, well or not: then it left whole packages. Where the installer or
    this process is interrupted or killed it stays, since a package that is half there can look complete to pip.
    """
    mark = folder / _INSTALLING
    mark.touch()
    try:
        yield
    except InstallerKilledError:
        raise
    except SetupError:
        mark.unlink()
        raise
    mark.unlink()
