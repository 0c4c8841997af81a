"""Deployments of our flows."""

from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from trainyard.deployments.deploy.forms import form_schema
from trainyard.deployments.deploy.resource import Facts, Removable

FIELDS = (
    *("entrypoint", "description", "version", "tags", "parameters", "work_pool_name", "work_queue_name"),
    *("job_variables", "pull_steps", "parameter_openapi_schema", "enforce_parameter_schema"),
)


class FlowDeployment(Removable):
    """A deployment of a flow; its name is ``<flow>/<deployment>``.

    Args:
        flow: The flow.
        name: The deployment's own name.
        wanted: ``FIELDS`` without the schema, and ``schedules`` as in ``prefect.yaml``.
    """

    kind = "deployment"

    def __init__(self, flow: "Flow[..., Any]", name: str, wanted: Facts) -> None:
        schema = form_schema(flow)
        super().__init__(
            f"{flow.name}/{name}", {**wanted, "parameter_openapi_schema": schema, "enforce_parameter_schema": True}
        )
        self._flow = flow

    def find(self, client: SyncPrefectClient) -> Facts | None:
        """See ``Resource``. Others decide about what they added, and about whether a schedule of ours is active."""
        found = self._read(client)
        if found is None:
            return None
        self.wanted["job_variables"] = _beside(found.job_variables, self.wanted["job_variables"])
        there = {schedule.slug: schedule for schedule in found.schedules}
        listed = [schedule["slug"] for schedule in self.wanted["schedules"]]
        for schedule in self.wanted["schedules"]:
            schedule["active"] = there[schedule["slug"]].active if schedule["slug"] in there else schedule["active"]
        facts = {name: getattr(found, name) for name in FIELDS}
        return {**facts, "schedules": [_facts(there[slug]) for slug in listed if slug in there]}

    def put(self, client: SyncPrefectClient) -> None:
        """See ``Resource``. Prefect's creation, repeated, would replace all schedules and clear the run limit."""
        wanted = {name: self.wanted[name] for name in FIELDS}
        found = self._read(client)
        if found is None:
            client.create_deployment(
                flow_id=client.create_flow_from_name(self._flow.name),
                name=self.name.split("/")[1],
                schedules=[_schedule(facts) for facts in self.wanted["schedules"]],
                **wanted,
            )
            return
        wanted["job_variables"] = _beside(found.job_variables, wanted["job_variables"])
        client.update_deployment(found.id, DeploymentUpdate(**wanted))
        there = {schedule.slug: schedule for schedule in found.schedules}
        for facts in self.wanted["schedules"]:
            _put_schedule(client, found.id, there.get(facts["slug"]), facts)

    def _read(self, client: SyncPrefectClient) -> DeploymentResponse | None:
        try:
            return client.read_deployment_by_name(self.name)
        except ObjectNotFound:
            return None

    def remove(self, client: SyncPrefectClient) -> None:
        """See ``Removable``."""
        client.delete_deployment(client.read_deployment_by_name(self.name).id)


def _beside(found: Any, ours: Any) -> Any:
    """What we decide, at any depth of a dictionary, beside the entries that others added there."""
    if not (isinstance(found, dict) and isinstance(ours, dict)):
        return ours
    return {**found, **{name: _beside(found.get(name), value) for name, value in ours.items()}}


def _schedule(facts: Facts) -> DeploymentScheduleCreate:
    cron = CronSchedule(cron=facts["cron"], timezone=facts["timezone"])
    return DeploymentScheduleCreate(schedule=cron, active=facts["active"], slug=facts["slug"])


def _put_schedule(
    client: SyncPrefectClient, deployment_id: UUID, found: DeploymentSchedule | None, facts: Facts
) -> None:
    """The server takes parameters that an update leaves out for none."""
    wanted = _schedule(facts)
    if found is None:
        client.create_deployment_schedules(deployment_id, [wanted])
    elif _facts(found) != facts:
        client.update_deployment_schedule(
            deployment_id, found.id, schedule=wanted.schedule, parameters=found.parameters
        )


def _facts(schedule: DeploymentSchedule) -> Facts:
    rule = schedule.schedule
    when = (rule.cron, rule.timezone) if isinstance(rule, CronSchedule) else (str(rule), None)
    return {"slug": schedule.slug, "cron": when[0], "timezone": when[1], "active": schedule.active}
