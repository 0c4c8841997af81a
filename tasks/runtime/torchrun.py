"""torchrun, as a launcher that says what became of its ranks: ``python -m trainyard.tasks.runtime.torchrun ...``.

torchrun exits with 1 whatever a rank's status was, and of a rank that died without a word it knows the exit code. Here
the exit status is that of the rank, or 128 plus the signal, as with ``mpirun``; and a rank that died without a word
gets a failure report. The arguments are torchrun's.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from signal import SIGTERM
from typing import Any

from trainyard.tasks.runtime.ranks import RANKS_DIRECTORY_VARIABLE, failure_file


def main(argv: list[str]) -> int:
    """Run torchrun to its end.

    Returns:
        The exit status: 0, that of the rank that failed first, or 128 plus the number of a signal.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(argv)
    except ChildFailedError as error:
        print(error, file=sys.stderr, flush=True)
        # Torchrun ends the others by SIGTERM once a rank has failed, and dates both to the second.
        failures = sorted(error.failures.items(), key=lambda item: (item[1].exitcode == -SIGTERM, item[1].timestamp))
        exit_codes = {rank: failure.exitcode for rank, failure in failures}
        report_silent_deaths(exit_codes, Path(os.environ[RANKS_DIRECTORY_VARIABLE]))
        return exit_status(failures[0][1].exitcode)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def report_silent_deaths(exit_codes: dict[int, int], directory: Path) -> None:
    """Leave a failure report for every rank that ended badly and left none.

    Args:
        exit_codes: By rank, of those that failed, the first to fail first; negative for a signal.
        directory: Where the ranks' files are.
    """
    for position, (rank, exit_code) in enumerate(exit_codes.items()):
        path = failure_file(directory, rank)
        stopped_by_torchrun = position > 0 and exit_code == -SIGTERM
        if not path.exists() and not stopped_by_torchrun:
            scratch = path.with_suffix(".tmp")
            scratch.write_text(json.dumps(_report(rank, exit_code)))
            scratch.replace(path)


def exit_status(exit_code: int) -> int:
    """What a shell makes of a process's end: 128 and the signal's number, where one ended it."""
    return 128 - exit_code if exit_code < 0 else exit_code


def _report(rank: int, exit_code: int) -> dict[str, Any]:
    ended_by = signal.Signals(-exit_code).name if exit_code < 0 else ""
    hint = "; the system ends processes so when memory runs out" if ended_by == "SIGKILL" else ""
    return {
        "rank": rank,
        "host": socket.gethostname(),
        "exit_code": exit_code,
        "error_type": ended_by or "ExitWithoutAWord",
        "error_bases": [],
        "message": f"a signal ended it{hint}" if ended_by else f"it left Python with exit status {exit_code}",
        "traceback": "",
        "time": time.time(),
        # Others may have lost their connection to it, and said so, before its end was noticed. Not so where NCCL's
        # watchdog aborted it, because it had lost another.
        "silent": ended_by != "SIGABRT",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
