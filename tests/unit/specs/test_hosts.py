import pytest
from pydantic import ValidationError

from trainyard import Hosts, PyTorch
from trainyard.tasks.specs.hosts import Host, hosts_block


@pytest.mark.parametrize(
    ("text", "address", "slots"),
    [
        ("10.0.0.1", "10.0.0.1", None),
        ("10.0.0.1:2", "10.0.0.1", 2),
        ("gpu-1.example.org:8", "gpu-1.example.org", 8),
        ("fd00::1", "fd00::1", None),
        ("[fd00::1]:4", "fd00::1", 4),
    ],
)
def test_a_host_as_a_text(text, address, slots):
    assert Hosts(hosts=[text]).hosts == (Host(address=address, slots=slots),)


@pytest.mark.parametrize(
    "text", ["-oProxyCommand=id", "a b", "me@host", "$(id)", "a;b", "a\nb", "", "host:many", "host:0"]
)
def test_what_is_no_host(text):
    with pytest.raises(ValidationError):
        Hosts(hosts=[text])


@pytest.mark.parametrize(
    "fields",
    [
        {"hosts": []},
        {"hosts": ["a", "a"]},
        {"port": 0},
        {"user": "-l"},
        {"python": "python3"},
        {"home": "~/x"},
        {"network_interface": "10.0.0.0/64"},
        {"network_interface": "eth0,"},
        {"ssh_options": {"StrictHostKeyChecking": "no"}},
        {"ssh_options": {"a b": "c"}},
        {"ssh_options": {"ProxyJump": "a\nProxyCommand x"}},
        {"colour": "blue"},
    ],
)
def test_what_cannot_be(fields):
    with pytest.raises(ValidationError):
        Hosts(**{"hosts": ["a"], **fields})


def test_hosts_survive_json_as_a_compute_target(tmp_path):
    (tmp_path / "train.py").touch()
    hosts = Hosts(hosts=["10.0.0.1:2", "10.0.0.2"], user="me", network_interface="eth1, 10.0.0.0/24")
    job = PyTorch(source_directory=str(tmp_path), entry_script="train.py", compute_target=hosts)
    assert PyTorch.model_validate_json(job.model_dump_json()) == job
    assert job.compute_target.network_interface == "eth1,10.0.0.0/24"


def test_a_text_is_a_target_by_name(tmp_path):
    job = PyTorch(source_directory=str(tmp_path), entry_script="train.py", compute_target="hosts/lab")
    assert hosts_block(job.compute_target) == "lab"
    assert hosts_block("local") is None
    assert hosts_block("hosts/") is None
