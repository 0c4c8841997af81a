import pytest

from trainyard import PyTorch
from trainyard.tasks.training.preflight import _device_problems, training_problems


@pytest.fixture
def project(tmp_path):
    (tmp_path / "train.py").touch()
    return tmp_path


def problems(project, **changes):
    return training_problems(PyTorch(source_directory=str(project), entry_script="train.py", **changes))


def test_a_job_that_can_run_has_no_problems(project):
    assert problems(project) == []
    for backend in ("mpi", "gloo"):
        assert problems(project, process_count_per_node=2, distributed_backend=backend) == []


def test_an_entry_script_that_the_snapshot_leaves_out(project):
    (project / ".gitignore").write_text("train*\n")
    (problem,) = problems(project)
    assert "left out by the .gitignore" in problem


def test_a_link_that_leads_outside(project, tmp_path_factory):
    (project / "link").symlink_to(tmp_path_factory.mktemp("outside"))
    (problem,) = problems(project)
    assert "outside the source directory" in problem


def test_more_machines_than_this_one(project):
    (problem,) = problems(project, node_count=2, distributed_backend="mpi")
    assert "one machine" in problem


@pytest.mark.parametrize("setting", [{"shm_size": "8g"}, {"custom_docker_image": "python:3.11"}])
def test_settings_of_containers_are_refused_where_there_are_none(project, setting):
    (problem,) = problems(project, **setting)
    assert problem == f"{next(iter(setting))} is for container work pools; compute_target 'local' is none"


def test_nccl_is_for_gpus(project):
    (problem,) = problems(project, distributed_backend="nccl")
    assert "use_gpu=True" in problem


@pytest.mark.parametrize("backend", ["mpi", "gloo", "nccl"])
def test_every_rank_on_gpus_needs_a_device_of_its_own(backend):
    job = PyTorch(
        source_directory=".",
        entry_script="train.py",
        use_gpu=True,
        process_count_per_node=2,
        distributed_backend=backend,
    )
    assert _device_problems(job, 2, has_nccl=True) == []
    (problem,) = _device_problems(job, 1, has_nccl=True)
    assert "process_count_per_node=2" in problem and "this machine has 1" in problem
    without_nccl = _device_problems(job, 2, has_nccl=False)
    assert bool(without_nccl) is (backend == "nccl")


def test_another_torch_than_the_installed_one(project):
    (problem,) = problems(project, framework_version="1.4")
    assert "framework_version is '1.4', but torch " in problem


def test_packages_that_cannot_be_had_are_all_named(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found = problems(project, pip_packages=("torch<1", "-e ."), pip_requirements_file="r.txt", conda_packages=("sox",))
    assert len(found) == 4
    for part in ("torch<1", "-e", "'r.txt' is not a file", "micromamba, mamba, conda"):
        assert any(part in problem for problem in found)


def test_an_environment_without_pip_cannot_have_a_layer(project, monkeypatch):
    monkeypatch.setattr("trainyard.tasks.training.packages.packages.installed_packages", lambda: {"torch": "2.13.0"})
    (problem,) = problems(project, pip_packages=("scikit-learn",))
    assert "has no pip" in problem and "ensurepip" in problem
    assert problems(project) == []


def test_a_work_pool_answers_for_its_own_devices_and_launchers(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert problems(project, compute_target="gpu", use_gpu=True, distributed_backend="mpi") == []
    (project / "train.py").unlink()
    (problem,) = problems(project, compute_target="gpu", use_gpu=True)
    assert "train.py" in problem
