"""torchrun over one machine's ranks, for torch.distributed scripts (Gloo and NCCL)."""

import os

from trainyard.tasks.training.launchers.command import (
    LaunchCommand,
    LaunchSpec,
    device_environment,
    thread_environment,
)


def build(spec: LaunchSpec) -> LaunchCommand:
    """The torchrun command for a spec.

    ``--standalone`` lets torchrun choose a free port, so that several jobs run beside each other. It restarts nothing:
    another attempt is the pipeline's business, from a checkpoint. Nor does it keep logs, of which every rank has one
    already (else each run would leave a directory in ``/tmp``). Without ``--`` torchrun would look for options of its
    own among the script's arguments, and refuse ``--log`` as ambiguous.
    """
    return LaunchCommand(
        argv=(
            spec.python,
            "-m",
            "trainyard.tasks.runtime.torchrun",
            "--standalone",
            "--nnodes",
            "1",
            "--nproc-per-node",
            str(spec.process_count_per_node),
            "--max-restarts",
            "0",
            "--log-dir",
            os.devnull,
            "--no-python",
            "--",
            spec.python,
            "-u",
            *spec.rank_command,
        ),
        env={**spec.environment, **thread_environment(spec), **device_environment(spec)},
        cwd=spec.working_directory,
        timeout_s=spec.timeout_s,
    )
