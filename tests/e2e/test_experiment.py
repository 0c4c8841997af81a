"""Submitted to a deployment: followed, read, cancelled."""

import http.server
import io
import threading
from datetime import timedelta
from uuid import UUID

import pytest
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.states import Crashed, Running

from tests.e2e.conftest import small_estimator
from tests.e2e.yard import runs_below
from tests.processes import CANCEL_POLL_S, LIMIT_S, are_gone, command_of, describe, marked, wait_for
from trainyard import Experiment, PipelineRun, errors
from trainyard.flows.answers import Failure
from trainyard.flows.pipeline_run import MAX_CRASHES


@pytest.fixture
def on_yard(yard, monkeypatch):
    """This process as a client of the yard."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("TRAINYARD_HOME", str(yard.home / "client"))
    monkeypatch.setenv("TRAINYARD_STORE", yard.store)
    with temporary_settings({PREFECT_API_URL: yard.api_url}):
        yield yard


def test_a_run_is_followed_to_its_end_and_its_files_are_read(on_yard, linear_project, points, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths are those of who submits
    estimator = small_estimator("linear", "points", script_params={"--seed": 11}, compute_target="gpu")
    run = Experiment("lines").submit(estimator, export=None, model_name="lines")
    assert run.get_portal_url().startswith(on_yard.api_url.removesuffix("/api"))

    output = io.StringIO()
    result = run.wait_for_completion(show_output=True, output=output)
    assert run.get_status() == "Completed"
    assert result.run_id == run.id
    assert run.get_metrics() == result.metrics
    assert "training for 10 epochs" in output.getvalue(), "the ranks' lines, from the pool"
    assert {"outputs/model.pt2", "logs/ranks/rank-00000.log"} <= set(run.get_file_names())
    copy = run.download_file("outputs/model.pt2", tmp_path)
    assert copy == tmp_path / "model.pt2"
    assert copy.stat().st_size > 1000
    with pytest.raises(errors.InvalidInputError, match=r"outputs/model\.pt2"):
        run.download_file("outputs/other.pt2")
    assert [found.id for found in Experiment("lines").get_runs()] == [run.id]
    run.cancel()
    assert run.get_status() == "Completed", "what has ended is not cancelled"
    assert PipelineRun(run.id, store=on_yard.store).get_metrics() == result.metrics


def test_cancelling_it_ends_all_processes_on_both_pools(on_yard, linear_project, points, mark, training):
    mpi = {"compute_target": "gpu", "process_count_per_node": 2, "distributed_backend": "mpi"}
    asked = {**mpi, "environment_variables": {"MARK": mark}}
    run = Experiment("lines").submit(small_estimator(linear_project, points, script_params={"--nap": 600}, **asked))
    assert wait_for(training, 120)
    assert marked(mark)
    workers = [on_yard.service(name) for name in ("worker-cpu", "worker-gpu")]
    below = [process for family in workers for process in family[1:]]
    assert all(len(family) > 1 for family in workers)
    run.cancel()
    seen_by_both_s = 2 * CANCEL_POLL_S  # the pipeline's worker ends it, and it asks for the end of its training
    assert wait_for(lambda: not marked(mark), seen_by_both_s + LIMIT_S), describe(marked(mark))
    with pytest.raises(errors.RunCancelledError):
        run.wait_for_completion()
    assert run.get_status() == "Cancelled"
    assert wait_for(lambda: are_gone(below), LIMIT_S)


def test_a_failed_run_raises_what_it_raised_there(on_yard, linear_project, points):
    wrong = small_estimator(linear_project, points, script_params={"--no-such-argument": 1}, compute_target="gpu")
    run = Experiment("lines").submit(wrong, policies={"train": {"retries": 2}})
    with pytest.raises(errors.ScriptDefectError, match="unrecognized arguments"):
        run.wait_for_completion()
    assert run.get_status() == "Failed"
    assert run.get_metrics() == {}
    assert len(runs_below(on_yard, run.id)) == 1, "a permanent error is not retried"


def test_a_run_that_no_worker_takes_is_an_error_after_a_while(on_yard, linear_project, points, monkeypatch):
    with on_yard.client() as client:
        client.create_work_pool(WorkPoolCreate(name="empty", type="process"), overwrite=True)
        flow_id = client.create_flow_from_name("training-pipeline")
        client.create_deployment(flow_id=flow_id, name="empty", work_pool_name="empty")
    monkeypatch.setenv("TRAINYARD_WORKER_WAIT_S", "3")
    experiment = Experiment("lines", deployment="training-pipeline/empty")
    run = experiment.submit(small_estimator(linear_project, points))
    with pytest.raises(
        errors.WorkerUnavailableError, match=r"for 0:00:03: the work pool 'empty' has no live.*start --pool empty"
    ):
        run.wait_for_completion()
    run.cancel()
    assert run.get_status() == "Cancelled"


def test_a_pipeline_that_is_killed_is_started_again_once(on_yard, linear_project, points):
    """Prefect's worker reports its death twice, the second time some seconds later."""

    def processes():
        engines = [process for process in on_yard.service("worker-cpu") if "prefect.engine" in command_of(process)]
        return [process for process in engines if process in marked(run.id)]

    before = set(on_yard.home.glob("checkpoints/*/last.pt"))
    job = small_estimator(linear_project, points, script_params={"--epochs": 8, "--nap": 1, "--seed": 12})
    run = Experiment("lines").submit(job, export=None)
    assert wait_for(lambda: set(on_yard.home.glob("checkpoints/*/last.pt")) - before, 120)
    (killed,) = processes()
    killed.kill()
    result = run.wait_for_completion()
    assert result.metrics["started_at_epoch"] > 0
    with on_yard.client() as client:
        assert client.read_flow_run(run.id).run_count == 2
        names = [state.name for state in client.read_flow_run_states(UUID(run.id))]
    assert [names.count(name) for name in ("Crashed", "AwaitingRetry", "Completed")] == [1, 1, 1], names


