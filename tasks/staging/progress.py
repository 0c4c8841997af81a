"""How far a staging is: counted by the transfers, reported by the thread that waits for them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StagingProgress:
    """How far a staging is."""

    num_objects: int
    """Objects in place so far, those that were there already included."""

    total_objects: int
    """Objects of all datasets together."""

    num_reused: int
    """Objects that did not have to be transferred."""

    transferred_bytes: int
    """Bytes that came over the wire."""

    missing_bytes: int
    """Bytes that had to be transferred when the staging began."""

    seconds: float
    """How long bytes have been transferred: without listing, waiting for others, or looking at what is there."""

    @property
    def bytes_per_second(self) -> float:
        """Bytes transferred a second, on average while there was something to transfer."""
        return self.transferred_bytes / self.seconds if self.seconds else 0.0

    @property
    def fraction(self) -> float:
        """How much is done, from 0 to 1: of the bytes to be transferred, or where there are none, of the objects."""
        if self.missing_bytes:
            return min(1.0, self.transferred_bytes / self.missing_bytes)
        return self.num_objects / self.total_objects if self.total_objects else 1.0

    @property
    def seconds_left(self) -> float | None:
        """How long it takes yet at the average rate; None while nothing has arrived."""
        if not self.seconds or not self.transferred_bytes:
            return None if self.missing_bytes > self.transferred_bytes else 0.0
        return max(0, self.missing_bytes - self.transferred_bytes) / self.bytes_per_second

    def __str__(self) -> str:
        """One line for a log."""
        left = "" if self.seconds_left is None else f", {duration(self.seconds_left)} left"
        return (
            f"{self.num_objects:,} of {self.total_objects:,} objects, {self.num_reused:,} of them unchanged; "
            f"{self.transferred_bytes / 1e6:,.1f} of {self.missing_bytes / 1e6:,.1f} MB transferred, "
            f"{self.bytes_per_second / 1e6:,.1f} MB/s{left}"
        )


def duration(seconds: float) -> str:
    """A time as people read it: minutes and seconds, and hours where there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclass(slots=True)
class ProgressMeter:
    """Counts, and reports at most once an interval.

    Args:
        total_objects: Objects of all datasets together.
        report: Called with a ``StagingProgress``.
        interval_s: Least seconds between two reports.
    """

    total_objects: int
    report: Callable[[StagingProgress], None] | None
    interval_s: float
    _num_objects: int = 0
    _num_reused: int = 0
    _transferred_bytes: int = 0
    _missing_bytes: int = 0
    _spent_s: float = 0.0
    _began_s: float | None = None
    _reported_s: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def expect_bytes(self, num_bytes: int) -> None:
        """Count bytes that are to be transferred; fewer than none where others have transferred some meanwhile."""
        with self._lock:
            self._missing_bytes += num_bytes

    @contextmanager
    def transferring(self) -> Iterator[None]:
        """Within this block bytes are transferred: the rate counts its time alone."""
        began_s = self._began_s = time.monotonic()
        try:
            yield
        finally:
            self._spent_s += time.monotonic() - began_s
            self._began_s = None

    def add_bytes(self, num_bytes: int) -> None:
        """Count bytes that arrived; any thread may call it."""
        with self._lock:
            self._transferred_bytes += num_bytes

    def add_found(self, num_bytes: int) -> None:
        """Count bytes that need not be transferred, for an earlier staging has left them; any thread may call it."""
        with self._lock:
            self._missing_bytes -= num_bytes

    def add_reused(self, num_objects: int) -> None:
        """Count objects that were in place already."""
        self._num_objects += num_objects
        self._num_reused += num_objects

    def add_transferred(self, num_objects: int) -> None:
        """Count objects that were transferred, and are in place now."""
        self._num_objects += num_objects

    def tick(self) -> None:
        """Report, if the last report is long enough ago."""
        if self.report and time.monotonic() - self._reported_s >= self.interval_s:
            self._reported_s = time.monotonic()
            self.report(self.read())

    def finish(self) -> None:
        """Report the end."""
        if self.report:
            self.report(self.read())

    def read(self) -> StagingProgress:
        """How far it is now."""
        now_s = time.monotonic()
        return StagingProgress(
            self._num_objects,
            self.total_objects,
            self._num_reused,
            self._transferred_bytes,
            self._missing_bytes,
            self._spent_s + (now_s - self._began_s if self._began_s is not None else 0.0),
        )
