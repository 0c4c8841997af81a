"""The proof: two processes, one sum."""

import sys

from trainyard.deployments.doctor.check import Check
from trainyard.deployments.doctor.mpi import environment_mpirun, launch_variables
from trainyard.deployments.doctor.probing import PROBES, run_probe

NUM_RANKS = 2
TIMEOUT_S = 90.0


def check_allreduce(timeout_s: float = TIMEOUT_S) -> Check:
    """Do two processes, started by ``mpirun``, sum a tensor through Horovod?

    Args:
        timeout_s: Seconds after which they are ended.
    """
    if not environment_mpirun().exists():
        return Check("all-reduce", "skip", "there is no mpirun to start two processes with")
    answer = run_probe(allreduce_command(), timeout_s, launch_variables())
    if answer.failure:
        remedy = f"run it to see all of its output: {' '.join(allreduce_command())}"
        return Check("all-reduce", "fail", f"over {NUM_RANKS} processes: {answer.failure}", remedy)
    if answer.facts["world_size"] != NUM_RANKS or answer.facts["sums"] != [sum(range(1, NUM_RANKS + 1))]:
        remedy = "mpirun and Horovod use different MPI libraries; see the checks above"
        return Check("all-reduce", "fail", f"a wrong world or a wrong sum: {dict(answer.facts)}", remedy)
    return Check("all-reduce", "ok", f"{NUM_RANKS} processes, 16 MB in {answer.facts['milliseconds']:.1f} ms")


def allreduce_command() -> list[str]:
    """Arguments that start the two processes on this host, whatever the number of its cores.

    ``-m mpi4py`` ends both where one of them raises; ``pml ob1`` leaves out a second of network set-up.
    """
    options = ["-np", str(NUM_RANKS), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", "--mca", "pml", "ob1"]
    options += ["--mca", "mpi_yield_when_idle", "1"]
    return [str(environment_mpirun()), *options, sys.executable, "-m", "mpi4py", "-m", f"{PROBES}.allreduce_probe"]
