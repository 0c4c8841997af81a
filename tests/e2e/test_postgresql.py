"""The settings of docs/production: a server on PostgreSQL, with a password, and the pipeline through it."""

import json
import os
import subprocess
import sys

import httpx
import pytest

from tests.e2e.prefect_servers import prefect_server_on
from tests.integration.postgresql import missing, run_postgresql

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

SECRET = "somebody:not-easily-guessed"


@pytest.fixture
def server(tmp_path):
    """The API's address of a server on PostgreSQL."""
    with (
        run_postgresql() as database,
        prefect_server_on(
            tmp_path,
            auth=SECRET,
            PREFECT_HOME=str(tmp_path / "prefect"),
            PREFECT_SERVER_DATABASE_CONNECTION_URL=database,
        ) as address,
    ):
        yield address


def test_the_pipeline_runs_through_a_server_on_postgresql_and_no_stranger_does(
    server, home, linear_project, points, tmp_path
):
    estimator = {"source_directory": str(linear_project), "entry_script": "train.py"}
    estimator["script_params"] = {"--data-dir": {"url": str(points)}}
    (tmp_path / "pipeline.json").write_text(json.dumps({"estimator": estimator, "export": None}))
    command = [sys.executable, "-m", "trainyard", "run", str(tmp_path / "pipeline.json"), "--json"]
    env = {**os.environ, "PREFECT_API_URL": server, "TRAINYARD_HOME": str(home)}

    stranger = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert stranger.returncode == 1
    assert "PREFECT_API_AUTH_STRING" in stranger.stderr
    assert "Traceback" not in stranger.stderr

    member = subprocess.run(
        command, env={**env, "PREFECT_API_AUTH_STRING": SECRET}, capture_output=True, text=True, timeout=240
    )
    assert member.returncode == 0, member.stderr
    run_id = json.loads(member.stdout)["run_id"]
    known = httpx.get(f"{server}/flow_runs/{run_id}", auth=tuple(SECRET.split(":"))).json()
    assert known["state_name"] == "Completed"
