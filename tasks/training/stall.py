"""A run that makes no progress: noticed by what it writes, asked where it is, and told of by rank."""

import contextlib
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from trainyard.tasks.errors import TrainingStalledError
from trainyard.tasks.runtime.ranks import ask_for_stacks, log_file, running_ranks, stacks_request
from trainyard.tasks.training.failure import OURS
from trainyard.tasks.training.run_directory import RunDirectory

ANSWER_S = 5.0
FAR_ANSWER_S = 15.0
SETTLED_S = 1.0
_ANSWERED = "most recent call first"
MAX_FRAMES = 4
LOOK_S = (0.5, 30.0)
"""Bounds of the seconds between two looks: a tree of checkpoints may be large."""

Frames = dict[int, list[str]]


class StallWatch:
    """Tells when nothing that a run writes has changed for too long.

    What counts: the ranks' logs, the launcher's, metric records, checkpoints, and the script's outputs and logs.

    Args:
        run: Where the run writes.
        timeout_s: Seconds without a change; None never tells.
        clock: Seconds that only grow.
    """

    def __init__(self, run: RunDirectory, timeout_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout_s = timeout_s
        script = (run.workspace / "outputs", run.workspace / "logs")
        self._places = (run.ranks, run.records, run.launcher_log, run.checkpoints, *script)
        self._clock = clock
        self._look_s = min(max((timeout_s or 0) / 10, LOOK_S[0]), LOOK_S[1])
        self._looked_at = self._changed_at = clock()
        self._seen: frozenset[tuple[str, int, int]] | None = None

    def stalled(self) -> bool:
        """Look, where it is time to."""
        now = self._clock()
        if self.timeout_s is None or now - self._looked_at < self._look_s:
            return False
        self._looked_at = now
        found = frozenset(_versions(self._places))
        if found != self._seen:
            self._seen, self._changed_at = found, now
        return now - self._changed_at >= self.timeout_s


def _versions(places: tuple[Path, ...]) -> Iterator[tuple[str, int, int]]:
    """Path, size and modification time of every file."""
    pending = list(places)
    while pending:
        path = pending.pop()
        with contextlib.suppress(OSError):  # gone between two looks
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                pending += path.iterdir()
            else:
                yield str(path), status.st_size, status.st_mtime_ns


def dump_stacks(run: RunDirectory, elsewhere: bool) -> Frames:
    """Have every rank write the stacks of its threads into its log.

    Args:
        run: Where the ranks write.
        elsewhere: Whether their processes are on other machines, and whoever launched them there is to ask them.

    Returns:
        The innermost frames of each answering rank's main thread, innermost first, without ours.
    """
    logs = {each["rank"]: log_file(run.ranks, each["rank"]) for each in running_ranks(run.ranks)}
    asked = {rank: (log, log.stat().st_size if log.exists() else 0) for rank, log in logs.items()}
    if elsewhere:
        stacks_request(run.path).touch()
    else:
        ask_for_stacks(run.ranks)
    answers = _answers(asked, FAR_ANSWER_S if elsewhere else ANSWER_S)
    return {rank: _main_thread(text) for rank, text in answers.items() if _ANSWERED in text}


def _answers(asked: dict[int, tuple[Path, int]], within_s: float) -> dict[int, str]:
    """What the logs have gained, once every rank has answered and they grow no more."""
    started = changed_at = time.monotonic()
    texts: dict[int, str] = {}
    while time.monotonic() - started < within_s:
        time.sleep(0.1)
        newest = {rank: _read_from(log, offset) for rank, (log, offset) in asked.items()}
        if newest != texts:
            texts, changed_at = newest, time.monotonic()
        if all(_ANSWERED in text for text in newest.values()) and time.monotonic() - changed_at > SETTLED_S:
            break
    return texts


def _read_from(path: Path, offset: int) -> str:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        stream.seek(offset)
        return stream.read().decode(errors="replace")
    return ""


def _main_thread(text: str) -> list[str]:
    """Frames of the last thread that a dump lists: the first that was started (CPython lists the newest first)."""
    last = re.split(r"^.*\(most recent call first\):\n", text, flags=re.MULTILINE)[-1]
    lines = last.split("\n\n")[0].splitlines()
    frames = [line.strip() for line in lines if line.startswith("  File ") and not OURS.match(line)]
    return frames[:MAX_FRAMES]


def stalled_error(timeout_s: float | None, world_size: int, frames: Frames, ranks: Path) -> TrainingStalledError:
    """Says where each rank was."""
    lines = []
    for rank in range(world_size):
        found = frames.get(rank)
        where = " ← ".join(found) if found else "no answer (ended, or it handles SIGUSR1 itself)"
        lines.append(f"  rank {rank}: {where}")
    return TrainingStalledError(
        f"Training wrote no log line, metric, checkpoint or output for {timeout_s:g} seconds and was stopped "
        "(stall_timeout_s). Its checkpoints are kept: another attempt goes on from the last one. Where each rank was, "
        "innermost first:\n" + "\n".join(lines) + f"\nThe stacks of all threads are at the end of the logs in {ranks}"
    )
