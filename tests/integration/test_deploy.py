"""What ``trainyard deploy`` puts onto a real server, and what it leaves alone there."""

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from trainyard.deployments.deploy.plan import apply, plan
from trainyard.deployments.deploy.wanted import Options, wanted_resources

NIGHTLY = "training-pipeline/nightly"


@pytest.fixture
def client(prefect_server):
    with get_client(sync_client=True) as client:
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
