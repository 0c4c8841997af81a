"""``up``, ``deploy``, ``run`` and ``down`` on one machine; the yard itself was started by two ``up`` at once."""

import http.server
import json
import os
import queue
import subprocess
import sys
import threading
import time

import psutil
import pytest

from tests.e2e.yard import LOST_AFTER_S, ROOT
from tests.processes import describe, wait_for
from trainyard.cli import app, models_app


def test_up_again_starts_nothing_and_changes_nothing(yard):
    before = {name: yard.service(name)[0] for name in ("server", "worker-cpu", "worker-gpu")}
    said = yard.trainyard("up").stdout
    assert "(started)" not in said
    assert "up to date." in said
    assert f"export PREFECT_API_URL={yard.api_url}\n" in said, "for who uses the server without our commands"
    assert {name: yard.service(name)[0] for name in before} == before


def test_up_leaves_a_server_that_is_not_its_own_alone(yard, tmp_path):
    """The home is empty, so that the yard's server is another's; asked for, deployments there would change first."""
    before = deployments_of(yard)
    changes = {"TRAINYARD_HOME": str(tmp_path), "PREFECT_API_URL": yard.api_url}
    refused = yard.trainyard("up", check=2, cwd=tmp_path, **changes)
    assert yard.api_url in refused.stderr
    assert "trainyard deploy" in refused.stderr
    refused = yard.trainyard("up", "--on-configured-server", check=2, cwd=tmp_path, **changes)
    assert str(tmp_path) in refused.stdout
    assert "--yes" in refused.stderr
    assert deployments_of(yard) == before
    assert list((tmp_path / "services").glob("*.json")) == []


def test_up_in_another_folder_asks_before_it_moves_the_deployments(yard, tmp_path):
    before = deployments_of(yard)
    refused = yard.trainyard("up", check=2, cwd=tmp_path)
    assert f"directory: '{ROOT}' → '{tmp_path}'" in refused.stdout.replace("\n", "")
    assert "--yes" in refused.stderr
    assert deployments_of(yard) == before
    yard.trainyard("up", "--yes", cwd=tmp_path)
    assert {str(folder) for folder in deployments_of(yard).values()} == {str(tmp_path)}
    yard.trainyard("up", "--yes")
    assert deployments_of(yard) == before


def deployments_of(yard):
    """The folder of each deployment that has one."""
    ours = ("training-pipeline/training-pipeline", "training-pipeline/nightly")
    with yard.client() as client:
        found = [client.read_deployment_by_name(name) for name in ours]
    return {deployment.name: next(iter(deployment.pull_steps[0].values()))["directory"] for deployment in found}


def test_there_is_one_server_on_the_database(yard):
    """Whatever process has the database open, it is of that server."""
    database = str(yard.home / "prefect" / "prefect.db")

    def has_it_open(process):
        try:
            return any(file.path.startswith(database) for file in process.open_files())
        except psutil.Error:
            return False

    holders = [process for process in psutil.process_iter() if has_it_open(process)]
    assert holders
    assert set(holders) <= set(yard.service("server")), describe(holders)


