"""The same pipeline on data in a directory and in a bucket, with one process and with two."""

import re
import shutil

import pytest

from tests.conftest import write_points
from tests.e2e.conftest import STAGES, statuses, that_ran
from trainyard import Datastore, PyTorch, errors

MPI = {"process_count_per_node": 2, "distributed_backend": "mpi"}


@pytest.fixture
def bucket(s3_server, tmp_path, monkeypatch):
    """A bucket of the test's own with the small dataset under ``points/``, and credentials for it."""
    name = re.sub(r"[^a-z0-9]+", "-", tmp_path.name.lower()).strip("-")[:40]
    for variable, value in s3_server.environment().items():
        monkeypatch.setenv(variable, value)
    write_points(s3_server.create_bucket(name) / "points")
    return name


@pytest.mark.parametrize("topology", [{}, MPI], ids=["one process", "two ranks"])
def test_a_bucket(run_pipeline, s3_server, bucket, topology):
    data = Datastore(url=f"s3://{bucket}", endpoint_url=s3_server.endpoint_url).path("points")
    first = run_pipeline({"--data-dir": data}, estimator=topology)
    assert that_ran(first) == STAGES
    assert first.metrics["accuracy"] > 0.9
    assert first.validation.passed
    assert set(statuses(run_pipeline({"--data-dir": data}, estimator=topology)).values()) == {"cached"}


def test_a_directory_with_two_ranks(run_pipeline):
    result = run_pipeline(estimator=MPI)
    assert that_ran(result) == STAGES
    assert result.validation.num_samples == 40


def test_a_store_in_a_bucket(run_pipeline, s3_server, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    store = f"s3://{bucket}/artifacts"
    first = run_pipeline(store=store)
    assert that_ran(first) == STAGES
    assert first.model_uri == f"{store}/models/linear/1"
    assert (s3_server.directory / bucket / "artifacts" / "models" / "linear" / "1" / "manifest.json").is_file()
    assert that_ran(run_pipeline(store=store)) == []


def test_the_same_bytes_elsewhere_are_the_same_training(run_pipeline, points, tmp_path):
    run_pipeline()
    shutil.copytree(points, tmp_path / "elsewhere")
    moved = run_pipeline({"--data-dir": Datastore(url=(tmp_path / "elsewhere").as_uri())})
    assert set(that_ran(moved)) <= {"stage"}


def test_what_is_wrong_with_a_bucket_is_said_before_anything_is_launched(
    prefect_server, home, linear_project, s3_server, bucket, monkeypatch
):
    from trainyard import training_pipeline

    def datastore(url):
        return Datastore(url=url, endpoint_url=s3_server.endpoint_url)

    def problems(**data):
        estimator = PyTorch(source_directory=str(linear_project), entry_script="train.py", inputs=data)
        with pytest.raises(errors.InvalidInputError) as raised:
            training_pipeline(estimator)
        assert not (home / "runs").exists()
        return raised.value.problems

    found = problems(
        NO_BUCKET=datastore("s3://no-such-bucket-anywhere/points"),
        NO_KEY=datastore(f"s3://{bucket}/no-such-key"),
    )
    assert len(found) == 2
    assert "no-such-bucket-anywhere" in found[0]
    assert "no-such-key" in found[1]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (refused,) = problems(DATA=datastore(f"s3://{bucket}/points"))
    assert "AWS_SECRET_ACCESS_KEY" in refused
