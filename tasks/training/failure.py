"""From a run that ended badly to the error that says which rank failed first, and why."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainyard.tasks.errors import (
    PipelineError,
    ScriptDefectError,
    TrainingFailedError,
    TrainingTimeoutError,
    WorldSizeError,
)
from trainyard.tasks.training.process import ExitReport
from trainyard.tasks.training.rank_logs import last_lines

# Another attempt at these ends at the same line; anything else may be the machine's or the network's fault.
DEFECTS = {
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "FileNotFoundError",
    "ImportError",
    "LookupError",
    "NameError",
    "NotImplementedError",
    "SyntaxError",
    "TypeError",
    "ValueError",
}
MISSES_A_FILE = {"ImportError", "OSError"}
MOST_NAMES = 10
WRONG_ARGUMENTS = 2  # argparse and click exit with this status


def describe_failure(
    report: ExitReport, run_directory: Path, timeout_s: float | None, left_out: Sequence[str] = ()
) -> PipelineError | None:
    """The error of a finished run, or None where it ended well.

    Args:
        report: How the launcher ended.
        run_directory: Where the ranks' logs and failure reports are.
        timeout_s: The deadline it ran under.
        left_out: What ignore files kept out of the source snapshot: named where the script misses something.
    """
    if report.reason == "deadline":
        return TrainingTimeoutError(
            f"Training did not finish within {timeout_s:g} seconds and was stopped. Its checkpoints are kept: "
            "run again with a longer timeout (StagePolicy.timeout_s or max_run_duration_seconds) to go on from the "
            "last one."
        )
    ranks = run_directory / "ranks"
    failures = _failures(ranks)
    if failures:
        return _rank_error(failures[0], len(failures), ranks, left_out)
    if report.reason == "exited" and report.returncode == 0:
        return None
    return _launcher_error(report, run_directory)


def _failures(ranks: Path) -> list[dict[str, Any]]:
    """Failure reports, the first to fail first."""
    reports = [json.loads(path.read_bytes()) for path in ranks.glob("rank-*.failure.json")]
    return sorted(reports, key=lambda report: float(report["time"]))


def _rank_error(first: dict[str, Any], num_failed: int, ranks: Path, left_out: Sequence[str]) -> PipelineError:
    rank, exit_code = int(first["rank"]), int(first["exit_code"])
    others = "" if num_failed == 1 else f" ({num_failed - 1} more failed after it)"
    log = ranks / f"rank-{rank:05d}.log"
    message = (
        f"Rank {rank} on {first['host']} failed first{others}: {first['error_type']}: {first['message']}\n"
        f"{_detail(first, log)}\n{_left_out(first, left_out)}Full log of the rank: {log}"
    )
    if "this rank sees a world of" in first["message"]:
        return WorldSizeError(message)
    wrong_arguments = first["error_type"] == "SystemExit" and exit_code == WRONG_ARGUMENTS
    if wrong_arguments or DEFECTS.intersection(first["error_bases"]):
        return ScriptDefectError(message, rank=rank, exit_code=exit_code)
    return TrainingFailedError(message, rank=rank, exit_code=exit_code)


def _left_out(first: dict[str, Any], left_out: Sequence[str]) -> str:
    """A line about files that the run never had, where that may be what failed."""
    misses_a_file = MISSES_A_FILE.intersection(first["error_bases"])
    if not left_out or not (misses_a_file or any(name.rstrip("/") in first["message"] for name in left_out)):
        return ""
    more = f" and {len(left_out) - MOST_NAMES} more" if len(left_out) > MOST_NAMES else ""
    return (
        f"The run's copy of the source is without what .gitignore and .amlignore name: "
        f"{', '.join(left_out[:MOST_NAMES])}{more}. Pass data as a datastore (path_on_compute puts it where the script "
        "looks); a line like '!data/' in .amlignore takes a file or folder in again.\n"
    )


def _detail(first: dict[str, Any], log: Path) -> str:
    if first["error_type"] != "SystemExit":
        return str(first["traceback"]).rstrip()
    return "Its last lines:\n" + "\n".join(f"  {line}" for line in last_lines(log, 12))


def _launcher_error(report: ExitReport, run_directory: Path) -> PipelineError:
    """No rank said anything: it was killed, or never started."""
    tail = [line for line in last_lines(run_directory / "launcher.log", 25) if line.strip()]
    for log in sorted((run_directory / "ranks").glob("rank-*.log")):
        tail += [f"[{log.stem}] {line}" for line in last_lines(log, 12)]
    how = _how_it_ended(report)
    return TrainingFailedError(
        f"Training ended without a word from any rank: {how}. What is known:\n"
        + "\n".join(f"  {line}" for line in tail or ["(no output)"])
        + f"\nLogs: {run_directory}",
        exit_code=report.returncode,
    )


def _how_it_ended(report: ExitReport) -> str:
    if report.reason == "not-started":
        return f"the launcher could not be started ({report.error})"
    if report.reason != "exited":
        return f"it was ended from outside ({report.reason})"
    if report.returncode < 0:
        name = signal.Signals(-report.returncode).name
        hint = "; the system ends processes so when memory runs out" if name == "SIGKILL" else ""
        return f"the launcher was ended by {name}{hint}"
    if report.returncode > 128:
        return f"exit status {report.returncode}, which stands for signal {report.returncode - 128}"
    return f"exit status {report.returncode}"
