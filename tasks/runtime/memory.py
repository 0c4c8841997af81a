"""Whether the kernel killed processes because memory ran out, while a rank ran."""

import time
from dataclasses import dataclass, field
from pathlib import Path

VMSTAT = Path("/proc/vmstat")
SAMPLE_S = 10.0


def oom_kills() -> int | None:
    """Processes that the kernel has killed for want of memory since boot, those of cgroups included; None: unknown.

    ``oom_kill`` in ``/proc/vmstat`` (Linux 4.13) counts both kinds; a cgroup's own count is not always visible in it.
    """
    try:
        lines = VMSTAT.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


@dataclass(slots=True)
class OomKills:
    """Counts the kernel's kills of the last moments, so that those of hours ago are not taken for this end's cause."""

    _before: int | None = field(default_factory=oom_kills)
    _newest: int | None = field(default_factory=oom_kills)
    _sampled_at: float = field(default_factory=time.monotonic)

    def sample(self) -> None:
        """Look again; to be called every now and then."""
        if time.monotonic() - self._sampled_at >= SAMPLE_S:
            self._before, self._newest, self._sampled_at = self._newest, oom_kills(), time.monotonic()

    def count(self) -> int | None:
        """Kills since a moment that is 10 to 20 seconds ago; None where the kernel does not say."""
        now = oom_kills()
        return None if now is None or self._before is None else now - self._before
