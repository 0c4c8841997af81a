"""Waiting for a run to end, while the server or the work pool is away."""

import io
import threading
import time
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Completed, Crashed, Failed, Running

from trainyard import PipelineResult, PipelineRun, errors
from trainyard.flows import pipeline_handle, run_waiting
from trainyard.flows.answers import Answer, Failure
from trainyard.flows.run_waiting import RETRY_AUTOMATION, wait_for_end
from trainyard.tasks.artifacts.location import Location

POOL = "waited-for"


@pytest.fixture(autouse=True)
def quick(monkeypatch, home):
    monkeypatch.setattr(run_waiting, "POLL_S", 0.1)
    monkeypatch.setattr(pipeline_handle, "SETTLE_S", 0.0)


@pytest.fixture
def server(prefect_server_itself):
    return prefect_server_itself


@pytest.fixture
def submitted(server, home):
    """A run that nobody has taken; its pool has no worker."""
    with suppress(ObjectNotFound):
        server.delete_work_pool(POOL)  # with the workers, queues and runs of another test
    server.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    flow_id = server.create_flow_from_name("waited-for")
    deployment = server.create_deployment(flow_id=flow_id, name="waited-for", work_pool_name=POOL)
    return PipelineRun(server.create_flow_run_from_deployment(deployment).id, store=f"file://{home}/store")


def answer(home, run, **answer):
    text = Answer(**answer).model_dump_json()
    (Location(f"file://{home}/store") / f"answers/{run.id}/answer.json").write_bytes(text.encode())


def result_of(run):
    return PipelineResult(run_id=run.id, metrics={"accuracy": 0.5}, stages={})


@pytest.fixture
def restarting(server):
    """There is the automation that starts crashed pipelines again after two seconds; the tests do what it does."""
    trigger = EventTrigger(
        expect={"nothing.that.happens"}, posture=Posture.Reactive, threshold=1, within=timedelta(seconds=2)
    )
    made = server.create_automation(AutomationCore(name=RETRY_AUTOMATION, trigger=trigger, actions=[DoNothing()]))
    yield
    server.delete_automation(made)


def crash(server, run):
    server.set_flow_run_state(run._id, Running())
    server.set_flow_run_state(run._id, Crashed())


def test_a_pipeline_that_crashed_and_is_started_again_is_waited_for(submitted, server, home, restarting):
    def start_again():
        for state in (AwaitingRetry(), Running(), Completed()):
            server.set_flow_run_state(submitted._id, state)

    crash(server, submitted)
    answer(home, submitted, value=result_of(submitted).model_dump(mode="json"))
    timer = threading.Timer(1.0, start_again)
    timer.start()
    assert submitted.wait_for_completion() == result_of(submitted)
    assert submitted.get_status() == "Completed", "which was waited for"
    timer.join()


def test_a_crash_is_the_end_where_nothing_starts_the_pipeline_again(submitted, server, restarting, monkeypatch):
    monkeypatch.setattr(run_waiting, "RESTART_SLACK_S", 1.0)
    crash(server, submitted)
    began = time.monotonic()
    with pytest.raises(errors.TrainingFailedError, match="ended as Crashed"):
        submitted.wait_for_completion()
    assert time.monotonic() - began >= 3.0, "what the automation waits for, and a little"


def test_a_crash_is_the_end_at_once_without_the_automation(submitted, server):
    crash(server, submitted)
    began = time.monotonic()
    with pytest.raises(errors.TrainingFailedError, match="ended as Crashed"):
        submitted.wait_for_completion()
    assert time.monotonic() - began < run_waiting.RESTART_SLACK_S / 2


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


def paused_pool(server, run):
    server.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))


def paused_queue(server, run):
    server.update_work_queue(server.read_flow_run(run._id).work_queue_id, is_paused=True)


def deleted_pool(server, run):
    server.delete_work_pool(POOL)


@pytest.fixture
def worker(server, submitted):
    """A live worker of the pool, as far as the server knows."""
    server.send_worker_heartbeat(POOL, "busy", heartbeat_interval_seconds=600)


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (paused_pool, f"'{POOL}' is paused: prefect work-pool resume {POOL}"),
        (paused_queue, f"queue 'default' .* is paused: prefect work-queue resume default --pool {POOL}"),
        (deleted_pool, f"no work pool '{POOL}'"),
    ],
)
@pytest.mark.parametrize("is_followed", [True, False], ids=["the pipeline", "its training"])
def test_a_pool_that_starts_nothing_is_an_error_after_a_while(
    server, submitted, worker, monkeypatch, happens, words, is_followed
):
    monkeypatch.setenv("TRAINYARD_WORKER_WAIT_S", "0.5")
    happen_once(monkeypatch, lambda: happens(server, submitted))
    with pytest.raises(errors.WorkerUnavailableError, match=words):
        if is_followed:
            submitted.wait_for_completion()
        else:
            with get_client(sync_client=True) as client:
                wait_for_end(client, submitted._id, pool=POOL)
    assert server.read_flow_run(submitted._id).state.is_scheduled(), "it is left as it is"


def happen_once(monkeypatch, event):
    """After the first look at the pool."""
    looked, look = [], run_waiting.live_workers

    def looking(client, pool):
        workers = look(client, pool)
        if not looked:
            event()
        looked.append(pool)
        return workers

    monkeypatch.setattr(run_waiting, "live_workers", looking)


def test_a_wait_for_busy_workers_has_no_end_and_is_not_silent(server, submitted, worker, home, monkeypatch):
    monkeypatch.setenv("TRAINYARD_WORKER_WAIT_S", "0")
    monkeypatch.setattr(run_waiting, "REMIND_S", 0.3)
    answer(home, submitted, value=result_of(submitted).model_dump(mode="json"))

    class Output(io.StringIO):
        def write(self, text):
            if self.getvalue().count("has not been started yet") == 2:
                server.set_flow_run_state(submitted.id, Completed(), force=True)
            return super().write(text)

    output = Output()
    assert submitted.wait_for_completion(show_output=True, output=output) == result_of(submitted)
    assert f"the live workers of the work pool '{POOL}' (1) are busy" in output.getvalue()


def test_a_run_that_is_deleted_while_it_is_waited_for_is_said_to_be(server, submitted):
    server.delete_flow_run(submitted._id)
    with get_client(sync_client=True) as client, pytest.raises(errors.RunCancelledError, match="was deleted"):
        wait_for_end(client, submitted._id)
