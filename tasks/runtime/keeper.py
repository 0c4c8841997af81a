"""What stands between a launcher and a rank, so that a rank that dies is still heard, and leaves nothing behind.

::

    launcher ── stub ── keeper ── rank ── whatever the script starts

A rank that is killed cannot say so. Its keeper is its parent, so the kernel tells it how the rank ended: an exit
status, or a signal. The keeper writes that down, ends what the rank started and left, and ends in the same way.

The stub is the process that the launcher knows. Launchers send SIGKILL to a process's whole group (Open MPI half a
second after SIGTERM), so the keeper has a group of its own: the rank gets the whole grace time to end well, and the
keeper lives to end what the rank started, on every machine, also when the launcher or our supervisor was killed.
"""

import contextlib
import os
import resource
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from trainyard.tasks.runtime.memory import OomKills
from trainyard.tasks.runtime.ranks import Rank, exit_file, failure_file, process_file, write_json
from trainyard.tasks.runtime.supervisor import adopt_orphans, descendants, die_with_parent, end_descendants

GRACE_VARIABLE = "TRAINYARD_STOP_GRACE_S"
DEFAULT_GRACE_S = 10.0
POLL_S = 1.0
SETTLE_S = 0.5
STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
PASSED_ON = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT}
WATCHED = STOP | PASSED_ON | {signal.SIGCHLD}


def fork_rank(directory: Path, rank: Rank) -> None:
    """Fork twice, and return in the rank; stub and keeper never return.

    Args:
        directory: Where the keeper writes which process the rank is, and how it ended.
        rank: Which one it is.
    """
    launcher, mask = os.getppid(), signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    stub = os.getpid()
    keeper = os.fork()
    if keeper:
        die_with_parent(signal.SIGTERM)
        _mirror(keeper, launcher)
    os.setpgid(0, 0)
    child = os.fork()
    if child:
        Keeper(child, stub, directory, rank).keep()
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the runtime has a handler for it
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _mirror(keeper: int, launcher: int) -> NoReturn:
    """The stub's life: pass signals on, and end as the keeper does."""
    told = False
    while True:
        received = signal.sigtimedwait(WATCHED, POLL_S)
        if received is not None and received.si_signo in STOP | PASSED_ON:
            _send(keeper, received.si_signo)
        if os.getppid() != launcher and not told:
            told = True
            _send(keeper, signal.SIGTERM)
        ended, status = os.waitpid(keeper, os.WNOHANG)
        if ended:
            _end_like(os.waitstatus_to_exitcode(status))


@dataclass(slots=True)
class Keeper:
    """The keeper's life.

    Args:
        child: The rank's process.
        stub: This process's parent.
        directory: Takes what there is to report.
        rank: Which rank it is.
    """

    child: int
    stub: int
    directory: Path
    rank: Rank
    oom_kills: OomKills = field(default_factory=OomKills)
    stopped_at: float | None = None
    failed_at: float | None = None

    def keep(self) -> NoReturn:
        """Wait for the rank's end, and end like it."""
        die_with_parent(signal.SIGTERM)
        adopt_orphans()
        whose = {"rank": self.rank.rank, "host": self.rank.host}
        write_json(process_file(self.directory, self.rank.rank), {**whose, "pid": self.child})
        returncode = self._wait()
        ended_at, leftovers = time.time(), self._leftovers()
        how = {"returncode": returncode, "stopped": self.stopped_at is not None, "time": ended_at}
        facts = {"oom_kills": self.oom_kills.count(), "leftovers": leftovers}
        with contextlib.suppress(OSError):  # a full disk must not keep it from ending what is left
            write_json(exit_file(self.directory, self.rank.rank), {**whose, **how, **facts})
        end_descendants(signal.SIGTERM)
        _end_like(returncode)

    def _wait(self) -> int:
        while True:
            received = signal.sigtimedwait(WATCHED, POLL_S)
            if received is not None:
                self._on_signal(received.si_signo)
            if os.getppid() != self.stub and self.stopped_at is None:
                self._on_signal(signal.SIGTERM)
            self.oom_kills.sample()
            self._lose_patience()
            returncode = self._reap()
            if returncode is not None:
                return returncode

    def _on_signal(self, signum: int) -> None:
        if signum in STOP:
            self.stopped_at = self.stopped_at or time.monotonic()
            _send(self.child, signal.SIGCONT)  # one that was stopped would not hear it
        if signum in STOP | PASSED_ON:
            _send(self.child, signum)

    def _lose_patience(self) -> None:
        """Kill a rank that was asked to stop, or has failed (a thread may never end), and is there after the grace."""
        now = time.monotonic()
        if self.failed_at is None and failure_file(self.directory, self.rank.rank).exists():
            self.failed_at = now
        if any(since is not None and now - since > _grace_s() for since in (self.stopped_at, self.failed_at)):
            _send(self.child, signal.SIGKILL)

    def _reap(self) -> int | None:
        """Bury every dead child, adopted ones too; the rank's exit status where it is among them."""
        returncode = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self.child:
                    returncode = os.waitstatus_to_exitcode(status)
        return returncode

    def _leftovers(self) -> int:
        """How many processes the rank left, apart from those that notice its end and go."""
        until = time.monotonic() + SETTLE_S
        while (left := descendants(os.getpid())) and time.monotonic() < until:
            time.sleep(0.02)
        return len(left)


def _grace_s() -> float:
    return float(os.environ.get(GRACE_VARIABLE, DEFAULT_GRACE_S))


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _end_like(returncode: int) -> NoReturn:
    """End with an exit status, or by a signal (negative); without a core dump, which would show nothing."""
    if returncode < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler to reset
            signal.signal(-returncode, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED | {-returncode})
        os.kill(os.getpid(), -returncode)
    os._exit(returncode if returncode >= 0 else 128 - returncode)
