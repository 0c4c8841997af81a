"""Open MPI over several hosts: the command that runs on the first node, and the environment of every node."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.tasks.runtime.node.job import RELAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node, as its agent describes it."""

    hostname: str
    num_cpus: int
    as_root: bool
    interfaces: tuple[Mapping[str, str], ...]
    ssh_address: str | None
    mpirun: str | None
    mpi_version: str | None

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> "Node":
        """From an agent's answer."""
        return cls(**{**identity, "interfaces": tuple(identity["interfaces"])})

    def traffic_interface(self, wanted: str | None) -> Mapping[str, str] | None:
        """The interface for the traffic between ranks; None where there is none such.

        Args:
            wanted: Names or networks, separated by commas; None for the one at which ssh reached the node.
        """
        for interface in self.interfaces:
            if any(_matches(interface, word) for word in (wanted or self.ssh_address or "").split(",") if word):
                return interface
        return None


def _matches(interface: Mapping[str, str], word: str) -> bool:
    if "/" in word:
        return ipaddress.ip_address(interface["address"]) in ipaddress.ip_network(word, strict=False)
    return word in (interface["name"], interface["address"])


def networks(nodes: Sequence[Node], wanted: str | None) -> str | None:
    """What Open MPI is told to use: the networks of the nodes' interfaces, or None to let it choose."""
    found = [node.traffic_interface(wanted) for node in nodes]
    known = [interface["network"] for interface in found if interface is not None]
    usable = [network for network in known if not ipaddress.ip_network(network).is_loopback]
    return ",".join(dict.fromkeys(usable)) if len(usable) == len(nodes) else None


def mpirun_command(
    nodes: Sequence[Node],
    *,
    process_count_per_node: int,
    network: str | None,
    python: str,
    rank_command: Sequence[str],
) -> list[str]:
    """The command for the first node.

    Daemons on the other nodes are started by those nodes' agents: ``RELAY`` stands in the place of ssh. Each by the
    first one (no tree of daemons), so that one agent relays all requests.

    Args:
        nodes: The first one runs the command; ranks fill them in this order.
        process_count_per_node: Ranks on each.
        network: Networks (CIDR), separated by commas, that the daemons use; None for any.
        python: The interpreter on the nodes.
        rank_command: What one rank runs, after the interpreter and its options.
    """
    first = nodes[0]
    assert first.mpirun is not None and first.mpi_version is not None, "checked before"
    major = int(first.mpi_version.split(".")[0])
    flag, shell, oob = ("--mca", "rsh", "oob_tcp") if major < 5 else ("--prtemca", "ssh", "prte")
    return [
        first.mpirun,
        *(("--allow-run-as-root",) if first.as_root else ()),
        *("-np", str(len(nodes) * process_count_per_node)),
        *("-H", ",".join(f"{node.hostname}:{process_count_per_node}" for node in nodes)),
        *("--bind-to", "none"),
        *(flag, "plm", shell),
        *(flag, f"plm_{shell}_agent", RELAY),
        *(flag, f"plm_{shell}_no_tree_spawn", "1"),
        *((flag, f"{oob}_if_include", network) if network else ()),
        *(python, "-u", "-m", "mpi4py"),
        *rank_command,
    ]


def node_environment(
    node: Node, *, process_count_per_node: int, network: str | None, wanted: str | None, use_gpu: bool
) -> dict[str, str]:
    """What a node's processes get where the estimator's ``environment_variables`` do not say otherwise.

    Open MPI's parameters are variables here and not options, so that what the user sets wins: for InfiniBand for
    example ``OMPI_MCA_pml=ucx``.
    """
    environment = {
        "OMP_NUM_THREADS": str(max(1, node.num_cpus // process_count_per_node)),
        "OMPI_MCA_pml": "ob1",
    }
    if network:
        environment["OMPI_MCA_btl_tcp_if_include"] = network
    if process_count_per_node * 2 >= node.num_cpus:
        environment["OMPI_MCA_mpi_yield_when_idle"] = "1"  # see launchers/mpi.py
    interface = node.traffic_interface(wanted)
    if use_gpu and interface is not None and network:
        environment["NCCL_SOCKET_IFNAME"] = interface["name"]
    if not use_gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment
