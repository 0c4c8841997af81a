"""The whole pipeline, its training on two hosts that a Prefect block names."""

import pytest

from tests.e2e.conftest import small_estimator, statuses, that_ran
from tests.wheels import make_wheel, use_wheels
from trainyard import Hosts, PyTorch, errors, training_pipeline
from trainyard.tasks.blocks import HostsBlock

pytestmark = pytest.mark.timeout(400)


def test_a_pipeline_trains_on_the_hosts_of_a_block(prefect_server, two_hosts, home, linear_project, points):
    target = two_hosts.target()
    HostsBlock(target=target).save("lab", overwrite=True)
    assert Hosts.load("lab") == target

    mpi = {"node_count": 2, "distributed_backend": "mpi"}
    first = training_pipeline(small_estimator(linear_project, points, compute_target="hosts/lab", **mpi))
    assert that_ran(first) == ["stage", "train", "metrics", "export", "validate", "register"]
    assert first.validation.passed

    backwards = two_hosts.target(hosts=[host.address for host in reversed(two_hosts.hosts)])
    second = training_pipeline(small_estimator(linear_project, points, compute_target=backwards, **mpi))
    assert set(statuses(second).values()) == {"cached"}, "addresses are not part of what is trained"


def test_a_block_that_is_not_there(prefect_server, home, linear_project, points):
    with pytest.raises(errors.InvalidInputError, match="no Prefect block 'nowhere' of type 'Trainyard Hosts'"):
        training_pipeline(small_estimator(linear_project, points, compute_target="hosts/nowhere"))


def test_hosts_that_cannot_train_are_refused_by_name(prefect_server, two_hosts, home, linear_project, points):
    target = two_hosts.target(port=2, hosts=[f"{host.address}:1" for host in two_hosts.hosts])
    several = {"node_count": 2, "process_count_per_node": 2, "distributed_backend": "mpi"}
    with pytest.raises(errors.InvalidInputError) as caught:
        training_pipeline(small_estimator(linear_project, points, compute_target=target, **several))
    for host in two_hosts.hosts:
        assert f"host {host.address}: process_count_per_node=2, but it has slots=1" in str(caught.value)
        assert f"host {host.address}: nothing listens for ssh on port 2" in str(caught.value)


SCRIPT = """\
import subprocess, sys
import helper, horovod.torch as hvd, named_by_pth, torch
from trainyard import Run

hvd.init()
assert named_by_pth.HERE
told = subprocess.run([sys.executable, "-c", "import helper; print(helper.ANSWER)"], capture_output=True, check=True)
Run.get_context().log("answers", hvd.allreduce_(torch.tensor(float(helper.ANSWER)), op=hvd.Sum).item())
Run.get_context().log("told", int(told.stdout))
print("packages of", helper.__file__, flush=True)
"""


def test_packages_that_a_job_asks_for_are_on_every_host(prefect_server, two_hosts, home, tmp_path, monkeypatch):
    use_wheels(monkeypatch, tmp_path / "wheels")
    modules = {"helper.py": "ANSWER = 21\n", "elsewhere/named_by_pth.py": "HERE = True\n", "helper.pth": "elsewhere\n"}
    make_wheel(tmp_path / "wheels", "helper", "1.0", modules=modules)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text(SCRIPT)
    estimator = PyTorch(
        source_directory=str(tmp_path / "project"),
        entry_script="train.py",
        pip_packages=["helper"],
        compute_target=two_hosts.target(),
        node_count=2,
        distributed_backend="mpi",
    )
    trained = training_pipeline(estimator, export=None)
    assert trained.metrics == {"answers": 42, "told": 21}
