"""What an earlier ``trainyard deploy`` made and nobody asks for any more."""

from dataclasses import replace

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from rich.text import Text

from trainyard.deployments.deploy.resource import Removable, Resource
from trainyard.deployments.deploy.wanted import TRAIN, Options, wanted_resources
from trainyard.flows.work_pools import TAG


def leftovers(client: SyncPrefectClient, options: Options, wanted: list[Resource]) -> list[Removable]:
    """What is there because of an option or setting that is gone, in the order in which it can be removed.

    Limits stay: their slots are what somebody set, and without trainings they do nothing.

    Args:
        client: Of the server.
        options: What the person says now.
        wanted: What that makes.
    """
    pools = (*options.train_on, *_pools_that_could_train(client))
    everything = wanted_resources(replace(options, train_on=pools, webhook_url=options.webhook_url or "unset"))
    names = {str(resource) for resource in wanted}
    optional = [item for item in everything if isinstance(item, Removable) and str(item) not in names]
    return [item for item in reversed(optional) if item.find(client) is not None]


def render_leftover(resource: Resource) -> Text:
    """A line for people."""
    return Text(f"- {resource} (not asked for any more)", style="red")


def _pools_that_could_train(client: SyncPrefectClient) -> list[str]:
    """Of the deployments that ``--train-on`` made."""
    found = client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[TRAIN])))
    made = [item for item in found if TAG in item.tags and item.name == f"{TRAIN}-{item.work_pool_name}"]
    return [str(item.work_pool_name) for item in made]
