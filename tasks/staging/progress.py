"""How far a staging is: counted by the transfers, reported by the thread that waits for them."""

import threading
import time
from collections.abc import Callable
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

    seconds: float
    """Since the staging began."""

    @property
    def bytes_per_second(self) -> float:
        """Bytes transferred a second, on average."""
        return self.transferred_bytes / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        """One line for a log."""
        return (
            f"{self.num_objects:,} of {self.total_objects:,} objects, {self.num_reused:,} of them unchanged; "
            f"{self.transferred_bytes / 1e6:,.1f} MB transferred, {self.bytes_per_second / 1e6:,.1f} MB/s"
        )


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
    _started_s: float = field(default_factory=time.monotonic)
    _reported_s: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_bytes(self, num_bytes: int) -> None:
        """Count bytes that arrived; any thread may call it."""
        with self._lock:
            self._transferred_bytes += num_bytes

    def add_object(self, *, reused: bool) -> None:
        """Count an object that is in place."""
        self._num_objects += 1
        self._num_reused += reused

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
        return StagingProgress(
            self._num_objects,
            self.total_objects,
            self._num_reused,
            self._transferred_bytes,
            time.monotonic() - self._started_s,
        )
