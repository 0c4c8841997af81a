"""A Prefect server that fails at the moment of a training's request: an error that another attempt may survive."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate

from trainyard import PyTorch, errors
from trainyard.flows import pool_training, run_waiting
from trainyard.flows.pipeline_run import policies_in_force
from trainyard.flows.pool_training import train_on_pool
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.gpu_slots import gpu_slots


@pytest.fixture
def limit(prefect_server_itself):
    """A limit of two slots, of another name in each test: Prefect goes on asking for one where it first did."""
    client, name = prefect_server_itself, f"lent-{uuid4()}"
    client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=2))
    return Limit(name, lambda: client.read_global_concurrency_limit_by_name(name).active_slots)


@dataclass
class Limit:
    name: str
    num_held: Callable[[], int]


@pytest.mark.parametrize("request_that_fails", ["/v2/concurrency_limits/lent-", "/increment-with-lease"])
@pytest.mark.parametrize("status", [0, 500])
def test_gpu_slots_that_are_not_lent_now_may_be_later(prefect_proxy, limit, request_that_fails, status):
    prefect_proxy.fail(request_that_fails, status)
    with pytest.raises(errors.PrefectUnavailableError, match="2 GPU slots of 'lent-"), gpu_slots(limit.name, 2):
        raise AssertionError("trained without slots")
    assert prefect_proxy.failed
    assert limit.num_held() == 0


def test_an_error_of_the_training_stays_what_it_is(prefect_proxy, limit):
    with pytest.raises(httpx.ReadError, match="of the script"), gpu_slots(limit.name, 2):
        assert limit.num_held() == 2
        raise httpx.ReadError("of the script")
    assert limit.num_held() == 0


def test_slots_that_are_not_taken_back_lose_neither_result_nor_error(prefect_proxy, limit, caplog):
    with gpu_slots(limit.name, 1):
        prefect_proxy.fail("/decrement-with-lease")
    assert prefect_proxy.failed
    assert "free in 60 s" in caplog.text
    prefect_proxy.fail("nothing")
    with pytest.raises(errors.ScriptDefectError, match="line 3"), gpu_slots(limit.name, 1):
        prefect_proxy.fail("/decrement-with-lease")
        raise errors.ScriptDefectError("line 3")
    assert prefect_proxy.failed


@pytest.fixture
def train_there(prefect_server_itself, prefect_proxy, home, linear_project, monkeypatch):
    """Trains once on a pool, in whose place the test answers; gives the attempt's error."""
    monkeypatch.setattr(run_waiting, "POLL_S", 0.1)
    client = prefect_server_itself
    client.create_work_pool(WorkPoolCreate(name="far", type="process"), overwrite=True)
    ours = {"entrypoint": "trainyard.flows.train.train", "tags": ["trainyard"], "work_pool_name": "far"}
    client.create_deployment(flow_id=client.create_flow_from_name("train"), name="train", **ours)

    @flow
    def pipeline():
        estimator = PyTorch(source_directory=str(linear_project), entry_script="train.py", compute_target="far")
        policies = {name: policy for name, policy in policies_in_force({}).items() if name in ("stage", "train")}
        context = StageContext(store_url=f"file://{home}/store", home=home)
        state = train_on_pool("far", estimator, policies, context, return_state=True)
        prefect_proxy.fault = lambda method, path: None
        return state.result(raise_on_failure=False)

    return pipeline


@pytest.mark.parametrize(
    "request_that_fails", ["/work_pools/far", "/deployments/filter", "/create_flow_run", "/flow_runs/"]
)
def test_a_training_that_cannot_be_started_now_may_be_later(
    prefect_proxy, train_there, monkeypatch, request_that_fails
):
    monkeypatch.setattr(run_waiting, "PATIENCE_S", 0.3)
    monkeypatch.setattr(pool_training, "trained_before", begin_to_fail(prefect_proxy, request_that_fails))
    error = train_there()
    assert prefect_proxy.failed
    assert isinstance(error, errors.PrefectUnavailableError), repr(error)


def begin_to_fail(proxy, part):
    """Nothing was trained before; from there on the server fails."""

    def trained_before(*arguments):
        proxy.fail(part, 500)

    return trained_before
