"""What would change on the server, for people, and making it so."""

from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from rich.text import Text

from trainyard.deployments.deploy.automations import NOT_YET
from trainyard.deployments.deploy.resource import Facts, Resource
from trainyard.tasks.credentials import redacted

SHOWN = 200
"""Characters of a value in a difference."""

ENVIRONMENT, STEPS = "job_variables.env", "pull_steps"
"""Where others may have put secrets: the environment of runs, and steps that fetch code (``access_token``)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not yet as it should be.

    Args:
        resource: The thing.
        found: How it is, or None where it is not there.
    """

    resource: Resource
    found: Facts | None

    def render(self) -> Text:
        """A line for a new thing; for a changed one, a line a field."""
        if self.found is None:
            return Text(f"+ {self.resource}", style="green")
        lines = [f"~ {self.resource}"]
        for name, value in self.resource.wanted.items():
            if value != self.found.get(name):
                lines += _difference(name, self.found.get(name), value)
        return Text("\n".join(lines), style="yellow")


def plan(client: SyncPrefectClient, resources: list[Resource]) -> list[Change]:
    """What differs, in the order in which it must be made so. Changes nothing."""
    compared = [(resource, resource.find(client)) for resource in resources]
    return [Change(resource, found) for resource, found in compared if found != resource.wanted]


def apply(client: SyncPrefectClient, changes: list[Change]) -> None:
    """Make it so."""
    for change in changes:
        change.resource.put(client)


def _difference(name: str, found: Any, wanted: Any) -> list[str]:
    if name in ("url", "parameter_openapi_schema"):  # the one is secret, the other long
        return [f"    {name}: changed"]
    if _are_lists_of_objects(found, wanted):
        found, wanted = dict(enumerate(found)), dict(enumerate(wanted))
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted({*found, *wanted}, key=str)
        return [
            line
            for key in keys
            if found.get(key) != wanted.get(key)
            for line in _difference(f"{name}.{key}", found.get(key), wanted.get(key))
        ]
    if name.startswith(ENVIRONMENT) or (wanted is None and name.startswith(STEPS)):
        return [f"    {name}: {'removed' if wanted is None else 'set' if found is None else 'changed'}"]
    return [f"    {name}: {_short(found)} → {_short(wanted)}"]


def _are_lists_of_objects(*values: Any) -> bool:
    return all(isinstance(value, list) and value and isinstance(value[0], dict) for value in values)


def _short(value: Any) -> str:
    text = "new" if value == str(NOT_YET) else redacted(repr(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
