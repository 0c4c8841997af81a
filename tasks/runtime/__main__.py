"""One rank's life: ``python -m trainyard.tasks.runtime ENTRY_SCRIPT [ARGUMENT ...]``.

Forks the rank from its keeper, sends output to the rank's own log file, checks the size and placement of the world,
runs the script as ``__main__`` with its own argv and import path (and a stand-in for ``azureml.core`` where that is not
installed), sees that it joined the other ranks, and on failure leaves a report that names the line and ends the whole
job.
"""

import builtins
import faulthandler
import io
import os
import signal
import site
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from trainyard.tasks.runtime import azureml_compat
from trainyard.tasks.runtime.argv import unshielded
from trainyard.tasks.runtime.devices import device_in_use
from trainyard.tasks.runtime.joining import JoinWatch, NeverJoinedError, check_joined
from trainyard.tasks.runtime.keeper import fork_rank
from trainyard.tasks.runtime.ranks import RANKS_DIRECTORY_VARIABLE, Rank, failure_file, log_file, write_json
from trainyard.tasks.runtime.run import Run
from trainyard.tasks.runtime.world import check_world


def main(argv: list[str]) -> None:
    """Run a script as one rank.

    Args:
        argv: The script's path and its arguments.
    """
    directory = Path(os.environ[RANKS_DIRECTORY_VARIABLE])
    rank = Rank.from_environment(os.environ)
    fork_rank(directory, rank)
    _send_output_to(log_file(directory, rank.rank))
    watch = JoinWatch()
    try:
        check_world(rank, os.environ)
        run = Run.get_context()  # describes the rank in its records, whether or not the script logs anything
        azureml_compat.install()
        watch.install()
        end_well = partial(_end_well, run, rank, watch)
        if rank.launched_by_mpi:
            _end_well_before(os._exit, end_well, directory, rank)
        _run_to_a_good_end(argv)
        end_well()
    except SystemExit as error:
        _fail(directory, rank, error, error.code if isinstance(error.code, int) else 1)
    except BaseException as error:
        _fail(directory, rank, error, 1)


def _send_output_to(path: Path) -> None:
    """Point the process's standard output and error, C libraries' included, at the rank's log."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    faulthandler.enable()  # a crash in native code leaves a stack in the log
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # asked for where a run makes no progress


def _run_to_a_good_end(argv: list[str]) -> None:
    """Run the script; raises what ends it, unless that is ``sys.exit(0)``."""
    try:
        _run_script(argv)
    except SystemExit as error:
        if error.code not in (None, 0):
            raise


def _end_well(run: Run, rank: Rank, watch: JoinWatch) -> None:
    """What is due when the script has ended well."""
    check_joined(watch, rank.world_size, os.environ)
    run.log_device(device_in_use())


def _end_well_before(
    exit_at_once: Callable[[int], NoReturn], end_well: Callable[[], None], directory: Path, rank: Rank
) -> None:
    """Let a script end with ``os._exit(0)``: ``mpirun`` takes a rank that goes without leaving MPI for a failed one.

    The script did not join MPI itself, so it cannot be asked to leave. Horovod, once started, has threads in MPI and
    is left to the script.
    """
    pid = os.getpid()

    def leave_and_exit(status: int) -> NoReturn:
        if os.getpid() == pid and status == 0:
            try:
                end_well()
            except NeverJoinedError as error:
                _fail(directory, rank, error, 1)
            mpi, horovod = sys.modules["mpi4py.MPI"], sys.modules.get("horovod.torch")
            horovod_runs = horovod is not None and horovod.is_initialized()
            if not horovod_runs and not mpi.Is_finalized():
                mpi.Finalize()
        exit_at_once(status)

    os._exit = leave_and_exit


def _run_script(argv: list[str]) -> None:
    script = argv[0]
    sys.argv = [script, *map(unshielded, argv[1:])]
    # As for ``python script``: its directory comes first. Where there is no safe path (Python 3.10), ``-m`` has put
    # the working directory there; on PYTHONPATH it is the user's own wish.
    rest = sys.path if getattr(sys.flags, "safe_path", False) else sys.path[1:]
    sys.path[:] = [str(Path(script).resolve().parent), *rest]
    os.environ.pop("PYTHONSAFEPATH", None)  # ours, not the script's
    if "TRAINYARD_PACKAGES" in os.environ:  # found by PYTHONPATH, which does not read their .pth files
        site.addsitedir(os.environ["TRAINYARD_PACKAGES"])
    with io.open_code(script) as stream:
        code = compile(stream.read(), script, "exec", dont_inherit=True)
    exec(code, vars(_become_main(script)))


_own_module = sys.modules[__name__]  # kept, or it would be emptied


def _become_main(script: str) -> ModuleType:
    """Make the script's module this process's ``__main__``, for good and as Python itself would.

    Not ``runpy.run_path``, which takes it away again when the script's last line has run: its threads, its exit
    handlers and what they pickle still need it. Processes that the script spawns find it by its absolute path.
    """
    module = ModuleType("__main__")
    path = os.path.abspath(script)
    loader = SourceFileLoader("__main__", path)
    vars(module).update(__builtins__=builtins, __cached__=None, __file__=path, __loader__=loader)
    sys.modules["__main__"] = module
    return module


def _fail(directory: Path, rank: Rank, error: BaseException, exit_code: int) -> NoReturn:
    """Report the failure, then end every rank: one that waits for this one would wait for ever."""
    text = "".join(traceback.format_exception(type(error), error, _own_frames(error.__traceback__)))
    if not isinstance(error, SystemExit):
        sys.stderr.write(text)
    elif not isinstance(error.code, int):
        sys.stderr.write(f"{error.code}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    report: dict[str, Any] = {
        "rank": rank.rank,
        "host": rank.host,
        "exit_code": exit_code,
        "error_type": type(error).__name__,
        "error_bases": [base.__name__ for base in type(error).__mro__],
        "message": str(error),
        "traceback": text,
        "time": time.time(),
    }
    write_json(failure_file(directory, rank.rank), report)
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() and rank.world_size > 1:
        time.sleep(0.2)  # lets a rank that failed at the same moment leave its report too
        mpi.COMM_WORLD.Abort(exit_code)
    sys.exit(exit_code)


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the script's first frame on, without this module's."""
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    main(sys.argv[1:])
