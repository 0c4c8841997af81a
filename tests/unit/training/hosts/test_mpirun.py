import pytest

from trainyard.tasks.runtime.node.job import RELAY
from trainyard.tasks.training.hosts.mpirun import Node, mpirun_command, networks, node_environment


def node(number=1, **changes):
    interfaces = (
        {"name": "lo", "address": "127.0.0.1", "network": "127.0.0.0/8"},
        {"name": "docker0", "address": "172.17.0.1", "network": "172.17.0.0/16"},
        {"name": f"eth{number}", "address": f"10.0.0.{number}", "network": "10.0.0.0/24"},
    )
    values = {
        "hostname": f"node{number}",
        "num_cpus": 8,
        "as_root": False,
        "interfaces": interfaces,
        "ssh_address": f"10.0.0.{number}",
        "mpirun": "/venv/bin/mpirun",
        "mpi_version": "5.0.11",
        **changes,
    }
    return Node(**values)


def command(nodes, **changes):
    options = {"process_count_per_node": 2, "network": "10.0.0.0/24", "python": "/venv/bin/python", **changes}
    return mpirun_command(nodes, rank_command=("-m", "trainyard.tasks.runtime", "./train.py"), **options)


def pairs(argv):
    return list(zip(argv, argv[1:], argv[2:], strict=False))


def test_open_mpi_5():
    argv = command([node(1), node(2)])
    assert argv[:5] == ["/venv/bin/mpirun", "-np", "4", "-H", "node1:2,node2:2"]
    assert ("--prtemca", "plm_ssh_agent", RELAY) in pairs(argv)
    assert ("--prtemca", "prte_if_include", "10.0.0.0/24") in pairs(argv)
    assert argv[-7:] == ["/venv/bin/python", "-u", "-m", "mpi4py", "-m", "trainyard.tasks.runtime", "./train.py"]


def test_open_mpi_4_has_other_names():
    argv = command([node(1, mpi_version="4.1.8"), node(2)])
    assert ("--mca", "plm_rsh_agent", RELAY) in pairs(argv)
    assert ("--mca", "oob_tcp_if_include", "10.0.0.0/24") in pairs(argv)
    assert "--prtemca" not in argv


@pytest.mark.parametrize("as_root", [True, False])
def test_root_must_be_allowed(as_root):
    assert ("--allow-run-as-root" in command([node(1, as_root=as_root)])) is as_root


def test_ranks_talk_on_the_network_at_which_ssh_reached_the_nodes():
    assert networks([node(1), node(2)], None) == "10.0.0.0/24"


def test_or_on_the_one_that_was_asked_for():
    assert networks([node(1), node(2)], "172.17.0.0/16") == "172.17.0.0/16"
    assert networks([node(1), node(2)], "eth1,eth2") == "10.0.0.0/24"


@pytest.mark.parametrize("address", [None, "127.0.0.1", "192.0.2.7"])
def test_open_mpi_chooses_where_it_is_not_known(address):
    assert networks([node(1), node(2, ssh_address=address)], None) is None


def environment(**changes):
    options = {"process_count_per_node": 2, "network": "10.0.0.0/24", "wanted": None, "use_gpu": False, **changes}
    return node_environment(node(), **options)


def test_cores_are_shared_among_local_ranks():
    assert environment()["OMP_NUM_THREADS"] == "4"
    assert environment(process_count_per_node=16)["OMP_NUM_THREADS"] == "1"


def test_ranks_yield_only_where_they_fill_the_cores():
    assert "OMPI_MCA_mpi_yield_when_idle" not in environment()
    assert environment(process_count_per_node=4)["OMPI_MCA_mpi_yield_when_idle"] == "1"


def test_gpus_are_hidden_unless_asked_for():
    assert environment()["CUDA_VISIBLE_DEVICES"] == ""
    gpu = environment(use_gpu=True)
    assert "CUDA_VISIBLE_DEVICES" not in gpu
    assert gpu["NCCL_SOCKET_IFNAME"] == "eth1"
