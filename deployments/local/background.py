"""Background processes: started detached, known by a record in a file, ended by id and start time."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trainyard.tasks.runtime.supervisor import descendants
from trainyard.tasks.runtime.watchdog import start_time

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Background:
    """A process that outlives the command that started it.

    Args:
        name: What it is, for people and for its files.
        pid: Its process id.
        started: Its start time in clock ticks since boot: an id that is used again is another process.
        address: Of the Prefect API that it is, or works for.
        host: The machine that it runs on: several may share a home.
    """

    name: str
    pid: int
    started: str
    address: str = ""
    host: str = field(default_factory=socket.gethostname)

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it still runs, on this machine."""
        return self.is_here and start_time(self.pid) == self.started

    def save(self, folder: Path) -> None:
        """Record it, in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{self.name}.{os.getpid()}"
        scratch.write_text(json.dumps(asdict(self)))
        scratch.replace(record_path(folder, self.name))

    def forget(self, folder: Path) -> None:
        """Remove its record, unless that is of another process by now."""
        found = _read(folder, self.name)
        if found is not None and (found.host, found.pid, found.started) == (self.host, self.pid, self.started):
            record_path(folder, self.name).unlink(missing_ok=True)


def recorded(folder: Path, name: str) -> Background | None:
    """The process of a name, if it still runs."""
    found = _read(folder, name)
    return found if found is not None and found.alive else None


def all_recorded(folder: Path) -> list[Background]:
    """Every recorded process that still runs."""
    return [found for name in _names(folder) if (found := recorded(folder, name))]


def recorded_elsewhere(folder: Path, name: str) -> Background | None:
    """The process of a name on another machine that shares the folder; nobody here can tell whether it still runs."""
    found = _read(folder, name)
    return found if found is not None and not found.is_here else None


def all_recorded_elsewhere(folder: Path) -> list[Background]:
    """Every process that another machine has recorded."""
    return [found for name in _names(folder) if (found := recorded_elsewhere(folder, name))]


def record_path(folder: Path, name: str) -> Path:
    """Where a process is recorded."""
    return folder / f"{name}.json"


def start(
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    folder: Path,
    address: str = "",
    held: Collection[int] = (),
) -> Background:
    """Start a process that stays when this one ends, its output in ``<folder>/<name>.log``.

    Args:
        name: What it is.
        argv: Program and arguments.
        env: Its whole environment.
        folder: Where its record and its log are kept.
        address: Of the Prefect API that it will be, or works for.
        held: Descriptors that it gets, and may keep open for its lifetime.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with log_path(folder, name).open("ab") as log:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=folder,  # Prefect reads a prefect.toml or .env where it is started: those of nobody
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_listen_to_signals,
            pass_fds=held,
        )
    background = Background(name, process.pid, start_time(process.pid) or "", address)
    background.save(folder)
    return background


def log_path(folder: Path, name: str) -> Path:
    """What a process prints."""
    return folder / f"{name}.log"


def last_lines(folder: Path, name: str, count: int = 8) -> str:
    """The end of a process's log."""
    try:
        lines = log_path(folder, name).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-count:])


def stop(background: Background, grace_s: float) -> None:
    """End a process and all below it: the leaves are asked first, so that runs can report how they ended.

    Args:
        background: The process.
        grace_s: Seconds between SIGTERM and SIGKILL.
    """
    if not background.alive:
        return
    family = {pid: start_time(pid) for pid in descendants(background.pid)}
    _signal(family, signal.SIGTERM)
    _wait_for_end(family, grace_s)
    family[background.pid] = background.started
    family.update({pid: start_time(pid) for pid in descendants(background.pid)})
    _signal(family, signal.SIGTERM)
    _wait_for_end(family, grace_s)
    _signal(family, signal.SIGKILL)
    _wait_for_end(family, grace_s)


def _signal(family: Mapping[int, str | None], signum: int) -> None:
    for pid in _living(family):
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


def _living(family: Mapping[int, str | None]) -> list[int]:
    return [pid for pid, started in family.items() if started is not None and start_time(pid) == started]


def _wait_for_end(family: Mapping[int, str | None], seconds: float) -> None:
    until = time.monotonic() + seconds
    while _living(family) and time.monotonic() < until:
        time.sleep(POLL_S)


def _listen_to_signals() -> None:
    """A process started from a script's background (``&``) inherits that SIGINT is ignored, and would never stop."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


def _read(folder: Path, name: str) -> Background | None:
    try:
        return Background(**json.loads(record_path(folder, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _names(folder: Path) -> list[str]:
    return [path.stem for path in sorted(folder.glob("*.json"))]


PYTHON = (sys.executable, "-m")
"""Runs a module with this environment's interpreter."""
