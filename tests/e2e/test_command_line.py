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


def test_the_digits_on_two_ranks_then_from_the_cache(trainyard, digits):
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


def test_bad_input_is_one_message_and_exit_status_2(trainyard, digits):
    wrong = ["--set", "estimator.node_cuont=2", "--set", "estimator.entry_script=trian.py"]
    message = " ".join(trainyard("run", *digits, *wrong, check=2).stderr.split())
    assert "2 problems; nothing was launched" in message
    assert "did you mean 'node_count'" in message
    assert "trian.py" in message
    assert "Traceback" not in message


def test_an_unknown_stage_is_refused(trainyard, digits):
    assert "the stages are stage, train" in trainyard("run", *digits, "--refresh", "trian", check=2).stderr


def test_a_failed_run_has_exit_status_1(trainyard, digits):
    impossible = ["--set", "validation.min_metrics.accuracy=1.01", "--set", "estimator.script_params.--epochs=1"]
    assert "accuracy" in trainyard("run", *digits, *impossible, check=1).stderr


def test_a_server_that_does_not_answer_is_one_sentence(home, digits):
    env = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "TRAINYARD_HOME": str(home)}
    command = [str(TRAINYARD), "run", *map(str, digits)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "prefect server start" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version(trainyard):
    assert trainyard("--version").stdout.startswith("trainyard 0.")
