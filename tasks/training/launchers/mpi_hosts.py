"""Open MPI over several hosts, reached over ssh."""

import sys

from trainyard.tasks.training.hosts.job import HostsJob
from trainyard.tasks.training.launchers.command import LaunchCommand, LaunchSpec


def build(spec: LaunchSpec) -> LaunchCommand:
    """The command for this machine: the controller, which has ``mpirun`` run on the first host.

    What ``mpirun`` is given is known when the hosts have said what they are: see ``hosts/mpirun.py``. Environment
    values go to the controller in its own environment, and from there over ssh: no argument list shows them.
    """
    assert spec.hosts is not None, "a launch over several hosts has a plan of them"
    job = HostsJob(
        plan=spec.hosts,
        node_count=spec.node_count,
        process_count_per_node=spec.process_count_per_node,
        use_gpu=spec.use_gpu,
        rank_command=spec.rank_command,
    )
    return LaunchCommand(
        argv=(sys.executable, "-m", "trainyard.tasks.training.hosts", job.model_dump_json()),
        env=spec.environment,
        cwd=spec.working_directory,
        timeout_s=spec.timeout_s,
    )
