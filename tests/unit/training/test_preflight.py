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


def test_a_target_that_is_not_known(project):
    (problem,) = problems(project, compute_target="moon")
    assert "'moon'" in problem


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
