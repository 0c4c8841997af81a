"""Deployments of our flows."""

from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
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
        """See ``Resource``. Whether a schedule is active is the choice of who turned it on or off."""
        try:
            found = client.read_deployment_by_name(self.name)
        except ObjectNotFound:
            return None
        active = {schedule.slug: schedule.active for schedule in found.schedules}
        for schedule in self.wanted["schedules"]:
            schedule["active"] = active.get(schedule["slug"], schedule["active"])
        facts = {name: getattr(found, name) for name in FIELDS}
        return {**facts, "schedules": [_facts(schedule) for schedule in found.schedules]}

    def put(self, client: SyncPrefectClient) -> None:
        """See ``Resource``."""
        schedules = [_schedule(facts) for facts in self.wanted["schedules"]]
        wanted = {name: self.wanted[name] for name in FIELDS}
        client.create_deployment(
            flow_id=client.create_flow_from_name(self._flow.name),
            name=self.name.split("/")[1],
            schedules=schedules,
            **wanted,
        )

    def remove(self, client: SyncPrefectClient) -> None:
        """See ``Removable``."""
        client.delete_deployment(client.read_deployment_by_name(self.name).id)


def _schedule(facts: Facts) -> DeploymentScheduleCreate:
    cron = CronSchedule(cron=facts["cron"], timezone=facts["timezone"])
    return DeploymentScheduleCreate(schedule=cron, active=facts["active"], slug=facts["slug"])


def _facts(schedule: DeploymentSchedule) -> Facts:
    rule = schedule.schedule
    when = (rule.cron, rule.timezone) if isinstance(rule, CronSchedule) else (str(rule), None)
    return {"slug": schedule.slug, "cron": when[0], "timezone": when[1], "active": schedule.active}
