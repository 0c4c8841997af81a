"""From a run that ended badly to the error that says which rank failed first, and why."""

import re
import signal
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from trainyard.tasks.errors import (
    NeverJoinedError,
    PipelineError,
    ScriptDefectError,
    TrainingFailedError,
    TrainingTimeoutError,
    WorldSizeError,
)
from trainyard.tasks.runtime.ranks import log_file
from trainyard.tasks.training.endings import RankEnding, bad_endings, signal_name
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
# Raised by the runtime, not by the script: there is no line of it to show.
WORLD_ERRORS: Mapping[str, type[WorldSizeError]] = {
    "WorldMismatchError": WorldSizeError,
    "NeverJoinedError": NeverJoinedError,
}
MISSES_A_FILE = {"ImportError", "OSError"}
MOST_NAMES = 10
WRONG_ARGUMENTS = 2  # argparse and click exit with this status
LAST_LINES = 25
OURS = re.compile(r'\s*File "(<frozen runpy>|.*/tasks/runtime/__main__\.py|.*/mpi4py/(run|__main__)\.py)"')
"""What a stack that native code left in a log has below the script's first frame."""

SIGNALS = {
    "SIGABRT": "which a native library raises when it gives up (abort)",
    "SIGBUS": "a fault in memory: often a full /dev/shm, or a mapped file that was cut short",
    "SIGFPE": "an arithmetic fault in native code",
    "SIGILL": "an instruction that this processor does not have: a library built for another one",
    "SIGSEGV": "a fault in native code (segmentation fault)",
    "SIGXCPU": "the limit of processor time (ulimit -t)",
    "SIGXFSZ": "the limit of file size (ulimit -f)",
}


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
    endings = bad_endings(ranks)
    if endings:
        return _rank_error(endings, ranks, left_out)
    if report.reason == "exited" and report.returncode == 0:
        return None
    return _launcher_error(report, run_directory)


def _rank_error(endings: list[RankEnding], ranks: Path, left_out: Sequence[str]) -> PipelineError:
    first = endings[0]
    log = log_file(ranks, first.rank)
    message = f"Rank {first.rank} on {first.host} failed first{_others(endings)}: {_how(first, log)}"
    error = _error_type(first)
    return error(
        f"{message}\n{_left_out(first, left_out)}Full log of the rank: {log}",
        rank=first.rank,
        exit_code=first.exit_code,
    )


def _others(endings: list[RankEnding]) -> str:
    return "" if len(endings) == 1 else f" ({len(endings) - 1} more failed after it)"


def _error_type(first: RankEnding) -> type[PipelineError]:
    report = first.report
    if report is None:
        return TrainingFailedError
    if report["error_type"] in WORLD_ERRORS:
        return WORLD_ERRORS[report["error_type"]]
    wrong_arguments = report["error_type"] == "SystemExit" and first.exit_code == WRONG_ARGUMENTS
    return ScriptDefectError if wrong_arguments or DEFECTS.intersection(report["error_bases"]) else TrainingFailedError


def _how(first: RankEnding, log: Path) -> str:
    if first.report is None:
        return f"{_silent_end(first)}{_last_words(log)}"
    if first.report["error_type"] in WORLD_ERRORS:
        return f"{first.report['message']}."
    if first.report["error_type"] == "SystemExit":
        return f"SystemExit: {first.report['message']} (exit status {first.exit_code}){_last_words(log)}"
    trace = str(first.report["traceback"]).rstrip()
    what = f"{first.report['error_type']}: {first.report['message']}"
    return f"{what}\n{trace}{_last_words(log, without=set(trace.splitlines()))}"


def _last_words(log: Path, without: Set[str] = frozenset()) -> str:
    lines = [line for line in last_lines(log, 3 * LAST_LINES) if line not in without and not OURS.match(line)]
    said = "\n".join(f"  {line}" for line in lines[-LAST_LINES:])
    if not lines:
        return "" if without else "\nIt had written nothing."
    return f"\nIts last lines:\n{said}"


def _silent_end(first: RankEnding) -> str:
    """What is known of a rank that could not say anything itself."""
    if first.exit_code >= 0:
        return (
            f"it ended with exit status {first.exit_code} and without a Python exception: os._exit, or a library that "
            "ends the process."
        )
    name = signal_name(first.exit_code)
    meaning = f", {SIGNALS[name]}" if name in SIGNALS else ""
    return f"it was ended by {name}{meaning}.{_about_memory(first) if name == 'SIGKILL' else ''}"


def _about_memory(first: RankEnding) -> str:
    if first.oom_kills is None:
        return " The system ends processes so when memory runs out; whether it did is not known here."
    if first.oom_kills == 0:
        return " The kernel has counted no kill for want of memory: somebody, or some limit, ended it."
    return (
        f" Memory ran out: the kernel killed {first.oom_kills} process(es) for want of it at that moment. A smaller "
        "batch, fewer processes per node or fewer data-loader workers need less."
    )


def _left_out(first: RankEnding, left_out: Sequence[str]) -> str:
    """A line about files that the run never had, where that may be what failed."""
    if not left_out or first.report is None:
        return ""
    misses_a_file = MISSES_A_FILE.intersection(first.report["error_bases"])
    if not (misses_a_file or any(name.rstrip("/") in first.report["message"] for name in left_out)):
        return ""
    more = f" and {len(left_out) - MOST_NAMES} more" if len(left_out) > MOST_NAMES else ""
    return (
        "The run's copy of the source is without what its ignore files name: "
        f"{', '.join(left_out[:MOST_NAMES])}{more}. Pass data as a datastore (path_on_compute puts it where the script "
        "looks), or take files in again: an .amlignore takes the place of every .gitignore.\n"
    )


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
        name = signal_name(report.returncode)
        hint = "; the system ends processes so when memory runs out" if name == "SIGKILL" else ""
        return f"the launcher was ended by {name}{hint}"
    if report.returncode - 128 in signal.valid_signals():
        return f"exit status {report.returncode}, which stands for {signal_name(128 - report.returncode)}"
    return f"exit status {report.returncode}"