@pytest.fixture
def deploy(yard, monkeypatch, capsys):
    """``trainyard deploy --yes`` in this process; gives what it printed."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from trainyard.deployments.deploy.command import deploy
    from trainyard.deployments.deploy.wanted import Options
    from trainyard.tasks.settings import Settings

    def run(dry_run=False, **options):
        wanted = Options(project=ROOT, **options)
        deploy(Settings(), wanted, yes=True, dry_run=dry_run, confirm=lambda question: False)
        return capsys.readouterr().out

    monkeypatch.setenv("TRAINYARD_HOME", str(yard.home))
    monkeypatch.setenv("TRAINYARD_LOST_AFTER_S", LOST_AFTER_S)
    monkeypatch.setenv("COLUMNS", "200")
    with temporary_settings({PREFECT_API_URL: yard.api_url}):
        yield run


def test_deploy_shows_a_change_before_it_makes_it(yard, deploy):
    def limit():
        with yard.client() as client:
            return client.read_global_concurrency_limit_by_name("gpu").limit

    refused = yard.trainyard("deploy", "--gpus", 2, check=2)
    assert "limit: 1 → 2" in refused.stdout
    assert "--yes" in refused.stderr
    assert "limit: 1 → 2" in deploy(gpus=2, dry_run=True)
    assert limit() == 1
    try:
        assert "limit: 1 → 2" in deploy(gpus=2)
        assert limit() == 2
        assert "up to date." in deploy(), "without --gpus, the limit stays"
    finally:
        deploy(gpus=1)


def test_a_webhook_is_called_when_a_pipeline_fails(yard, deploy, monkeypatch, linear_project):
    """Deployed, and called by the server: a failing run reaches a real HTTP server."""
    received = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    from trainyard import PyTorch, errors, training_pipeline

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TRAINYARD_FAILURE_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/secret")
        said = deploy()
        assert "automation trainyard-failures" in said
        assert "secret" not in said
        time.sleep(5)  # the server looks for new automations every few seconds
        with pytest.raises(errors.InvalidInputError):
            training_pipeline(PyTorch(source_directory=str(linear_project), entry_script="none.py"))
        assert b'"state": "Failed"' in received.get(timeout=60)
        crash_before_it_began(yard)
        assert b'"state": "Crashed"' in received.get(timeout=60)
        server.shutdown()


def crash_before_it_began(yard):
    """What a worker says of a run whose folder is missing."""
    from prefect.states import Crashed, Pending

    with yard.client() as client:
        deployment = client.create_deployment(client.create_flow_from_name("training-pipeline"), "of-nobody")
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, Pending())
        client.set_flow_run_state(run.id, Crashed())
        client.delete_deployment(deployment)


def test_deploy_names_what_nobody_asks_for_any_more_and_removes_it_when_told(yard, deploy, monkeypatch):
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    ours = ["automation trainyard-failures", "webhook block trainyard-failures", "deployment train/train-spare"]
    with yard.client() as client:
        client.create_work_pool(WorkPoolCreate(name="spare", type="process"))
        monkeypatch.setenv("TRAINYARD_FAILURE_WEBHOOK_URL", "http://127.0.0.1:9/hook")
        deploy(train_on=("spare",))
        assert "not asked for" not in deploy(train_on=("spare",))
        monkeypatch.delenv("TRAINYARD_FAILURE_WEBHOOK_URL")

        said = deploy()
        assert all(f"- {name} (not asked for any more)" in said for name in ours)
        assert "--prune" in said
        assert "--prune" in yard.trainyard("deploy").stdout, "nobody to ask, and nothing else to change"
        assert "not asked for" not in yard.trainyard("up").stdout
        assert client.read_automations_by_name("trainyard-failures")
        assert client.read_deployment_by_name("train/train-spare")

        said = yard.trainyard("deploy", "--prune").stdout
        assert all(f"- {name} (not asked for any more)" in said for name in ours)
        assert client.read_automations_by_name("trainyard-failures") == []
        with pytest.raises(ObjectNotFound):
            client.read_deployment_by_name("train/train-spare")
        assert client.read_deployment_by_name("train/train")
        assert client.read_automations_by_name("trainyard-zombies")
        assert "not asked for" not in deploy()


def test_data_that_is_announced_starts_a_run(yard):
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
    from prefect.states import Cancelling

    with yard.client() as client:
        nightly = client.read_deployment_by_name("training-pipeline/nightly").id
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[nightly]))
        before = {run.id for run in client.read_flow_runs(flow_run_filter=wanted)}
        announce = ["event", "emit", "trainyard.data.arrived", "--resource-id", "trainyard.datastore.digits"]
        env = yard.environment(PREFECT_API_URL=yard.api_url)
        subprocess.run([sys.executable, "-m", "prefect", *announce], env=env, check=True, capture_output=True)

        def started():
            return [run for run in client.read_flow_runs(flow_run_filter=wanted) if run.id not in before]

        try:
            (run,) = wait_for(started, 60)
            assert run.parameters["model_name"] == "digits"
            # Before, Prefect's worker would pass over the wish to cancel it.
            assert wait_for(lambda: [run.state_name for run in started()] == ["Running"], 120)
        finally:  # it would train for a minute, beside the tests that come after this one
            for run in started():
                client.set_flow_run_state(run.id, Cancelling())
            assert wait_for(lambda: all(run.state.is_final() for run in started()), 120)


def test_a_schedule_that_somebody_turned_on_stays_on(yard, deploy):
    with yard.client() as client:
        nightly = client.read_deployment_by_name("training-pipeline/nightly")
        (schedule,) = nightly.schedules
        assert (schedule.active, schedule.schedule.timezone) == (False, "Europe/Amsterdam")
        client.update_deployment_schedule(nightly.id, schedule.id, active=True)
        try:
            assert "up to date." in deploy()
            (schedule,) = client.read_deployment_by_name("training-pipeline/nightly").schedules
            assert schedule.active
        finally:
            client.update_deployment_schedule(nightly.id, schedule.id, active=False)


def test_deploy_without_a_project_or_a_server_says_what_to_do(yard, tmp_path):
    missing = yard.trainyard("deploy", "--yes", "--project", tmp_path / "nowhere", check=2)
    assert "nowhere" in missing.stderr
    nobody = yard.trainyard("deploy", "--yes", check=1, TRAINYARD_HOME=str(tmp_path))
    assert "trainyard up" in nobody.stderr
    away = yard.trainyard("deploy", "--yes", check=1, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "PREFECT_API_URL" in away.stderr
    assert "Traceback" not in away.stderr


@pytest.mark.parametrize("options", [[], ["--no-server"]])
def test_run_finds_the_server_unless_told_not_to(yard, prefect_home, linear_project, points, tmp_path, options):
    estimator = {
        "source_directory": str(linear_project),
        "entry_script": "train.py",
        "script_params": {"--data-dir": {"url": str(points)}},
    }
    (tmp_path / "pipeline.json").write_text(json.dumps({"estimator": estimator, "export": None}))
    changes = {"PREFECT_HOME": str(prefect_home(tmp_path / "prefect"))}
    result = json.loads(yard.trainyard("run", tmp_path / "pipeline.json", "--json", *options, **changes).stdout)
    with yard.client() as client:
        known = [str(run.id) for run in client.read_flow_runs()]
    assert (result["run_id"] in known) == (options == [])


def test_two_processes_cannot_have_the_data_directory(tmp_path):
    from trainyard.deployments.local.server import _database_lock
    from trainyard.tasks.errors import PrefectUnavailableError

    held = _database_lock(tmp_path)
    try:
        with pytest.raises(PrefectUnavailableError, match="Another Prefect server"):
            _database_lock(tmp_path)
    finally:
        os.close(held)


def test_what_another_answers_on_the_port_is_not_taken_for_our_server(tmp_path):
    """When ours has ended, anybody may have its port."""
    from trainyard.deployments.local import background
    from trainyard.deployments.local.server import _wait_until_healthy
    from trainyard.tasks.errors import PrefectUnavailableError
    from trainyard.tasks.runtime.watchdog import start_time

    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/api"
        ours = background.start("server", ["true"], env=os.environ, folder=tmp_path, address=address)
        assert wait_for(lambda: not ours.alive, 30)
        with pytest.raises(PrefectUnavailableError, match="ended at once"):
            _wait_until_healthy(ours, tmp_path)
        this = background.Background("server", os.getpid(), start_time(os.getpid()), address)
        _wait_until_healthy(this, tmp_path)
        server.shutdown()


@pytest.mark.parametrize(
    ("page", "prefix", "commands"),
    [("README.md", "trainyard", app), ("docs/models.md", "trainyard models", models_app)],
    ids=["readme", "models"],
)
def test_the_pages_name_every_command(page, prefix, commands):
    names = [command.name or command.callback.__name__ for command in commands.registered_commands]
    text = (ROOT / page).read_text()
    assert len(names) > 3
    assert [name for name in names if f"{prefix} {name}" not in text] == []
