"""What is wrong with hosts is said before training, all at once, by host."""

import subprocess
import sys

import pytest

from trainyard import PyTorch
from trainyard.tasks.training.preflight import training_problems

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def problems(two_hosts, tmp_path, home):
    (tmp_path / "train.py").touch()

    def find(node_count=2, distributed_backend="mpi", estimator=None, **changes):
        job = PyTorch(
            source_directory=str(tmp_path),
            entry_script="train.py",
            compute_target=two_hosts.target(**changes),
            node_count=node_count,
            distributed_backend=distributed_backend,
            **(estimator or {}),
        )
        return training_problems(job)

    return find


@pytest.fixture
def addresses(two_hosts):
    return [host.address for host in two_hosts.hosts]


def test_hosts_that_can_train_have_no_problems(problems, two_hosts, home):
    assert problems() == []
    assert two_hosts.hosts[0].run("find", str(home / "node"), "-name", ".token-*") == ""


def test_the_shape_and_every_host_at_once(problems, addresses):
    silent = addresses[0].rsplit(".", 1)[0] + ".77"
    found = problems(
        node_count=4, hosts=[f"{addresses[0]}:1", silent, addresses[1]], estimator={"process_count_per_node": 2}
    )
    assert any("node_count=4, but compute_target has 3 hosts" in problem for problem in found)
    assert any(
        problem.startswith(f"host {addresses[0]}: process_count_per_node=2, but it has slots=1") for problem in found
    )
    assert any(problem.startswith(f"host {silent}: it does not answer on port 22") for problem in found)
    assert len(found) == 3


def test_a_backend_that_does_not_run_on_hosts(problems):
    assert any("distributed_backend='gloo' does not run on hosts" in p for p in problems(distributed_backend="gloo"))


def test_packages_that_do_not_go_with_what_is_installed_are_refused_on_hosts_too(problems):
    (problem,) = problems(estimator={"pip_packages": ("torch<1.0",)})
    assert "asks for torch<1.0, but torch" in problem


def test_what_only_this_machine_can_have_is_refused_on_hosts(problems):
    asked = {"conda_packages": ("sox",), "shm_size": "8g"}
    assert problems(estimator=asked) == [
        "conda_packages is not available on hosts in this version: install the same there and here",
        "shm_size is for container work pools; compute_target 'hosts' is none",
    ]


def test_host_keys_that_are_not_known(problems, addresses, tmp_path):
    unknown = {"UserKnownHostsFile": str(tmp_path / "none"), "GlobalKnownHostsFile": "/dev/null"}
    found = problems(ssh_options=unknown)
    assert [problem.split(":")[0] for problem in found] == [f"host {address}" for address in addresses]
    assert all("its ssh host key is not known here" in problem and "ssh-keyscan" in problem for problem in found)
    assert problems(ssh_options=unknown, check_host_keys=False) == []


def test_a_host_key_that_has_changed(problems, addresses, two_hosts, tmp_path):
    lines = (two_hosts.directory / "known_hosts").read_text().splitlines()
    other = next(line for line in lines if line.startswith(addresses[1])).split(" ", 1)[1]
    (tmp_path / "known").write_text(f"{addresses[0]} {other}\n{addresses[1]} {other}\n")
    (problem,) = problems(ssh_options={"UserKnownHostsFile": str(tmp_path / "known")})
    assert problem.startswith(f"host {addresses[0]}: its ssh host key is not the one that is known here")


def test_a_key_that_is_not_let_in(problems, two_hosts, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    found = problems(identity_file=str(tmp_path / "other"))
    assert len(found) == 2
    assert all("does not let the user in with a key" in problem for problem in found)


def test_files_of_this_machine(problems):
    found = problems(identity_file="/no/key", ssh_config="/no/config")
    assert [problem.split(" ")[0] for problem in found] == ["identity_file", "ssh_config"]


def test_a_port_that_nobody_listens_on(problems, addresses):
    found = problems(port=2)
    assert found == [
        f"host {address}: nothing listens for ssh on port 2: start the ssh server there, or set port"
        for address in addresses
    ]


def test_a_python_that_is_not_there(problems):
    found = problems(python="/no/such place/python")
    assert len(found) == 2
    assert all("there is no /no/such place/python" in problem for problem in found)


def test_an_environment_that_is_another(problems, two_hosts):
    other = two_hosts.directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    found = problems(python=str(other / "bin" / "python"))
    different = [problem for problem in found if "is not the one here" in problem]
    assert len(different) == 2
    assert all("torch is missing (here 2" in problem and "more; install" in problem for problem in different)


def test_a_directory_that_cannot_be_written(problems):
    found = problems(home="/proc/trainyard")
    assert len(found) == 2
    assert all("cannot write to /proc/trainyard" in problem for problem in found)


def test_a_directory_that_the_hosts_share(problems, two_hosts, addresses):
    (problem,) = problems(home=str(two_hosts.directory / "shared"))
    assert problem.startswith(f"hosts {', '.join(addresses)} share the directory")


def test_one_machine_under_two_names(problems, two_hosts, addresses, tmp_path):
    (tmp_path / "config").write_text(f"Host one two\n  HostName {addresses[0]}\n  HostKeyAlias {addresses[0]}\n")
    found = problems(hosts=["one", "two"], ssh_config=str(tmp_path / "config"))
    assert any(problem.startswith("hosts one, two are one machine") for problem in found)


def test_an_interface_that_is_not_there(problems, addresses):
    found = problems(network_interface="ib0")
    assert len(found) == 2
    assert all("no network_interface 'ib0'" in p and "eth0 (" in p for p in found)
    assert problems(network_interface="eth0") == []
    assert problems(network_interface=addresses[0].rsplit(".", 1)[0] + ".0/24") == []


def test_hosts_that_do_not_reach_each_other(problems, two_hosts, addresses):
    two_hosts.hosts[0].run("ip", "route", "add", "unreachable", f"{addresses[1]}/32")
    try:
        found = problems()
    finally:
        two_hosts.hosts[0].run("ip", "route", "del", "unreachable", f"{addresses[1]}/32")
    assert [problem.split(" at ")[0] for problem in found] == [  # answers have no way back, either
        f"host {addresses[0]}: it does not reach host {addresses[1]}",
        f"host {addresses[1]}: it does not reach host {addresses[0]}",
    ]


def test_gpus_that_are_not_there(problems, addresses):
    found = problems(estimator={"use_gpu": True})
    assert [problem.split(":")[0] for problem in found] == [f"host {address}" for address in addresses]
    assert all("torch sees no CUDA device" in problem for problem in found)
