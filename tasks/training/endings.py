"""How each rank ended: what it said itself, and what its keeper saw."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNHEARD_S = 2.0
"""A rank that ends without a word is noticed by its peers first: their complaints may be dated before its keeper's
record."""


@dataclass(frozen=True, slots=True)
class RankEnding:
    """A rank that ended badly of its own accord: it was not asked to stop."""

    rank: int
    host: str
    time: float
    """Unix seconds, for telling who was first."""

    exit_code: int
    """Its exit status; negative for a signal."""

    report: dict[str, Any] | None
    """What it said: the exception, its traceback; None where it could not."""

    oom_kills: int | None = 0
    """Processes that the kernel killed for want of memory in its last moments; None where that is not known."""

    @property
    def what(self) -> str:
        """In a few words."""
        if self.report is not None:
            return f"{self.report['error_type']}: {self.report['message']}".splitlines()[0][:200]
        if self.exit_code < 0:
            return f"ended by {signal_name(self.exit_code)}"
        return f"exit status {self.exit_code}, without an exception"


def bad_endings(ranks: Path) -> list[RankEnding]:
    """The ranks that ended badly, the first to fail first.

    Args:
        ranks: Directory of the failure reports and of the keepers' exit records.
    """
    said = {int(report["rank"]): report for report in _read(ranks, "failure")}
    seen = {int(record["rank"]): record for record in _read(ranks, "exit")}
    silent = [r for rank, r in seen.items() if rank not in said and r["returncode"] != 0 and not r["stopped"]]
    found = [*(_of_report(report) for report in said.values()), *(_of_record(record) for record in silent)]
    return sorted(found, key=lambda ending: ending.time)


def num_leftovers(ranks: Path) -> int:
    """Processes that scripts had left running, and that keepers ended."""
    return sum(int(record["leftovers"]) for record in _read(ranks, "exit"))


def signal_name(returncode: int) -> str:
    """The name of a signal, from a negative exit status."""
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def _read(ranks: Path, kind: str) -> Iterator[dict[str, Any]]:
    for path in sorted(ranks.glob(f"rank-*.{kind}.json")):
        yield json.loads(path.read_bytes())


def _of_report(report: dict[str, Any]) -> RankEnding:
    return RankEnding(int(report["rank"]), report["host"], float(report["time"]), int(report["exit_code"]), report)


def _of_record(record: dict[str, Any]) -> RankEnding:
    returncode = int(record["returncode"])
    since = float(record["time"]) - UNHEARD_S
    return RankEnding(int(record["rank"]), record["host"], since, returncode, None, record["oom_kills"])
