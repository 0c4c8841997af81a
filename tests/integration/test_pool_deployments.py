"""The deployment that trains on a work pool: which it is, and what it needs of the machines there."""

import os
import subprocess
import sys
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate

from tests.integration.deployed import passing_client
from trainyard import PyTorch
from trainyard.deployments.deploy.plan import apply, plan
from trainyard.deployments.deploy.wanted import Options, wanted_resources
from trainyard.flows.pool_training import _run_child
from trainyard.flows.work_pools import training_deployment
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import InvalidInputError, WorkerLostError


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
