"""What the ranks write while they run, passed on as it comes."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator

from trainyard.tasks.errors import TrainingStalledError
from trainyard.tasks.runtime.live import LatestMetrics, MetricsTail
from trainyard.tasks.settings import Settings
from trainyard.tasks.training.launchers.launcher import Job
from trainyard.tasks.training.rank_logs import LogTail
from trainyard.tasks.training.run_directory import RunDirectory
from trainyard.tasks.training.stall import Frames, StallWatch, dump_stacks, stalled_error

log = logging.getLogger(__name__)

LOG_LINE_LIMIT = 2_000
MOST_LINES_AT_ONCE = 50
"""Shown of what has come since the last look: Prefect takes some hundred lines a second, scripts print any number."""


class Follower:
    """Shows the ranks' new log lines, hands on their new metrics, and ends a job that writes nothing any more.

    Args:
        run: Where the ranks write.
        on_progress: Called with the newest metrics: at most once in the interval of the settings, and at the end.
        watch: Tells when a run has stalled.
        elsewhere: Whether the ranks' processes are on other machines.
    """

    def __init__(
        self,
        run: RunDirectory,
        on_progress: Callable[[LatestMetrics], None],
        watch: StallWatch,
        elsewhere: bool = False,
    ) -> None:
        self._run = run
        self._elsewhere = elsewhere
        self._watch = watch
        self._frames: Frames | None = None
        self._logs = LogTail(run.ranks)
        self._metrics = MetricsTail(run.records)
        self._on_progress = on_progress
        self._interval_s = Settings().progress_interval_s
        self._shown_at = -math.inf  # the clock begins when the machine starts
        self._unshown = False
        self._told: set[str] = set()

    def tick(self, job: Job) -> None:
        """Look at everything once."""
        self._guarded(self._show_logs)
        self._guarded(self._show_metrics)
        if self._frames is None and self._watch.stalled():
            log.error("Nothing was written for %g seconds: asking every rank where it is.", self._watch.timeout_s)
            self._frames = dump_stacks(self._run, self._elsewhere)
            job.terminate()

    def finish(self) -> None:
        """Show what is left: last lines without a newline, and the last metrics."""
        self._guarded(lambda: self._show_logs(final=True))
        self._guarded(lambda: self._show_metrics(final=True))

    def stalled_error(self, world_size: int) -> TrainingStalledError | None:
        """The error of a job that was ended because it had stalled."""
        if self._frames is None:
            return None
        return stalled_error(self._watch.timeout_s, world_size, self._frames, self._run.ranks)

    def _show_logs(self, *, final: bool = False) -> None:
        self._show(self._logs.poll(final=final))

    def _show_metrics(self, *, final: bool = False) -> None:
        self._unshown |= self._metrics.poll()
        if self._unshown and (final or time.monotonic() - self._shown_at >= self._interval_s):
            self._unshown, self._shown_at = False, time.monotonic()
            self._on_progress(self._metrics.latest)

    def _guarded(self, show: Callable[[], None]) -> None:
        """What goes wrong with showing is told once each, and never ends training; Ctrl-C and cancellation do."""
        try:
            show()
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            if what not in self._told:
                self._told.add(what)
                log.warning("Not all of the training is shown here, which does not end it: %s", what, exc_info=error)

    @staticmethod
    def _show(lines: Iterator[tuple[str, str]]) -> None:
        newest: deque[tuple[str, str]] = deque(maxlen=MOST_LINES_AT_ONCE)
        num_lines = 0
        for line in lines:
            newest.append(line)
            num_lines += 1
        if num_lines > len(newest):
            log.info("(%s lines are not shown here; the ranks' logs have them all)", f"{num_lines - len(newest):,}")
        for label, text in newest:
            log.info("[%s] %s", label, text[:LOG_LINE_LIMIT])
