"""What the tests of ``trainyard deploy`` share."""

from contextlib import contextmanager

from prefect.client.orchestration import get_client


def things_on(client):
    """Kind and name, or id, to what removes it."""
    things = {("automation", item.id): client.delete_automation for item in client.read_automations()}
    things |= {("deployment", item.id): client.delete_deployment for item in client.read_deployments()}
    things |= {("pool", item.name): client.delete_work_pool for item in client.read_work_pools()}
    limits = [item.name for item in client.read_global_concurrency_limits(limit=200)]
    ours = [name for name in limits if not name.startswith("deployment:")]  # those go with their deployments
    things |= {("limit", name): client.delete_global_concurrency_limit_by_name for name in ours}
    return things


@contextmanager
def passing_client():
    """Of the session's server, on which nothing that was deployed stays for other tests."""
    with get_client(sync_client=True) as client:
        before = things_on(client)
        yield client
        for (kind, name), remove in things_on(client).items():
            if (kind, name) not in before:
                remove(name)
