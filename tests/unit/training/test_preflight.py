import pytest

from trainyard import PyTorch
from trainyard.tasks.training.preflight import training_problems


@pytest.fixture
def project(tmp_path):
    (tmp_path / "train.py").touch()
    return tmp_path


def problems(project, **changes):
    return training_problems(PyTorch(source_directory=str(project), entry_script="train.py", **changes))


def test_a_job_that_can_run_has_no_problems(project):
    assert problems(project) == []
    assert problems(project, process_count_per_node=2, distributed_backend="mpi") == []


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


def test_a_work_pool_answers_for_its_own_devices_and_launchers(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert problems(project, compute_target="gpu", use_gpu=True, distributed_backend="mpi") == []
    (project / "train.py").unlink()
    (problem,) = problems(project, compute_target="gpu", use_gpu=True)
    assert "train.py" in problem
