"""What is reached over a network: Prefect's API and the datastores."""

from collections.abc import Callable

from trainyard.deployments.doctor.check import Check
from trainyard.deployments.doctor.probing import Answer
from trainyard.tasks.errors import PipelineError


def check_prefect(prefect: Answer) -> Check:
    """Does Prefect import, and does the API that is configured answer?"""
    if prefect.failure:
        return Check("Prefect", "fail", prefect.failure, "install it: make setup, or pip install prefect")
    version, url, problem = (prefect.facts[name] for name in ("version", "api_url", "problem"))
    if not url:
        return Check("Prefect", "ok", f"{version}; no PREFECT_API_URL: this machine's own server will be used")
    if problem:
        remedy = "start the server (prefect server start), correct PREFECT_API_URL, or unset it for an embedded server"
        return Check("Prefect", "fail", f"{version}; {url} does not answer: {problem}", remedy)
    return Check("Prefect", "ok", f"{version}; {url} answers")


def check_datastore(url: str, probe: Callable[[str], None]) -> Check:
    """Can the datastore be reached?

    Args:
        url: Its URL.
        probe: Reaches for it; raises where it cannot.
    """
    try:
        probe(url)
    except (PipelineError, OSError) as error:
        return Check("datastore", "fail", f"{url}: {error}", "see the message; then run the doctor again")
    return Check("datastore", "ok", f"{url} can be reached")


def check_store(url: str, has_conditional_writes: Callable[[str], bool]) -> Check:
    """Can several machines share the artifact store?

    Args:
        url: Its URL.
        has_conditional_writes: Tries whether it refuses to create what is there; raises where it cannot be reached.
    """
    try:
        is_safe = has_conditional_writes(url)
    except (PipelineError, OSError) as error:
        return Check("artifact store", "fail", f"{url}: {error}", "see the message; then run the doctor again")
    if is_safe:
        return Check("artifact store", "ok", f"{url}: conditional writes")
    remedy = "register models from one machine only, or take a server with conditional writes (Amazon S3, MinIO, Ceph)"
    return Check("artifact store", "warn", f"{url} overwrites where it should refuse (If-None-Match)", remedy)