@pytest.fixture
def wait_less_before_a_retry():
    """Has the automation of a yard wait no longer than Prefect allows it, until the test ends."""
    as_it_was = []

    def change(yard):
        with yard.client() as client:
            [rule] = client.read_automations_by_name("trainyard-retry-crashed")
            # What the server itself adds, and what is not set, it refuses.
            known = {name: value for name in AutomationCore.model_fields if (value := getattr(rule, name)) is not None}
            as_it_was.append((yard, rule.id, AutomationCore(**known)))
            trigger = rule.trigger.model_copy(update={"within": timedelta(seconds=10)})
            client.update_automation(rule.id, AutomationCore(**{**known, "trigger": trigger}))

    yield change
    for yard, rule_id, rule in as_it_was:
        with yard.client() as client:
            client.update_automation(rule_id, rule)


def test_a_run_that_crashes_again_and_again_is_started_again_three_times(
    on_yard, linear_project, points, wait_less_before_a_retry
):
    """The automation starts crashed runs again and cannot count: the run itself does."""
    wait_less_before_a_retry(on_yard)

    def state_is(name):
        with on_yard.client() as client:
            return client.read_flow_run(run.id).state_name == name

    def stop_the_pool(stopped):
        with on_yard.client() as client:
            client.update_work_pool("cpu", WorkPoolUpdate(is_paused=stopped))

    stop_the_pool(True)  # the crashes come from here, one after the other: nobody else may start the run
    try:
        run = Experiment("lines").submit(small_estimator(linear_project, points), export=None)
        for _ in range(MAX_CRASHES):
            with on_yard.client() as client:
                client.set_flow_run_state(run.id, Running(), force=True)
                client.set_flow_run_state(run.id, Crashed(message="the machine is gone"), force=True)
            assert wait_for(lambda: state_is("AwaitingRetry"), 60), "after 10 seconds"
    finally:
        stop_the_pool(False)
    with pytest.raises(errors.RunCancelledError, match="crashed 4 times and is not started again"):
        run.wait_for_completion()
    assert run.get_status() == "Failed", "which starts nothing again"
    assert runs_below(on_yard, run.id) == []


def test_wrong_arguments_and_deployments_are_refused_at_once(on_yard, linear_project, points):
    estimator = small_estimator(linear_project, points)
    with pytest.raises(errors.InvalidInputError, match="modelname"):
        Experiment("lines").submit(estimator, modelname="x")
    with pytest.raises(errors.InvalidInputError, match="trainyard deploy"):
        Experiment("lines", deployment="training-pipeline/elsewhere").submit(estimator)
    with pytest.raises(errors.InvalidInputError, match="has no run"):
        PipelineRun("00000000-0000-0000-0000-000000000000").get_status()


def test_a_server_that_does_not_answer_is_one_error(linear_project, points, home):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(errors.PrefectUnavailableError, match="PREFECT_API_URL"),
    ):
        Experiment("lines").submit(small_estimator(linear_project, points))


def test_a_server_of_an_old_version_is_said_to_be_one(linear_project, points, home):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    class Old(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'"2.20.0"' if self.path.endswith("/admin/version") else b"{}")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with (
            temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}),
            pytest.raises(errors.PrefectUnavailableError, match=r"server: 2\.20\.0.*Upgrade the Prefect server"),
        ):
            Experiment("lines").submit(small_estimator(linear_project, points))
        server.shutdown()


def test_every_error_comes_back_as_it_was():
    error = errors.TrainingFailedError("rank 1 died", rank=1, exit_code=-9)
    again = Failure.model_validate_json(Failure.of(error).model_dump_json()).error()
    assert (type(again), str(again), again.rank, again.exit_code) == (errors.TrainingFailedError, "rank 1 died", 1, -9)
    foreign = Failure.of(KeyError("x")).error()
    assert type(foreign) is errors.PipelineError
    assert "KeyError" in str(foreign)
