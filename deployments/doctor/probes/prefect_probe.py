"""Prefect: its version, the API that is configured, and why that does not answer."""

import json

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL


def main() -> None:
    """Print them."""
    api_url = PREFECT_API_URL.value()
    problem = problem_with_api() if api_url else ""
    print(json.dumps({"version": prefect.__version__, "api_url": api_url, "problem": problem}))


def problem_with_api() -> str:
    """Why the API does not answer a question that needs its database and our credentials; empty where it does."""
    try:
        with get_client(sync_client=True) as client:
            client.read_flows(limit=1)
    except (httpx.HTTPError, httpx.InvalidURL, PrefectHTTPStatusError) as error:
        return str(error).splitlines()[0] or type(error).__name__
    return ""


if __name__ == "__main__":
    main()
