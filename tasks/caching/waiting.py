"""Waiting for somebody else, within limits, and so that people see for whom."""

import logging
import time
from collections.abc import Callable

from trainyard.tasks.errors import StageTimeoutError

log = logging.getLogger(__name__)

TELL_S = 60.0
"""Seconds between two log lines of one wait."""


class Wait:
    """One wait: tells at its beginning and every minute what it is for, and ends when its time is over.

    Args:
        what: What is going on elsewhere, for people.
        timeout_s: Seconds that it may last; None is for ever.
        clock: Seconds that only grow.
    """

    def __init__(self, what: str, timeout_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._timeout_s = timeout_s
        self._clock = clock
        self._begun_at = clock()
        self._tell_at = self._begun_at

    def tell(self, holder: str) -> None:
        """Say what this waits for, where it is time to.

        Args:
            holder: Who keeps it waiting, and what can be done about it: a sentence, or nothing.

        Raises:
            StageTimeoutError: The time is over.
        """
        now = self._clock()
        if self._timeout_s is not None and now - self._begun_at >= self._timeout_s:
            raise StageTimeoutError(
                f"Waited for more than {self._timeout_s:g} seconds, the time limit of this stage: {self._what}. "
                f"{holder + ' ' if holder else ''}Run again when that has ended, which reuses its result where there "
                "is one, or set a longer StagePolicy.timeout_s."
            )
        if now < self._tell_at:
            return
        waited = f" for {now - self._begun_at:.0f} s" if self._tell_at > self._begun_at else ""
        log.info("Waiting%s: %s.%s", waited, self._what, f" {holder}" if holder else "")
        self._tell_at = now + TELL_S

    def sleep(self, least_s: float, most_s: float) -> None:
        """Wait a moment: as long as there has been waiting so far, within bounds."""
        seconds = min(max(self._clock() - self._begun_at, least_s), most_s)
        if self._timeout_s is not None:
            seconds = min(seconds, max(0.0, self._begun_at + self._timeout_s - self._clock()) + 0.001)
        time.sleep(seconds)
