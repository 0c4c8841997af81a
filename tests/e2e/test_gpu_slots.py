"""Which limit counts the GPUs of a training that runs where its pipeline does: on a worker of a pool, or on none."""

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.flow_engine import run_flow

from trainyard import PyTorch
from trainyard.deployments.deploy.wanted import Options, wanted_resources
from trainyard.flows import train as flow_on_pool
from trainyard.flows.pipeline_run import PipelineRunner, policies_in_force
from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.caching.stage import StageContext, StageResult
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.training import task as training_task


def run_on_pool(flow, pool, **parameters):
    """Run a flow in this process as a worker of a pool would."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"), overwrite=True)
        flow_id = client.create_flow(flow)
        deployment = client.create_deployment(flow_id=flow_id, name=pool, work_pool_name=pool)
        flow_run = client.create_flow_run_from_deployment(deployment)
    run_flow(flow, flow_run=flow_run, parameters=parameters, return_type="state")


def slots_held(limit):
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(limit).active_slots


@pytest.fixture
def used():
    """The limits under which was trained."""
    return []


@pytest.fixture
def train(used):
    """Stands for the task; the machine needs no GPU."""

    @task
    def train(estimator, data, context, slots=None):
        used.append(slots)
        raise KeyError("trained enough")

    return train


@pytest.fixture
def slots_used(prefect_server, home, linear_project, used, train):
    """Runs a pipeline's training as a worker of a pool would; gives the limit under which it trained."""

    @task
    def stage(references, context):
        return as_state(StageResult(product=StagedData(datasets=()), status="ran", cache_key=None, num_bytes=0))

    @flow(name="training-where-it-runs")
    def pipeline(use_gpu):
        estimator = PyTorch(source_directory=str(linear_project), entry_script="train.py", use_gpu=use_gpu)
        PipelineRunner(estimator, "linear", policies_in_force({}), str(home / "store"), home).training(stage, train)

    def run(pool, use_gpu=True):
        if pool is None:
            run_flow(pipeline, parameters={"use_gpu": use_gpu}, return_type="state")
        else:
            run_on_pool(pipeline, pool, use_gpu=use_gpu)
        return used.pop()

    return run


def test_a_pipeline_on_a_pool_with_a_limit_holds_its_slots_where_it_uses_gpus(slots_used):
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="counted", limit=1))
    assert slots_used("counted") == "counted"
    assert slots_used("counted", use_gpu=False) is None
    assert slots_used("uncounted") is None
    assert slots_used(None) is None


def test_what_a_pool_trains_for_a_pipeline_elsewhere_holds_the_slots_of_that_pool(
    prefect_server, home, linear_project, used, train, monkeypatch
):
    monkeypatch.setattr(flow_on_pool, "train_task", train)
    estimator = PyTorch(source_directory=str(linear_project), entry_script="train.py")
    run_on_pool(flow_on_pool.train, "counts-its-own", estimator=estimator)
    assert used == ["counts-its-own"]


def test_training_holds_a_slot_for_each_rank_on_a_gpu_and_gives_them_back(
    prefect_server, home, linear_project, monkeypatch
):
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="two-gpus", limit=2))
    held = []

    def train_model(*arguments):
        held.append(slots_held("two-gpus"))
        raise KeyError("trained enough")

    monkeypatch.setattr(training_task, "train_model", train_model)

    @flow(name="training-holds-slots")
    def trains(use_gpu):
        estimator = PyTorch(
            source_directory=str(linear_project),
            entry_script="train.py",
            process_count_per_node=2,
            distributed_backend="mpi",
            use_gpu=use_gpu,
        )
        context = StageContext(store_url=str(home / "store"), home=home)
        training_task.train(estimator, StagedData(datasets=()), context, slots="two-gpus")

    for use_gpu in (True, False):
        with pytest.raises(KeyError, match="trained enough"):
            trains(use_gpu)
        assert slots_held("two-gpus") == 0
    assert held == [2, 0]


def test_each_pool_that_can_train_has_a_limit_which_stays_as_somebody_set_it(prefect_server, tmp_path):
    def limits(*pools):
        options = Options(project=tmp_path, gpus=8, train_on=pools)
        return [item for item in wanted_resources(options) if item.kind == "concurrency limit"]

    assert {limit.name: limit.wanted["limit"] for limit in limits()} == {"gpu": 8}
    assert {limit.name: limit.wanted["limit"] for limit in limits("a100", "gpu", "a100")} == {"gpu": 8, "a100": 1}
    (limit,) = [limit for limit in limits("a100") if limit.name == "a100"]
    with get_client(sync_client=True) as client:
        assert limit.find(client) is None
        limit.put(client)
        client.upsert_global_concurrency_limit_by_name("a100", 4)
        (again,) = [limit for limit in limits("a100") if limit.name == "a100"]
        assert again.find(client) == again.wanted == {"limit": 4}
