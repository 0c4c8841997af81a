"""From an estimator and a run's directories to what a launcher needs to know."""

import os
import sys
from collections.abc import Mapping

from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.specs.estimator import PyTorch, as_reference
from trainyard.tasks.specs.hosts import Hosts
from trainyard.tasks.training.hosts.plan import hosts_plan, on_hosts
from trainyard.tasks.training.launchers.command import LaunchSpec
from trainyard.tasks.training.run_directory import RunDirectory


def launch_spec(estimator: PyTorch, run: RunDirectory, data: StagedData, context: StageContext) -> LaunchSpec:
    """What to launch for a run, on this machine or on the hosts that are its target."""
    datasets = dict(zip(estimator.references, data.datasets, strict=True))

    def local_path(reference: DataReference) -> str:
        return str(dataset_path(context.home, datasets[reference]))

    inputs = {name: local_path(as_reference(value)) for name, value in estimator.inputs.items()}
    spec = LaunchSpec(
        python=sys.executable,
        entry_script=estimator.entry_script,
        arguments=estimator.arguments(local_path),
        working_directory=run.workspace,
        environment={
            **_inherited(os.environ),
            **estimator.environment_variables,
            **inputs,
            **run.environment(),
        }
        | {"TRAINYARD_WORLD_SIZE": str(estimator.world_size), "PYTHONSAFEPATH": "1"},
        process_count_per_node=estimator.process_count_per_node,
        node_count=estimator.node_count,
        num_cpus=len(os.sched_getaffinity(0)),
        as_root=os.geteuid() == 0,
        distributed_backend=estimator.distributed_backend,
        use_gpu=estimator.use_gpu,
        timeout_s=_earliest(context.timeout_s, estimator.max_run_duration_seconds),
    )
    hosts = estimator.compute_target
    if not isinstance(hosts, Hosts):
        return spec
    return on_hosts(spec, estimator, hosts_plan(sys.executable, hosts, run, data, context), local_path)


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what belongs to another launcher or to Prefect (its API key, too)."""
    prefixes = ("OMPI_", "PMIX_", "PRTE_", "PREFECT_", "TRAINYARD_")
    ranks = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}
    return {name: value for name, value in environment.items() if not (name.startswith(prefixes) or name in ranks)}


def _earliest(*deadlines: float | None) -> float | None:
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
