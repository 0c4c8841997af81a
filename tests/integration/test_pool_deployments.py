"""The deployment that trains on a work pool: which it is, and what it needs of the machines there."""

import os
import subprocess
import sys
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

from tests.integration.deployed import passing_client
from trainyard import PyTorch, training_pipeline
from trainyard.deployments.deploy.plan import apply, plan
from trainyard.deployments.deploy.wanted import Options, wanted_resources
from trainyard.flows.pool_training import _run_child
from trainyard.flows.work_pools import training_deployment
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import InvalidInputError, WorkerLostError, WorkerUnavailableError


@pytest.fixture(scope="module")
def client(prefect_server):
    with passing_client() as client:
        yield client


@pytest.fixture
def pool(client):
    """A work pool of the test's own, on which nothing can train yet."""
    name = f"pool-{uuid4().hex[:8]}"
    client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    return name


@pytest.fixture
def train_on(client, tmp_path):
    """``trainyard deploy --train-on POOL``, in a folder that other machines do not have."""

    def run(pool):
        project = tmp_path / "project"
        project.mkdir()
        apply(client, plan(client, wanted_resources(Options(project=project, train_on=(pool,)))))
        project.rmdir()

    return run


def test_somebody_elses_flow_of_the_same_name_does_not_train_ours(client, pool, train_on):
    theirs = client.create_flow_from_name("train")
    client.create_deployment(theirs, f"a-{pool}", work_pool_name=pool, entrypoint="flows.py:train", tags=["team"])
    with pytest.raises(InvalidInputError, match=f"nothing can train yet: trainyard deploy --train-on {pool}"):
        training_deployment(client, pool)
    train_on(pool)
    assert training_deployment(client, pool) == client.read_deployment_by_name(f"train/train-{pool}").id


def test_a_deployment_of_our_own_making_trains_where_it_has_the_tag(client, pool):
    train = client.create_flow_from_name("train")
    made = client.create_deployment(train, pool, work_pool_name=pool, entrypoint="mine.py:train", tags=["trainyard"])
    assert training_deployment(client, pool) == made


@pytest.fixture
def train_there(prefect_server, pool, tmp_path, linear_project):
    """Train on the pool, with a worker that works in a folder of its own."""

    def run(entry_script="train.py"):
        estimator = PyTorch(source_directory=str(linear_project), entry_script=entry_script)
        context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")
        parameters = {"estimator": estimator.model_dump(mode="json"), "store": context.store_url}
        return flow(name="caller")(lambda: task(_run_child)(pool, estimator, parameters, context))()

    env = {**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", pool]
    (tmp_path / "worker").mkdir()
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=tmp_path / "worker")
    yield run
    worker.terminate()
    worker.wait(60)


def test_workers_that_train_need_no_folder_of_the_project(pool, train_on, train_there):
    train_on(pool)
    with pytest.raises(InvalidInputError, match=r"none\.py"):  # said by the flow itself, on the worker
        train_there(entry_script="none.py")


def test_a_crash_is_told_with_its_cause(client, pool, train_on, train_there):
    train_on(pool)
    deployment = client.read_deployment(training_deployment(client, pool))
    newer = DeploymentUpdate(entrypoint="trainyard.flows.newer.train", tags=deployment.tags)
    client.update_deployment(deployment.id, newer)
    with pytest.raises(WorkerLostError) as lost:
        train_there()
    assert "exited with status code" in str(lost.value)
    assert "No module named 'trainyard.flows.newer'" in str(lost.value)


@pytest.fixture
def containers(client):
    """A work pool that would start containers: its job template, and no Docker."""
    variables = {"image": {"type": "string"}, "shm_size": {"type": "string"}, "env": {"type": "object"}}
    template = {
        "job_configuration": {
            "image": "{{ image }}",
            "env": "{{ env }}",
            "container_create_kwargs": {"shm_size": "{{ shm_size }}"},
        },
        "variables": {"type": "object", "properties": variables},
    }
    name = f"containers-{uuid4().hex[:8]}"
    client.create_work_pool(WorkPoolCreate(name=name, type="docker", base_job_template=template))
    return name


def runs_on(client, pool):
    return client.read_flow_runs(work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])))


def test_a_container_is_started_from_the_image_that_was_asked_for(
    client, containers, train_on, linear_project, tmp_path, monkeypatch
):
    """Nobody starts it here, so that the pipeline gives up; what the worker would be told is the server's."""
    monkeypatch.setenv("TRAINYARD_WORKER_WAIT_S", "1")
    train_on(containers)
    project = {"source_directory": str(linear_project), "entry_script": "train.py", "compute_target": containers}
    with pytest.raises(WorkerUnavailableError):
        training_pipeline(
            PyTorch(**project, custom_docker_image="registry.example.com/team/torch:1", shm_size="8g"),
            export=None,
            store=str(tmp_path / "store"),
        )
    [run] = runs_on(client, containers)
    assert run.job_variables == {"image": "registry.example.com/team/torch:1", "shm_size": "8g"}
    there = run.parameters["estimator"]
    assert (there["compute_target"], there["custom_docker_image"], there["shm_size"]) == ("local", None, None)


def test_what_a_pool_cannot_start_is_refused_at_once(client, pool, train_on, linear_project, tmp_path):
    train_on(pool)
    project = {"source_directory": str(linear_project), "entry_script": "train.py", "compute_target": pool}
    with pytest.raises(InvalidInputError) as refused:
        training_pipeline(
            PyTorch(**project, custom_docker_image="torch:1", shm_size="8g"), export=None, store=str(tmp_path / "store")
        )
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["custom_docker_image", "shm_size"]
    assert "(type process) starts no container" in str(refused.value)
    assert runs_on(client, pool) == []
