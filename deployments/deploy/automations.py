"""Automations, and the block that keeps a webhook's address."""

from typing import Any
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from trainyard.deployments.deploy.resource import Facts, Removable

_SYNC: dict[str, Any] = {"_sync": True}


class WebhookBlock(Removable):
    """A block of type Webhook: ``url``, which is never shown."""

    kind = "webhook block"

    def find(self, client: SyncPrefectClient) -> Facts | None:
        """See ``Resource``."""
        block = _webhook(self.name)
        return {"url": block.url.get_secret_value()} if block else None

    def put(self, client: SyncPrefectClient) -> None:
        """See ``Resource``. Method, headers and the like of a block that exists are others'."""
        url = SecretStr(self.wanted["url"])
        found = _webhook(self.name)
        block = found.model_copy(update={"url": url}) if found else Webhook(url=url)
        block.save(self.name, overwrite=True, **_SYNC)

    def remove(self, client: SyncPrefectClient) -> None:
        """See ``Removable``."""
        Webhook.delete(self.name, **_SYNC)


class AutomationRule(Removable):
    """An automation: ``description``, ``trigger`` and ``actions``.

    Args:
        facts: As in ``resources.yaml``. ``deployment`` and ``webhook`` stand for the actions that run the one or call
            the other.
    """

    kind = "automation"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts["name"], {name: facts[name] for name in ("description", "trigger")})
        self._facts = facts

    def find(self, client: SyncPrefectClient) -> Facts | None:
        """See ``Resource``."""
        self.wanted = _normal(self._value(client))
        found = client.read_automations_by_name(self.name)
        return _normal(found[0]) if found else None

    def put(self, client: SyncPrefectClient) -> None:
        """See ``Resource``."""
        value = self._value(client)
        found = client.read_automations_by_name(self.name)
        if found:
            client.update_automation(found[0].id, value.model_copy(update={"enabled": found[0].enabled}))
        else:
            client.create_automation(value)

    def remove(self, client: SyncPrefectClient) -> None:
        """See ``Removable``."""
        for found in client.read_automations_by_name(self.name):
            client.delete_automation(found.id)

    def _value(self, client: SyncPrefectClient) -> AutomationCore:
        facts = {name: value for name, value in self._facts.items() if name not in ("deployment", "webhook", "payload")}
        return AutomationCore.model_validate({**facts, "actions": self._actions(client)})

    def _actions(self, client: SyncPrefectClient) -> list[Facts]:
        if "deployment" in self._facts:
            deployment = _deployment_id(client, self._facts["deployment"])
            return [{"type": "run-deployment", "deployment_id": deployment}]
        if "webhook" in self._facts:
            block = _block_id(client, self._facts["webhook"])
            return [{"type": "call-webhook", "block_document_id": block, "payload": self._facts["payload"]}]
        return list(self._facts["actions"])


NOT_YET = UUID(int=0)
"""Stands for what is only about to be created, while a plan is made."""


def _deployment_id(client: SyncPrefectClient, name: str) -> UUID:
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound:
        return NOT_YET


def _block_id(client: SyncPrefectClient, name: str) -> UUID:
    block = _webhook(name)
    return (block and block._block_document_id) or NOT_YET


def _webhook(name: str) -> Webhook | None:
    try:
        block = Webhook.load(name, **_SYNC)
    except ValueError:
        return None
    assert isinstance(block, Webhook), name
    return block


def _normal(automation: AutomationCore) -> Facts:
    facts = automation.model_dump(mode="json", include={"description", "trigger", "actions"})
    facts["trigger"].pop("id", None)
    return {**facts, "trigger": _sorted_lists(facts["trigger"])}


def _sorted_lists(value: Any) -> Any:
    """Sets of events come back in any order."""
    if isinstance(value, dict):
        return {name: _sorted_lists(item) for name, item in value.items()}
    return sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
