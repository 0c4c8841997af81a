"""The first ``trainyard run`` on a machine without a Prefect server: what it starts, and what stays."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import describe, marked, wait_for

TRAINYARD = Path(sys.executable).with_name("trainyard")


ENSURE_SERVER = """
from trainyard.deployments.local.server import ensure_server
from trainyard.tasks.settings import Settings
print(*ensure_server(Settings(), say=lambda text: None))
"""


@pytest.fixture
def trainyard(tmp_path):
    """Run the console script on a machine where nothing was run before; gives the finished process."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text("print('trained')\n")
    estimator = {"source_directory": "project", "entry_script": "train.py"}
    (tmp_path / "pipeline.json").write_text(json.dumps({"estimator": estimator, "export": None}))
    settings = {"TRAINYARD_HOME": str(tmp_path / "home"), "PREFECT_HOME": str(tmp_path / "prefect")}
    env = {**os.environ, **settings, "TRAINYARD_SERVER_PORT": "14300"}
    env.pop("PREFECT_API_URL", None)

    def call(*arguments):
        command = [str(TRAINYARD), *map(str, arguments)]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=400)

    with ended(call):
        yield call


@contextmanager
def ended(call):
    try:
        yield
    finally:
        call("down")


@pytest.mark.timeout(1200)
def test_the_server_that_the_first_run_starts_stays_for_the_next_ones_until_down(trainyard, tmp_path):
    home = str(tmp_path / "home")

    refused = trainyard("run", "pipeline.json", "--set", "estimator.entry_script=none.py")
    assert refused.returncode == 2, refused.stderr
    assert "Prefect server" not in refused.stderr
    assert not (tmp_path / "home").exists()
    assert not list((tmp_path / "prefect").glob("*.db"))  # which an embedded server would have made

    first = trainyard("run", "pipeline.json", "--json")
    assert first.returncode == 0, first.stderr
    assert first.stderr.index("Starting a Prefect server") < first.stderr.index("Started a Prefect server")
    server = json.loads((tmp_path / "home" / "services" / "server.json").read_text())
    assert wait_for(lambda: [process.pid for process in marked(home)] == [server["pid"]]), describe(marked(home))
    assert f"Started a Prefect server, {server['address'].removesuffix('/api')}" in first.stderr

    second = trainyard("run", "pipeline.json", "--json")
    assert second.returncode == 0, second.stderr
    assert "a Prefect server" not in second.stderr
    assert {stage["status"] for stage in json.loads(second.stdout)["stages"].values()} == {"cached"}
    assert json.loads((tmp_path / "home" / "services" / "server.json").read_text()) == server
    assert wait_for(lambda: [process.pid for process in marked(home)] == [server["pid"]]), describe(marked(home))

    assert "server: ended" in trainyard("down").stdout
    assert not marked(home)


def test_two_servers_that_want_one_port_at_the_same_moment_both_come_up(tmp_path):
    """Each has its port before its server is started, and needs one start."""
    homes = [tmp_path / "one", tmp_path / "other"]
    environments = [{**os.environ, "TRAINYARD_HOME": str(home), "TRAINYARD_SERVER_PORT": "14400"} for home in homes]
    try:
        command, pipe = [sys.executable, "-c", ENSURE_SERVER], subprocess.PIPE
        both = [subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) for env in environments]
        said = [process.communicate(timeout=400) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        addresses = [output.split()[0] for output, _ in said]
        assert "http://127.0.0.1:14400/api" in addresses and len(set(addresses)) == 2
        recorded = [json.loads((home / "services" / "server.json").read_text())["address"] for home in homes]
        assert recorded == addresses
        for home in homes:
            assert (home / "services" / "server.log").read_text() == ""
    finally:
        for env in environments:
            subprocess.run([str(TRAINYARD), "down"], env=env, cwd=tmp_path, check=True, timeout=60)
