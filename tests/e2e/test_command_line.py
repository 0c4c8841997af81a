"""The main job from the command line, as ``make run`` runs it, and what a person reads when it cannot run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINYARD = Path(sys.executable).with_name("trainyard")


@pytest.fixture
def trainyard(prefect_server, home):
    """Run the console script against the test server."""

    def run(*arguments, check=0):
        env = {**os.environ, "PREFECT_API_URL": prefect_server, "TRAINYARD_HOME": str(home)}
        command = [str(TRAINYARD), *map(str, arguments)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, cwd=ROOT)
        assert done.returncode == check, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def digits(tmp_path):
    """The options that point the example at a datastore of the test's own."""
    prepare = [sys.executable, str(ROOT / "examples" / "prepare_digits.py"), "--to", str(tmp_path / "digits")]
    subprocess.run(prepare, check=True)
    return [
        ROOT / "examples" / "digits.yaml",
        "--set",
        f"estimator.script_params.--data-dir.datastore.url={tmp_path}/digits",
    ]


def test_the_digits_on_two_ranks_then_cached_then_from_a_stage_on_then_short_of_what_is_asked(trainyard, digits):
    first = json.loads(trainyard("run", *digits, "--json").stdout)
    assert first["metrics"]["accuracy"] >= 0.95
    assert first["validation"]["passed"]
    assert first["validation"]["num_samples"] == 359  # the held-out fifth of 1,797
    assert first["validation"]["metrics"]["accuracy"] == pytest.approx(first["metrics"]["accuracy"])
    assert {stage["status"] for stage in first["stages"].values()} == {"ran"}
    assert Path(first["onnx_path"]).is_file()

    again = trainyard("run", *digits)
    for words in ("cached", "accuracy", "passed", first["model_uri"], "http://"):
        assert words in again.stdout
    assert " ran " not in again.stdout

    later = json.loads(trainyard("run", *digits, "--from-stage", "export", "--json").stdout)
    that_ran = [name for name, stage in later["stages"].items() if stage["status"] == "ran"]
    assert that_ran == ["export", "validate", "register"]

    failed = trainyard("run", *digits, "--set", "validation.min_metrics.accuracy=1.01", check=1)
    assert "accuracy" in failed.stderr


def test_bad_input_is_one_message_and_exit_status_2(trainyard, digits):
    """What the schema refuses, and what only a look at the machine and the data shows."""
    wrong = {
        "estimator.node_cuont": "2",
        "estimator.entry_script": "trian.py",
        "estimator.use_gpu": "maybe",
        "estimator.inputs.A": "nothing-there",
        "estimator.inputs.B": "sthree://bucket/x",
        "estimator.compute_target": "moon",
        "validation.atol": "-1",
        "model_name": "Not A Name",
    }
    settings = [word for name, value in wrong.items() for word in ("--set", f"{name}={value}")]
    message = " ".join(trainyard("run", *digits, *settings, check=2).stderr.split())
    expected = [
        "did you mean 'node_count'",
        "entry_script 'trian.py' is not a file",
        "estimator.use_gpu: Input should be a valid boolean",
        "validation.atol: Input should be greater",
        "Nothing found at file://",
        "unknown scheme 'sthree'",
        "compute_target 'moon' is neither",
        "model_name 'Not A Name'",
    ]
    for words in expected:
        assert message.count(words) == 1, (words, message)
    assert f"{len(expected)} problems; nothing was launched" in message
    assert "Traceback" not in message
    assert "flow run" not in message.lower(), "no run was begun for it"


def test_an_unknown_stage_is_refused(trainyard, digits):
    assert "the stages are stage, train" in trainyard("run", *digits, "--refresh", "trian", check=2).stderr


def test_a_failing_script_is_said_once_and_at_the_end(trainyard, prefect_server, linear_project, points, tmp_path):
    script = linear_project / "train.py"
    script.write_text("print('begun')\n\ndef fit():\n    raise KeyError('no such weight')\n\nfit()\n")
    estimator = {"source_directory": str(linear_project), "entry_script": "train.py"}
    (tmp_path / "pipeline.json").write_text(json.dumps({"estimator": estimator, "export": None}))
    lines = trainyard("run", tmp_path / "pipeline.json", check=1).stderr.splitlines()
    said = "\n".join(line for line in lines if "[rank 0]" not in line)  # without what the script itself printed
    before, message = said.split("\nScriptDefectError: ")
    assert message.startswith("Rank 0 on")
    assert "line 4, in fit" in message
    assert message.count("Traceback (most recent call last)") == 1
    assert message.splitlines()[-1].endswith("rank-00000.log")
    assert "Finished in state Failed: ScriptDefectError" in before
    assert "no such weight" not in before
    assert "Traceback" not in before

    assert "prefect/task_engine.py" in logs_of_latest_run(prefect_server), "the server's logs keep all of it"


def logs_of_latest_run(api_url):
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import FlowRunSort

    with SyncPrefectClient(api_url) as client:
        (run,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    return "\n".join(line.message for line in lines)


def test_a_server_that_does_not_answer_is_one_sentence(home, digits):
    env = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "TRAINYARD_HOME": str(home)}
    command = [str(TRAINYARD), "run", *map(str, digits)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "Start that server" in done.stderr and "trainyard up" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version(trainyard):
    assert trainyard("--version").stdout.startswith("trainyard 0.")
