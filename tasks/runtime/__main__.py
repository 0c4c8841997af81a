"""One rank's life: ``python -m trainyard.tasks.runtime ENTRY_SCRIPT [ARGUMENT ...]``.

Sends output to the rank's own log file, joins the MPI world and checks its size, runs the script as ``__main__``
with its own argv and import path (and a stand-in for ``azureml.core`` where that is not installed), and on failure
leaves a report that names the line and ends the whole job.
"""

import builtins
import faulthandler
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from trainyard.tasks.runtime import azureml_compat
from trainyard.tasks.runtime.ranks import Rank, failure_file, log_file
from trainyard.tasks.runtime.supervisor import die_with_parent

REPORTS_DIRECTORY_VARIABLE = "TRAINYARD_RANKS_DIR"
WORLD_SIZE_VARIABLE = "TRAINYARD_WORLD_SIZE"


def main(argv: list[str]) -> None:
    """Run a script as one rank.

    Args:
        argv: The script's path and its arguments.
    """
    die_with_parent(signal.SIGKILL)
    directory = Path(os.environ[REPORTS_DIRECTORY_VARIABLE])
    rank = Rank.from_environment(os.environ)
    _send_output_to(log_file(directory, rank.rank))
    try:
        _join_world(rank)
        _describe(rank)
        azureml_compat.install()
        _run_script(argv)
    except SystemExit as error:
        if error.code not in (None, 0):
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


def _join_world(rank: Rank) -> None:
    """Under Open MPI, start MPI and check that the ranks see each other.

    Raises:
        RuntimeError: The world is not of the size that was asked for.
    """
    expected = int(os.environ[WORLD_SIZE_VARIABLE])
    found = rank.world_size
    if rank.launched_by_mpi:
        from mpi4py import MPI

        found = MPI.COMM_WORLD.Get_size()
        _leave_mpi_before(os._exit)
    if found != expected:
        raise RuntimeError(
            f"this rank sees a world of {found}, but {expected} ranks were asked for: mpi4py, Horovod and mpirun "
            "must use the same Open MPI (trainyard doctor tells)"
        )


def _leave_mpi_before(exit_at_once: Callable[[int], NoReturn]) -> None:
    """Let a script end with ``os._exit(0)``: ``mpirun`` takes a rank that goes without leaving MPI for a failed one.

    The script did not join MPI itself, so it cannot be asked to leave. Horovod, once started, has threads in MPI and
    is left to the script.
    """
    pid = os.getpid()

    def leave_and_exit(status: int) -> NoReturn:
        mpi, horovod = sys.modules["mpi4py.MPI"], sys.modules.get("horovod.torch")
        horovod_runs = horovod is not None and horovod.is_initialized()
        if os.getpid() == pid and status == 0 and not horovod_runs and not mpi.Is_finalized():
            mpi.Finalize()
        exit_at_once(status)

    os._exit = leave_and_exit


def _describe(rank: Rank) -> None:
    """Leave the rank's description in its metric records, whether or not the script logs anything."""
    from trainyard.tasks.runtime.run import Run

    Run.get_context()


def _run_script(argv: list[str]) -> None:
    script = argv[0]
    sys.argv = list(argv)
    # As for ``python script``: its directory comes first. Where there is no safe path (Python 3.10), ``-m`` has put
    # the working directory there; on PYTHONPATH it is the user's own wish.
    rest = sys.path if getattr(sys.flags, "safe_path", False) else sys.path[1:]
    sys.path[:] = [str(Path(script).resolve().parent), *rest]
    os.environ.pop("PYTHONSAFEPATH", None)  # ours, not the script's
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
    path = failure_file(directory, rank.rank)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(report))
    scratch.replace(path)
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
