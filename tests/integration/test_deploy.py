"""What ``trainyard deploy`` puts onto a real server, and what it leaves alone there."""

import subprocess
import time

import pytest
from prefect import flow
from prefect.blocks.fields import SecretDict
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.actions import BlockTypeUpdate, DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.flow_engine import FlowRunEngine
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import RelatedResource, Resource
from prefect.states import Crashed, Pending, Running

from tests.integration.deployed import passing_client
from trainyard.deployments.deploy.command import deploy as run_deploy
from trainyard.deployments.deploy.plan import apply, plan
from trainyard.deployments.deploy.wanted import Options, wanted_resources
from trainyard.tasks.blocks import DatastoreBlock, HostsBlock
from trainyard.tasks.settings import Settings

COMMIT = ("-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet")
NIGHTLY = "training-pipeline/nightly"


@pytest.fixture(scope="module")
def client(prefect_server):
    with passing_client() as client:
        yield client


@pytest.fixture
def deploy(client, tmp_path):
    """Make everything as it should be; gives the changes as they are shown."""

    def run(project=tmp_path, **options):
        changes = plan(client, wanted_resources(Options(project=project, **options)))
        shown = "\n".join(change.render().plain for change in changes)
        apply(client, changes)
        return shown

    return run


def schedules(client, name):
    return {schedule.slug: schedule for schedule in client.read_deployment_by_name(name).schedules}


def test_a_second_time_changes_nothing(deploy):
    deploy()
    assert deploy() == ""


def test_our_blocks_can_be_made_in_the_ui(client, deploy):
    """Which shows the types that a server knows, and makes their forms of the schemas."""
    deploy()
    for block in (DatastoreBlock, HostsBlock):
        client.delete_block_type(client.read_block_type_by_slug(block.get_block_type_slug()).id)
    shown = deploy()
    assert {"+ block type Trainyard Datastore", "+ block type Trainyard Hosts"} <= set(shown.splitlines())
    for block, field in ((DatastoreBlock, "storage_options"), (HostsBlock, "target")):
        found = client.read_block_type_by_slug(block.get_block_type_slug())
        assert field in client.get_most_recent_block_schema_for_block_type(found.id).fields["properties"]
    assert deploy() == ""

    found = client.read_block_type_by_slug("trainyard-datastore")
    client.update_block_type(found.id, BlockTypeUpdate(description="of an earlier version", code_example="none"))
    assert "    description: 'of an earlier version' → 'Where training data lives" in deploy()
    assert deploy() == ""


def test_what_others_added_to_a_deployment_stays(client, deploy, tmp_path):
    deploy()
    found = client.read_deployment_by_name(NIGHTLY)
    weekly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 5 * * 1"), slug="weekly", parameters={"store": "x"})
    hourly = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=3600))
    client.create_deployment_schedules(found.id, [weekly, hourly])
    variables = {**found.job_variables, "working_dir": "/data"}
    variables["env"] = {**variables["env"], "AWS_SECRET_ACCESS_KEY": "not-to-be-seen"}
    client.update_deployment(
        found.id, DeploymentUpdate(concurrency_limit=3, job_variables=variables, tags=found.tags, paused=True)
    )
    assert deploy() == "", "nothing of it is ours"

    (tmp_path / "moved").mkdir()
    shown = deploy(project=tmp_path / "moved")
    assert "moved" in shown
    assert "weekly" not in shown
    assert "not-to-be-seen" not in shown
    moved = client.read_deployment_by_name(NIGHTLY)
    assert "moved" in str(moved.pull_steps)
    assert set(schedules(client, NIGHTLY)) == {"nightly", "weekly", None}
    assert schedules(client, NIGHTLY)["weekly"].parameters == {"store": "x"}
    assert moved.global_concurrency_limit.limit == 3
    assert moved.job_variables == variables
    assert moved.paused
    assert deploy(project=tmp_path / "moved") == ""


def test_our_own_schedule_is_made_right_and_stays_active(client, deploy):
    deploy()
    found = client.read_deployment_by_name(NIGHTLY)
    ours = schedules(client, NIGHTLY)["nightly"]
    often = IntervalSchedule(interval=60)
    client.update_deployment_schedule(found.id, ours.id, active=True, schedule=often, parameters={"store": "mine"})
    assert "schedules.0.cron" in deploy()
    again = schedules(client, NIGHTLY)["nightly"]
    assert (again.id, again.active, again.schedule.cron) == (ours.id, True, "0 2 * * *")
    assert again.parameters == {"store": "mine"}
    client.delete_deployment_schedule(found.id, ours.id)
    assert "schedules" in deploy()
    assert schedules(client, NIGHTLY)["nightly"].schedule.timezone == "Europe/Amsterdam"
    assert deploy() == ""


