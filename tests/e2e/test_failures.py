"""What a user reads when something is wrong, and what is left behind."""

import os
import subprocess
import sys

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from pydantic import ValidationError

from tests.e2e.conftest import small_estimator
from tests.processes import wait_for
from trainyard import Datastore, OnnxExport, OrtValidation, PyTorch, StagePolicy, errors
from trainyard.flows.pipeline_run import PipelineRunner, policies_in_force
from trainyard.flows.preflight import check_inputs


def logs_of(run_id):
    with get_client(sync_client=True) as client:
        lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))
    return [line.message for line in lines]


def test_a_transient_error_is_retried_and_the_log_says_why(run_pipeline, tmp_path):
    attempts = tmp_path / "attempts"
    policies = {"train": StagePolicy(retries=2, retry_delay_s=0.1, jitter=0)}
    result = run_pipeline({"--fail-until": str(attempts)}, policies=policies, export=None)
    assert result.stages["train"].attempts == 2
    assert len(attempts.read_text().splitlines()) == 2

    def retries():  # one line has both; it comes a while after the run
        return [line for line in logs_of(result.run_id) if "Retry 1/2" in line]

    (said,) = wait_for(retries, 60)
    assert "ConnectionError: the network went away" in said


def test_a_transient_error_without_retries_ends_the_run(run_pipeline, tmp_path):
    with pytest.raises(errors.TrainingFailedError, match="ConnectionError: the network went away"):
        run_pipeline({"--fail-until": str(tmp_path / "attempts")}, export=None)


def test_a_permanent_error_is_not_retried(run_pipeline, home):
    policies = {"train": StagePolicy(retries=3, retry_delay_s=0.1)}
    with pytest.raises(errors.ScriptDefectError) as raised:
        run_pipeline({"--no-such-argument": 1}, policies=policies, export=None)
    assert "unrecognized arguments: --no-such-argument 1" in str(raised.value)
    assert len(list((home / "runs").iterdir())) == 1


def test_a_failing_script_is_named_with_its_traceback(run_pipeline, linear_project):
    script = linear_project / "train.py"
    script.write_text(script.read_text().replace("start = 0\n", "start = {}['missing']\n"))
    with pytest.raises(errors.ScriptDefectError) as raised:
        run_pipeline(export=None)
    message = str(raised.value)
    assert "Rank 0 on" in message
    assert "KeyError: 'missing'" in message
    assert "start = {}['missing']" in message
    assert "runpy" not in message


def test_the_rank_that_fails_first_is_named_and_the_others_do_not_hang(run_pipeline, home):
    mpi = {"process_count_per_node": 2, "distributed_backend": "mpi"}
    with pytest.raises(errors.ScriptDefectError) as raised:
        run_pipeline({"--raise-on-rank": 1}, estimator=mpi, export=None)
    message = str(raised.value)
    assert "Rank 1 on" in message
    assert "ValueError: this rank has had enough" in message
    (run,) = (home / "runs").iterdir()
    assert "this rank has had enough" in (run / "ranks" / "rank-00001.log").read_text()
    assert (run / "ranks" / "rank-00000.log").exists()


def test_a_training_that_takes_too_long_is_stopped(run_pipeline):
    with pytest.raises(errors.TrainingTimeoutError, match="within 3 seconds"):
        run_pipeline({"--nap": 600}, policies={"train": StagePolicy(timeout_s=3)}, export=None)


def test_a_stage_that_takes_too_long_is_named(run_pipeline):
    with pytest.raises(errors.StageTimeoutError, match=r"'export' did not finish within 0\.01 seconds"):
        run_pipeline(policies={"export": StagePolicy(timeout_s=0.01)})


def test_a_script_without_a_model_is_told_what_was_looked_for(run_pipeline):
    with pytest.raises(errors.ModelNotFoundError) as raised:
        run_pipeline({"--no-model": ""})
    assert ".pt2" in str(raised.value)
    assert "weights.bin" in str(raised.value)


