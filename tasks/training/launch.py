"""From an estimator and a run's directories to what a launcher needs to know."""

import os
from collections.abc import Mapping
from pathlib import Path

from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.specs.estimator import PyTorch, as_reference
from trainyard.tasks.training.launchers.command import LaunchSpec
from trainyard.tasks.training.packages.packages import NO_PACKAGES, Packages
from trainyard.tasks.training.run_directory import RunDirectory
from trainyard.tasks.training.tracking import tracking_environment


def launch_spec(
    estimator: PyTorch,
    run: RunDirectory,
    data_paths: Mapping[DataReference, Path],
    context: StageContext,
    packages: Packages = NO_PACKAGES,
) -> LaunchSpec:
    """What to launch on this machine for a run.

    Args:
        estimator: The job.
        run: Its directories.
        data_paths: Where the script finds each of its data references.
        context: Its timeout bounds the attempt.
        packages: What it asked for beside what is installed, ready to be used.
    """

    def local_path(reference: DataReference) -> str:
        return str(data_paths[reference])

    inherited = _inherited(os.environ)
    inputs = {name: local_path(as_reference(value)) for name, value in estimator.inputs.items()}
    return LaunchSpec(
        python=str(packages.python),
        entry_script=estimator.entry_script,
        arguments=estimator.arguments(local_path),
        working_directory=run.workspace,
        environment={
            **packages.environment(inherited),
            **tracking_environment({**inherited, **estimator.environment_variables}, run),
            **estimator.environment_variables,
            **inputs,
            **run.environment(),
        }
        | {
            "TRAINYARD_WORLD_SIZE": str(estimator.world_size),
            "TRAINYARD_LOCAL_SIZE": str(estimator.process_count_per_node),
            "TRAINYARD_NODE_COUNT": str(estimator.node_count),
            "TRAINYARD_STOP_GRACE_S": str(Settings().stop_grace_s),
            "PYTHONSAFEPATH": "1",
        },
        process_count_per_node=estimator.process_count_per_node,
        node_count=estimator.node_count,
        num_cpus=len(os.sched_getaffinity(0)),
        as_root=os.geteuid() == 0,
        distributed_backend=estimator.distributed_backend,
        use_gpu=estimator.use_gpu,
        timeout_s=_earliest(context.timeout_s, estimator.max_run_duration_seconds),
    )


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what belongs to another launcher or to Prefect (its API key, too)."""
    prefixes = ("OMPI_", "PMIX_", "PRTE_", "PET_", "TORCHELASTIC_", "PREFECT_", "TRAINYARD_")
    ranks = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"}
    ranks |= {"ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    ranks |= {f"HOROVOD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")}
    return {name: value for name, value in environment.items() if not (name.startswith(prefixes) or name in ranks)}


def _earliest(*deadlines: float | None) -> float | None:
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
