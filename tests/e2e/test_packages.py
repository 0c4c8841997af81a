"""A project with packages of its own, from the estimator to its ranks."""

import pytest

from tests.e2e.conftest import statuses
from tests.wheels import make_wheel, use_wheels
from trainyard import PyTorch, StagePolicy, errors

SCRIPT = """\
import helper
import horovod.torch as hvd
from trainyard import Run

hvd.init()
Run.get_context().log("helper", helper.ANSWER)
Run.get_context().log("size", hvd.size())
"""


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    use_wheels(monkeypatch, tmp_path / "wheels")
    make_wheel(tmp_path / "wheels", "helper", "1.0", modules={"helper.py": "ANSWER = 42\n"})
    return tmp_path / "wheels"


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "requirements.txt").write_text("helper>=1\n")
    return folder


@pytest.fixture
def train(prefect_server, home, project):
    from trainyard import training_pipeline

    def train(policies=None, **changes):
        values = {
            "pip_requirements_file": "requirements.txt",
            "process_count_per_node": 2,
            "distributed_backend": "mpi",
        }
        estimator = PyTorch(source_directory=str(project), entry_script="train.py", **{**values, **changes})
        return training_pipeline(estimator, export=None, policies=policies)

    return train


def test_ranks_use_the_layer_and_its_versions_are_in_the_key(train, wheels, home):
    first = train()
    assert first.metrics == {"helper": 42, "size": 2}
    make_wheel(wheels, "helper", "2.0", modules={"helper.py": "ANSWER = 43\n"})
    assert statuses(train())["train"] == "cached"
    assert train({"train": StagePolicy(cache="refresh")}).metrics["helper"] == 43
    assert train().metrics["helper"] == 43


def test_what_stands_against_a_request_is_known_before_anything_is_launched(train, wheels, home, project):
    (project / "requirements.txt").write_text("torch<1.0\n-e .\nhelper\n")
    with pytest.raises(errors.InvalidInputError) as raised:
        train(pip_packages=["a b"])
    assert len(raised.value.problems) == 3
    assert "requirements.txt, line 1 asks for torch<1.0, but torch" in str(raised.value)
    assert not (home / "environments").exists() and not (home / "runs").exists()


def test_a_request_that_no_index_meets_is_not_retried(train, wheels, home):
    with pytest.raises(errors.InvalidInputError, match=r"the package index has no helper==3; it has 1\.0"):
        train({"train": StagePolicy(retries=3, retry_delay_s=60)}, pip_packages=["helper==3"])
    assert not (home / "runs").exists()