def test_a_model_that_fails_its_gate_is_not_registered(run_pipeline, home):
    with pytest.raises(errors.ValidationFailedError, match="accuracy"):
        run_pipeline(validation=OrtValidation(min_metrics={"accuracy": 1.01}))
    assert not list((home / "store").glob("models/*/*"))


def test_a_model_that_answers_differently_in_onnx_runtime_is_not_registered(run_pipeline, home):
    with pytest.raises(errors.ValidationFailedError) as raised:
        run_pipeline({"--noisy": ""})
    assert "parity" in str(raised.value)
    assert raised.value.report_uri
    assert not list((home / "store").glob("models/*/*"))


RESUME = """
import sys
from trainyard import PyTorch, training_pipeline
result = training_pipeline(PyTorch.model_validate_json(sys.argv[1]))
print([name for name, outcome in result.stages.items() if outcome.status == "ran"])
"""


def test_a_run_that_failed_at_stage_five_goes_on_there_in_a_new_process(
    run_pipeline, prefect_server, home, linear_project, points
):
    with pytest.raises(errors.ValidationFailedError):
        run_pipeline(validation=OrtValidation(min_metrics={"accuracy": 1.01}))
    estimator = small_estimator(linear_project, points).model_dump_json()
    env = {**os.environ, "PREFECT_API_URL": prefect_server, "TRAINYARD_HOME": str(home)}
    command = [sys.executable, "-c", RESUME, estimator]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['validate', 'register']"


def test_all_problems_are_named_before_anything_is_launched(prefect_server, home, tmp_path):
    from trainyard import training_pipeline

    (tmp_path / "empty").mkdir()
    estimator = PyTorch(
        source_directory=str(tmp_path / "missing"),
        entry_script="train.py",
        script_params={
            "--a": Datastore(url="sthree://bucket/x"),
            "--b": Datastore(url=str(tmp_path / "nothing")),
            "--c": Datastore(url=str(tmp_path / "empty")),
        },
        compute_target="moon",
    )
    with pytest.raises(errors.InvalidInputError) as raised:
        training_pipeline(estimator, model_name="Not A Name", store="gopher://old/store")
    message = str(raised.value)
    expected = ["missing", "sthree", "nothing", "empty", "moon", "Not A Name", "gopher"]
    for part in expected:
        assert part in message
    assert len(raised.value.problems) == len(expected)

    elsewhere = estimator.model_copy(update={"compute_target": "hosts/no-such-block"})
    with pytest.raises(errors.InvalidInputError) as raised:
        check_inputs(elsewhere, "Not A Name", "gopher://old/store")
    message = str(raised.value)
    for part in [part for part in expected if part != "moon"] + ["no-such-block"]:
        assert part in message
    assert len(raised.value.problems) == len(expected)
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"process_count_per_node": 0}, "process_count_per_node"),
        ({"process_count_per_node": 2}, "distributed_backend"),
        ({"learning_rate": 1}, "learning_rate"),
        ({"entry_script": "../train.py"}, "outside"),
    ],
)
def test_a_wrong_estimator_is_refused(linear_project, points, changes, words):
    with pytest.raises(ValidationError, match=words):
        small_estimator(linear_project, points, **changes)


def test_a_pipeline_without_export_ends_after_the_metrics(run_pipeline):
    result = run_pipeline(export=None)
    assert list(result.stages) == ["stage", "train", "metrics"]
    assert (result.model_uri, result.onnx_path, result.validation) == (None, None, None)
    assert result.metrics["accuracy"] > 0.9


def test_the_exports_settings_are_checked():
    with pytest.raises(ValidationError):
        OnnxExport(opset=3)


def test_a_stage_that_gave_up_waiting_is_not_said_to_have_reached_a_time_limit(prefect_server, home, linear_project):
    @task
    def impatient(context):
        raise TimeoutError("the socket timed out")

    @flow
    def pipeline():
        estimator = PyTorch(source_directory=str(linear_project), entry_script="train.py")
        runner = PipelineRunner(estimator, "linear", policies_in_force({}), str(home / "store"), home)
        runner.stage("metrics", impatient)

    with pytest.raises(TimeoutError, match="the socket timed out"):
        pipeline()
