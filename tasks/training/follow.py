"""What the ranks write while they run, passed on as it comes."""

import logging
from collections import deque
from collections.abc import Callable, Iterator

from trainyard.tasks.runtime.live import MetricsTail
from trainyard.tasks.training.rank_logs import LogTail
from trainyard.tasks.training.run_directory import RunDirectory

log = logging.getLogger(__name__)

LOG_LINE_LIMIT = 2_000
MOST_LINES_AT_ONCE = 50
"""Shown of what has come since the last look: Prefect takes some hundred lines a second, scripts print any number."""


class Follower:
    """Shows the ranks' new log lines, and hands on their new metrics.

    Args:
        run: Where the ranks write.
        on_progress: Called when new metrics have arrived.
    """

    def __init__(self, run: RunDirectory, on_progress: Callable[[MetricsTail], None]) -> None:
        self._logs = LogTail(run.ranks)
        self._metrics = MetricsTail(run.records)
        self._on_progress = on_progress

    def tick(self) -> None:
        """Look at everything once."""
        self._show(self._logs.poll())
        if self._metrics.poll():
            self._on_progress(self._metrics)

    def finish(self) -> None:
        """Show what is left: last lines without a newline."""
        self._show(self._logs.poll(final=True))

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
