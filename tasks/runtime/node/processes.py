"""Start processes on a node, and leave none of them behind.

The agent is the reaper of all its descendants (see ``supervisor``). What could still escape it (where the agent itself
was killed) carries a mark in its environment, and is found by that.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trainyard.tasks.runtime.supervisor import descendants, die_with_parent

Process = subprocess.Popen[bytes]
MARK_VARIABLE = "TRAINYARD_NODE_JOB"
POLL_S = 0.05


def start(argv: Sequence[str], env: Mapping[str, str], cwd: str, log_path: Path) -> Process:
    """Start a process that is asked to end when this one does."""
    with log_path.open("ab") as log:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )


def output_of(argv: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
    """Run a short program outside of any project: exit status, standard output and error."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            list(argv), env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except OSError as error:
        return 127, "", str(error)
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {timeout_s:g} s"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def end_all(mark: str | None, asked: Sequence[int], grace_s: float) -> int:
    """End everything below this process, and everything that carries a mark.

    Args:
        mark: Value of ``TRAINYARD_NODE_JOB`` of the processes to end wherever they are; None for none.
        asked: Processes that get a SIGTERM and pass it on, such as ``mpirun``.
        grace_s: Seconds that they, and all below them, have to end well.

    Returns:
        How many had to be ended after that.
    """

    def alive() -> list[int]:
        return sorted({*descendants(os.getpid()), *(_marked(mark) if mark else ())})

    if asked and alive():
        _signal(asked, signal.SIGTERM)
        _wait_while(lambda: bool(alive()), grace_s)
    left = alive()
    for _ in range(3):  # what starts a process while it is being ended is met again
        _signal(alive(), signal.SIGKILL)
        if _wait_while(lambda: bool(alive()), 1.0):
            break
    return len(left)


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def _signal(pids: Sequence[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def _wait_while(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition ended in time."""
    until = time.monotonic() + seconds
    while condition():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_S)
    return True
