"""torchrun that ends as its ranks do: ``python -m trainyard.tasks.runtime.torchrun ...``; the arguments are torchrun's.

torchrun itself exits with 1 whatever became of a rank. Here the exit status is that of the rank that failed first, or
128 plus the signal that ended it, as with ``mpirun``.
"""

import sys
from signal import SIGTERM


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
        first = min(error.failures.values(), key=lambda each: (each.exitcode == -SIGTERM, each.timestamp))
        return exit_status(first.exitcode)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def exit_status(exit_code: int) -> int:
    """What a shell makes of a process's end: 128 and the signal's number, where one ended it."""
    return 128 - exit_code if exit_code < 0 else exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
