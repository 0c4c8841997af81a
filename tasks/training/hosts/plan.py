"""What a launch over several hosts needs to know beside what every launch does."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.specs.estimator import PyTorch, as_reference
from trainyard.tasks.specs.hosts import Hosts
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from trainyard.tasks.training.launchers.command import LaunchSpec


_FORWARD = "TRAINYARD_FORWARD_"


class HostsPlan(Spec):
    """The hosts, and where a run's directories are: the same paths below the home here and on every node."""

    hosts: Hosts
    """The machines."""

    python: str
    """The interpreter on them."""

    home: str
    """The home directory here."""

    node_home: str
    """The directory that stands for it on every node."""

    area: str
    """What is put on the nodes as it is here: the script's working directory, and what is around it."""

    work: str
    """The script's working directory, in the area; relative to the home."""

    checkpoints: str
    """Its checkpoints, relative to the home."""

    run: str
    """Logs and records of the attempt, relative to the home."""

    packages: str | None
    """The folder here of the Python packages that the job asked for beside what is installed on the nodes."""

    datasets: tuple[str, ...]
    """Digests of the datasets; their manifests are in the folder ``manifests`` of the run."""

    grace_s: float
    """Seconds that a stopped training has before its processes are killed."""

    @property
    def run_id(self) -> str:
        """The attempt's id."""
        return Path(self.run).name

    def on_node(self, path: str | Path) -> str:
        """Where something below the home here is on the nodes."""
        return str(Path(self.node_home) / Path(path).relative_to(self.home))

    def text_on_node(self, text: str) -> str:
        """The same for a path or ``file://`` URL below the home here; any other text stays as it is."""
        scheme = "file://" if text.startswith("file://") else ""
        path = text.removeprefix(scheme)
        home = quote(self.home) if scheme else self.home
        if path != home and not path.startswith(f"{home}/"):
            return text
        return f"{scheme}{quote(self.node_home) if scheme else self.node_home}{path.removeprefix(home)}"


def forwarding(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables for the controller that carry those of the ranks; its own ``PATH``, for one, stays what it is."""
    return {f"{_FORWARD}{name}": value for name, value in environment.items()}


def forwarded(environment: Mapping[str, str]) -> dict[str, str]:
    """What ``forwarding`` carries."""
    return {name.removeprefix(_FORWARD): value for name, value in environment.items() if name.startswith(_FORWARD)}


def node_home(hosts: Hosts, home: Path) -> str:
    """Trainyard's directory on every node: apart from the home here, where the machine that plans is a node, too."""
    return hosts.home or str(home / "node")


def node_python(hosts: Hosts, python: str) -> str:
    """The interpreter on every node."""
    return hosts.python or python


def on_hosts(
    spec: "LaunchSpec",
    estimator: PyTorch,
    plan: HostsPlan,
    data_paths: Mapping[DataReference, Path],
) -> "LaunchSpec":
    """A launch specification for this machine, as one for several hosts.

    What ranks are given is said anew: paths are those on the nodes, and of the environment only what the estimator
    or Trainyard sets goes along.

    Args:
        spec: The one for this machine.
        estimator: The job.
        plan: Where things are.
        data_paths: Where the script would find each of its data references on this machine.
    """

    def node_path(reference: DataReference) -> str:
        return plan.on_node(data_paths[reference])

    inputs = {name: node_path(as_reference(value)) for name, value in estimator.inputs.items()}
    added = {name: value for name, value in spec.environment.items() if os.environ.get(name) != value}
    ours = {
        name: plan.text_on_node(value) for name, value in added.items() if name not in estimator.environment_variables
    }
    own = {name: os.environ[name] for name in spec.environment if name in os.environ}
    return replace(
        spec,
        arguments=estimator.arguments(node_path),
        environment={**own, **forwarding({**ours, **estimator.environment_variables, **inputs})},
        hosts=plan,
    )


def hosts_plan(
    python: str,
    hosts: Hosts,
    run: RunDirectory,
    data: StagedData,
    context: StageContext,
    packages: Path | None = None,
) -> HostsPlan:
    """Where a run's directories are, here and on the nodes; writes down which files its datasets have."""
    manifests = run.path / "manifests"
    manifests.mkdir()
    for dataset in data.datasets:
        (manifests / f"{dataset.sha256}.json").write_bytes(context.store.read_bytes(dataset.manifest))

    def below_home(path: Path) -> str:
        return path.relative_to(context.home).as_posix()

    return HostsPlan(
        hosts=hosts,
        python=node_python(hosts, python),
        home=str(context.home),
        node_home=node_home(hosts, context.home),
        area=below_home(run.area),
        work=below_home(run.workspace),
        checkpoints=below_home(run.checkpoints),
        run=below_home(run.path),
        packages=None if packages is None else str(packages),
        datasets=tuple(dict.fromkeys(dataset.sha256 for dataset in data.datasets)),
        grace_s=Settings().stop_grace_s,
    )
