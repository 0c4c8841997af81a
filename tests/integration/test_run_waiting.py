"""Waiting for a run to end, while the server or the work pool is away."""

import io
import threading
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Completed, Failed, Running

from trainyard import PipelineResult, PipelineRun, errors
from trainyard.flows import pipeline_handle, run_waiting
from trainyard.flows.answers import Answer, Failure
from trainyard.flows.run_waiting import wait_for_end
from trainyard.tasks.artifacts.filesystem import Location

POOL = "waited-for"


@pytest.fixture(autouse=True)
def quick(monkeypatch, home):
    monkeypatch.setattr(run_waiting, "POLL_S", 0.1)
    monkeypatch.setattr(pipeline_handle, "SETTLE_S", 0.0)


@pytest.fixture
def server(prefect_server, prefect_proxy):
    """The server itself, past the proxy."""
    with SyncPrefectClient(prefect_server) as client:
        yield client


@pytest.fixture
def submitted(server, home):
    """A run that nobody has taken; its pool has no worker."""
    server.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
    flow_id = server.create_flow_from_name("waited-for")
    deployment = server.create_deployment(flow_id=flow_id, name="waited-for", work_pool_name=POOL)
    return PipelineRun(server.create_flow_run_from_deployment(deployment).id, store=f"file://{home}/store")


def answer(home, run, **answer):
    text = Answer(**answer).model_dump_json()
    (Location(f"file://{home}/store") / f"answers/{run.id}/answer.json").write_bytes(text.encode())


def result_of(run):
    return PipelineResult(run_id=run.id, metrics={"accuracy": 0.5}, stages={})


def end_after(proxy, num_failures, end):
    """End a run once the proxy has failed so often."""

    def ending():
        while len(proxy.failed) < num_failures:
            threading.Event().wait(0.05)
        end()

    thread = threading.Thread(target=ending, daemon=True)
    thread.start()


def test_a_server_that_is_away_for_a_while_ends_no_wait(prefect_proxy, server, submitted, home, monkeypatch):
    monkeypatch.setenv("TRAINYARD_WORKER_WAIT_S", "0")
    server.set_flow_run_state(submitted.id, Running(), force=True)
    answer(home, submitted, value=result_of(submitted).model_dump(mode="json"))
    failing = iter([0, 502, 503, 500, 429])
    passed = []

    def fault(method, path):
        if "/flow_runs/" not in path:
            return None
        passed.append(path)
        return next(failing, None) if len(passed) > 1 else None

    prefect_proxy.fault = fault
    end_after(prefect_proxy, 5, lambda: server.set_flow_run_state(submitted.id, Completed(), force=True))
    assert submitted.wait_for_completion() == result_of(submitted)
    assert len(prefect_proxy.failed) == 5


def test_a_server_that_stays_away_ends_it(prefect_proxy, server, submitted, monkeypatch):
    monkeypatch.setattr(run_waiting, "PATIENCE_S", 0.5)
    server.set_flow_run_state(submitted.id, Running(), force=True)
    prefect_proxy.fail("/flow_runs/")
    with get_client(sync_client=True) as client, pytest.raises(errors.PrefectUnavailableError, match=r"for 0\.5 s"):
        wait_for_end(client, submitted._id)
    assert len(prefect_proxy.failed) > 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_is_not_asked_again(prefect_proxy, server, submitted, status):
    prefect_proxy.fail("/flow_runs/", status)
    with get_client(sync_client=True) as client, pytest.raises(errors.PrefectUnavailableError, match="refused us"):
        wait_for_end(client, submitted._id)
    assert len(prefect_proxy.failed) == 1


def test_lines_that_do_not_come_lose_no_result(prefect_proxy, server, submitted, home, caplog):
    server.set_flow_run_state(submitted.id, Completed(), force=True)
    answer(home, submitted, value=result_of(submitted).model_dump(mode="json"))
    prefect_proxy.fail("/logs/filter", 500)
    assert submitted.wait_for_completion(show_output=True, output=io.StringIO()) == result_of(submitted)
    assert len(prefect_proxy.failed) == 2, "as it was followed, and after its end"
    assert "log are not shown" in caplog.text


def test_a_run_that_was_not_followed_to_its_end_is_not_one_that_failed(server, submitted, home, monkeypatch):
    monkeypatch.setenv("TRAINYARD_WORKER_WAIT_S", "0")
    with pytest.raises(errors.WorkerUnavailableError, match=f"worker start --pool {POOL}"):
        submitted.wait_for_completion(raise_on_error=False)
    with pytest.raises(errors.InvalidInputError, match="has no run"):
        PipelineRun(uuid4()).wait_for_completion(raise_on_error=False)

    server.set_flow_run_state(submitted.id, Failed(), force=True)
    answer(home, submitted, failure=Failure.of(errors.WorkerUnavailableError("of its training's pool")))
    assert submitted.wait_for_completion(raise_on_error=False) is None
    with pytest.raises(errors.WorkerUnavailableError, match="of its training's pool"):
        submitted.wait_for_completion()


def test_a_run_that_is_deleted_while_it_is_waited_for_is_said_to_be(server, submitted):
    server.delete_flow_run(submitted._id)
    with get_client(sync_client=True) as client, pytest.raises(errors.RunCancelledError, match="was deleted"):
        wait_for_end(client, submitted._id)
