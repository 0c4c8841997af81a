"""Run one command so that nothing of it outlives its parent: ``python -I -S supervisor.py SPEC REPORT``.

The supervisor stands between the pipeline and the launcher (``mpirun`` or ``python``). It ends the whole process
tree when the launcher exits, when the deadline passes, on SIGTERM or SIGINT, and when its parent dies, even by
SIGKILL: the parent holds the other end of the supervisor's standard input, which then reads as closed.

Signals to a process group do not reach every rank (Open MPI puts each in a group of its own), so on Linux the
supervisor makes itself the reaper of its descendants (``PR_SET_CHILD_SUBREAPER``, prctl(2)): whatever they start,
and however often it forks away, stays below it in the process tree. Elsewhere it ends the launcher's session.

Standard library only, and started without site-packages, so that it costs some tens of milliseconds.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05
KILL_WAIT_S = 5.0
RESCANS = 20
LEFTOVER_GRACE_S = 1.0

_stop_requested: list[str] = []


def prctl(option: int, value: int) -> bool:
    """Set an attribute of this process, as the system call of that name does; False where there is none."""
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)


def die_with_parent(signum: int) -> None:
    """Ask the kernel to signal this process when its parent ends."""
    prctl(PR_SET_PDEATHSIG, signum)


def adopt_orphans() -> None:
    """Become the parent of what descendants leave behind."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def descendants(root: int) -> list[int]:
    """Ids of every living process below one, from /proc; zombies do not count."""
    parents, zombies = _consistent_processes()
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found, pending = [], [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return [pid for pid in found if pid not in zombies]


def _consistent_processes() -> tuple[dict[int, int], set[int]]:
    """Every process's parent, and which processes are zombies.

    Reading /proc takes time. A process whose parent ends meanwhile would seem to be nobody's, and be left alone: such a
    reading names a parent that it does not hold, and is repeated.
    """
    parents, zombies = _read_processes()
    for _ in range(RESCANS):
        if parents.keys() >= set(parents.values()) - {0}:
            break
        parents, zombies = _read_processes()
    return parents, zombies


def _read_processes() -> tuple[dict[int, int], set[int]]:
    parents: dict[int, int] = {}
    zombies = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # pid (name, which may hold anything) state ppid ...
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            if fields[0] == b"Z":
                zombies.add(int(entry.name))
    return parents, zombies


def supervise(
    argv: list[str], *, env: dict[str, str], cwd: str, timeout_s: float | None, grace_s: float
) -> dict[str, Any]:
    """Run a command to its end, or to ours.

    Returns:
        ``returncode`` (negative for a signal), ``reason`` (``exited``, ``deadline``, ``stopped`` or
        ``parent-lost``), ``seconds``, and ``leftovers``: processes that were still there after the command.
    """
    parent = os.getppid()
    adopt_orphans()
    started = time.monotonic()
    child = subprocess.Popen(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, preexec_fn=lambda: die_with_parent(signal.SIGTERM)
    )
    deadline = None if timeout_s is None else started + timeout_s
    reason = _wait(child, parent, deadline)
    if reason != "exited":
        _ask_to_stop(child, grace_s)
    leftovers = end_descendants(signal.SIGTERM if reason == "exited" else signal.SIGKILL)
    return {
        "returncode": child.wait(),
        "reason": reason,
        "seconds": time.monotonic() - started,
        "leftovers": leftovers,
    }


def _wait(child: "subprocess.Popen[bytes]", parent: int, deadline: float | None) -> str:
    while child.poll() is None:
        _reap_adopted(child.pid)
        if _stop_requested:
            return "stopped"
        if os.getppid() != parent or _stdin_closed():
            return "parent-lost"
        if deadline is not None and time.monotonic() >= deadline:
            return "deadline"
    return "exited"


def _stdin_closed() -> bool:
    """Wait a moment for standard input; True once the other end is gone."""
    with contextlib.suppress(InterruptedError):
        readable, _, _ = select.select([0], [], [], POLL_S)
        return bool(readable) and os.read(0, 1) == b""
    return False


def _ask_to_stop(child: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """SIGTERM to the launcher, which passes it on, and time for it and all below it to end well."""
    child.terminate()
    until = time.monotonic() + grace_s
    while time.monotonic() < until and (child.poll() is None or descendants(os.getpid())):
        time.sleep(POLL_S)


def end_descendants(first_signal: int) -> int:
    """End every process below this one; how many there were."""
    left = descendants(os.getpid())
    started = time.monotonic()
    alive = _signal_all(left, first_signal)
    while alive and time.monotonic() < started + KILL_WAIT_S:
        time.sleep(POLL_S)
        alive = descendants(os.getpid())
        if first_signal == signal.SIGKILL or time.monotonic() > started + LEFTOVER_GRACE_S:
            _signal_all(alive, signal.SIGKILL)
    return len(left)


def _signal_all(pids: list[int], signum: int) -> list[int]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)
    return pids


def _reap_adopted(child: int) -> None:
    """Bury the dead that this process has adopted; the status of its own child is left for it to read."""
    with contextlib.suppress(ChildProcessError):
        while True:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None or dead.si_pid == child:
                return
            os.waitpid(dead.si_pid, os.WNOHANG)


def _on_signal(signum: int, frame: FrameType | None) -> None:
    _stop_requested.append(signal.Signals(signum).name)


def main() -> int:
    """Read the spec (a JSON file, removed at once: it holds the environment), supervise, write the report."""
    spec_path, report_path = Path(sys.argv[1]), Path(sys.argv[2])
    spec = json.loads(spec_path.read_bytes())
    spec_path.unlink()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, _on_signal)
    try:
        report = supervise(**spec)
    except OSError as error:
        report = {
            "returncode": 127,
            "reason": "not-started",
            "seconds": 0.0,
            "leftovers": 0,
            "error": str(error),
        }
    scratch = report_path.with_suffix(".tmp")
    scratch.write_text(json.dumps(report))
    scratch.replace(report_path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