def test_a_new_webhook_address_leaves_the_rest_of_its_block(deploy):
    deploy(webhook_url="http://127.0.0.1:9/before")
    block = Webhook.load("trainyard-failures", _sync=True)
    block.method, block.verify, block.headers = "PUT", False, SecretDict({"Authorization": "Bearer x"})
    block.save("trainyard-failures", overwrite=True, _sync=True)
    assert deploy(webhook_url="http://127.0.0.1:9/before") == ""
    assert "url: changed" in deploy(webhook_url="http://127.0.0.1:9/after")
    again = Webhook.load("trainyard-failures", _sync=True)
    assert again.url.get_secret_value() == "http://127.0.0.1:9/after"
    assert (again.method, again.verify) == ("PUT", False)
    assert again.headers.get_secret_value() == {"Authorization": "Bearer x"}


def test_square_brackets_in_paths_are_shown_as_they_are(prefect_server, tmp_path, capsys):
    """Rich takes them for markup in plain strings."""
    project = tmp_path / "[" / "red]"  # "[/red]", which closes what was never opened
    project.mkdir(parents=True)
    (project / "train.py").write_text("")
    for command in (["init", "--quiet"], ["add", "."], [*COMMIT, "-m", "first"]):
        subprocess.run(["git", "-C", project, *command], check=True)
    (project / "train.py").write_text("changed")
    options = Options(project=project)
    run_deploy(Settings(), options, yes=True, dry_run=False, confirm=lambda question: False, unwanted="ignore")
    assert f"{project} has changes" in capsys.readouterr().out.replace("\n", "")


def run_of(client, flow_name, deployment, tags):
    """A run of a deployment that somebody made of a flow."""
    made = client.create_deployment(client.create_flow_from_name(flow_name), deployment, tags=tags)
    return client.create_flow_run_from_deployment(made)


def crash(client, run, began=True):
    client.set_flow_run_state(run.id, Running() if began else Pending())
    client.set_flow_run_state(run.id, Crashed())


def is_started_again(client, run, seconds):
    until = time.monotonic() + seconds
    while client.read_flow_run(run.id).state_name != "AwaitingRetry":
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def test_what_crashed_is_started_again_where_it_is_ours(client, deploy):
    deploy(retry_after_s=10)  # the least that Prefect allows

    def ours():
        run = run_of(client, "training-pipeline", "weekly", ["trainyard"])
        crash(client, run)
        return run

    assert any(is_started_again(client, ours(), 25) for _ in range(5)), "the server finds new automations after a while"
    others = [
        run_of(client, "etl", "nightly", ["team"]),
        run_of(client, "etl", "training-pipeline", ["trainyard"]),
        run_of(client, "training-pipeline", "a-teams-own", ["team"]),
        client.create_flow_run(flow(name="training-pipeline")(lambda: None), tags=["trainyard"]),  # of no deployment
    ]
    for run in others:
        crash(client, run)
    others.append(run_of(client, "training-pipeline", "weekly", ["trainyard"]))
    crash(client, others[-1], began=False)  # which it would do again and again
    assert is_started_again(client, ours(), 120), "events are looked at in their order"
    assert [client.read_flow_run(run.id).state_name for run in others] == ["Crashed"] * len(others)


@pytest.mark.parametrize(
    ("name", "deployment", "tags", "watched"),
    [
        ("train", "train-a100", ["trainyard"], True),
        ("training-pipeline", "weekly", ["mine", "trainyard"], True),
        ("train", "nightly", ["team"], False),
        ("etl", "train", ["trainyard"], False),
    ],
)
def test_heartbeats_are_missed_where_runs_are_ours(client, deploy, name, deployment, tags, watched):
    """Of the events that Prefect sends for a run, and by the rule that its server keeps."""
    deploy()
    (found,) = client.read_automations_by_name("trainyard-zombies")
    trigger = EventTrigger.model_validate(found.trigger.model_dump(mode="json"))
    engine = FlowRunEngine(flow=flow(name=name)(lambda: None), flow_run=run_of(client, name, deployment, tags))
    resource, related = engine._build_heartbeat_event_template()
    related = [RelatedResource(dict(item)) for item in related]
    assert trigger.covers_resources(Resource(resource), related) == watched
