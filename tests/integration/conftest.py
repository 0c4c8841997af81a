"""What the integration tests share."""

import pytest


@pytest.fixture
def prefect_proxy(prefect_server):
    """This process talks to the Prefect server through a proxy that fails as the test wants; errors come at once."""
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from tests.integration.prefect_proxy import run_proxy

    with (
        run_proxy(prefect_server) as proxy,
        temporary_settings({PREFECT_API_URL: proxy.url, PREFECT_CLIENT_MAX_RETRIES: 0}),
    ):
        yield proxy


@pytest.fixture
def prefect_server_itself(prefect_server, prefect_proxy):
    """A client of the same server which no fault of the proxy reaches."""
    from prefect.client.orchestration import SyncPrefectClient

    from tests.integration.prefect_proxy import run_proxy

    with run_proxy(prefect_server) as another, SyncPrefectClient(another.url) as client:
        yield client
