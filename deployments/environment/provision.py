"""``make setup``, step by step: a virtual environment with the locked packages, Horovod and this repository."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.horovod import install_horovod
from trainyard.deployments.environment.locks import exclusive
from trainyard.deployments.environment.pip import run_pip
from trainyard.deployments.environment.prerequisites import missing_prerequisites
from trainyard.deployments.environment.problems import SetupError
from trainyard.deployments.environment.stamp import changed_since_setup, write_stamp
from trainyard.deployments.environment.virtualenv import ensure_virtualenv, installing, python_of

NUM_STEPS = 5


@dataclass(slots=True)
class Progress:
    """Prints a line a step."""

    step: int = 0
    started: float = field(default_factory=time.monotonic)

    def next(self, message: str) -> None:
        """Say which step begins."""
        self.step += 1
        self.tell(message)

    def tell(self, message: str) -> None:
        """Say something about the step that runs."""
        print(f"setup [{self.step}/{NUM_STEPS}] {message} ...", flush=True)

    def done(self) -> None:
        """Say that all steps are done."""
        print(f"setup: ready in {time.monotonic() - self.started:.0f} s", flush=True)


def provision(root: Path) -> int:
    """Bring ``.venv`` up to date; does nothing where it is.

    Safe to repeat, to interrupt at any point, and to run twice at once (the second waits for the first).

    Args:
        root: The repository.

    Returns:
        The exit status: 0, 1 with a message where something is missing, 130 where it was interrupted.
    """
    try:
        if changed_since_setup(root, root / ".venv"):
            _provision(root)
    except SetupError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or 'no file named'}")
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def _fail(message: str) -> int:
    print(f"setup: {message}", file=sys.stderr)
    return 1


def _provision(root: Path) -> None:
    progress = Progress()
    state = root / ".trainyard"
    with exclusive(state / "setup.lock", on_wait=lambda: progress.tell("waiting for another setup")) as lock:
        if changed_since_setup(root, root / ".venv"):  # not brought up to date by the one that was waited for
            _run_steps(root, CommandLog(state / "setup.log", inherited_fds=(lock,)), progress)


def _run_steps(root: Path, log: CommandLog, progress: Progress) -> None:
    venv = root / ".venv"
    log.path.unlink(missing_ok=True)

    progress.next("checking for a C++ compiler, make, and Python's headers")
    if problems := missing_prerequisites():
        raise SetupError("; ".join(problems))

    progress.next("virtual environment .venv")
    ensure_virtualenv(venv, log)

    lock_path = root / "deployments" / "environment" / "requirements.lock"
    with installing(venv):
        progress.next(f"installing {count_requirements(lock_path.read_text())} locked packages")
        run_pip(python_of(venv), ["install", "--requirement", str(lock_path)], log)

        progress.next("looking for a built Horovod that fits the installed torch")
        install_horovod(python_of(venv), tell=progress.tell, log=log)

        progress.next("installing trainyard itself")
        editable = ["install", "--no-deps", "--no-build-isolation", "--editable", str(root)]
        run_pip(python_of(venv), editable, log)

    write_stamp(root, venv)
    progress.done()


def count_requirements(lock: str) -> int:
    """Packages that a lock names, whatever their markers."""
    names = (line.split("==")[0] for line in lock.splitlines() if "==" in line and not line.lstrip().startswith("#"))
    return len(set(names))
