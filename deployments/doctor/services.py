"""What is reached over a network: Prefect's API and the datastores."""

from collections.abc import Callable, Mapping

from trainyard.deployments.doctor.check import Check
from trainyard.deployments.doctor.probing import Answer
from trainyard.tasks.credentials import redacted, redacted_url
from trainyard.tasks.errors import (
    PipelineError,
    StorageAccessError,
    StorageNotFoundError,
    StorageUnavailableError,
)

_OWN_SERVER = (
    "for an S3 server of your own set AWS_ENDPOINT_URL=http://host:port, or save a block with the endpoint and give "
    "--datastore block/NAME"
)
_REMEDIES: Mapping[type[Exception], str] = {
    StorageAccessError: "set the credentials here (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), or "
    "save them in a block and give --datastore block/NAME",
    StorageNotFoundError: f"create it, or correct the name; {_OWN_SERVER}",
    StorageUnavailableError: f"start the server, or correct its address; {_OWN_SERVER}",
}
"""What to do, where the error does not say it for this command. Other errors do."""


def check_prefect(prefect: Answer) -> Check:
    """Does Prefect import, and does the API that is configured answer?"""
    if prefect.failure:
        return Check("Prefect", "fail", prefect.failure, "install it: make setup, or pip install prefect")
    version, url, problem = (prefect.facts[name] for name in ("version", "api_url", "problem"))
    if not url:
        return Check("Prefect", "ok", f"{version}; no PREFECT_API_URL: this machine's own server will be used")
    if problem:
        remedy = "start the server (prefect server start), correct PREFECT_API_URL, or unset it for an embedded server"
        return Check("Prefect", "fail", f"{version}; {redacted_url(url)} does not answer: {redacted(problem)}", remedy)
    return Check("Prefect", "ok", f"{version}; {redacted_url(url)} answers")


def check_prefect_server(server: Answer) -> Check:
    """Can this machine's own server be made of the libraries that are installed?"""
    if server.failure:
        remedy = "a library is too new for Prefect's server, most often: make setup, or pip install 'fastapi<0.151'"
        return Check("Prefect server", "fail", f"cannot start here: {server.failure}", remedy)
    return Check("Prefect server", "ok", f"can start here (fastapi {server.facts['fastapi']})")


def check_datastore(asked: str, probe: Callable[[str], None]) -> Check:
    """Can the datastore be reached?

    Args:
        asked: Its URL, or the name of its block.
        probe: Reaches for it; raises where it cannot.
    """
    try:
        probe(asked)
    except (PipelineError, OSError) as error:
        return unreachable("datastore", asked, error)
    subject = redacted_url(asked)
    return Check("datastore", "ok", f"{subject} can be reached", subject=subject)


def check_store(url: str, has_conditional_writes: Callable[[str], bool]) -> Check:
    """Can several machines share the artifact store?

    Args:
        url: Its URL.
        has_conditional_writes: Tries whether it refuses to create what is there; raises where it cannot be reached.
    """
    subject = redacted_url(url)
    try:
        is_safe = has_conditional_writes(url)
    except (PipelineError, OSError) as error:
        return unreachable("artifact store", url, error)
    if is_safe:
        return Check("artifact store", "ok", f"{subject}: conditional writes", subject=subject)
    remedy = "register models from one machine only, or take a server with conditional writes (Amazon S3, MinIO, Ceph)"
    return Check(
        "artifact store", "warn", f"{subject} overwrites where it should refuse (If-None-Match)", remedy, subject
    )


def unreachable(name: str, address: str, error: Exception) -> Check:
    """The answer for a place that could not be reached: what it is, why, and what to do.

    Args:
        name: Of the check.
        address: What was asked for; credentials in it are not shown.
        error: Why.
    """
    subject = redacted_url(address)
    why = str(error).replace("; this is retried.", ".")  # by a stage, not by the doctor
    found = why if subject in why else f"{subject}: {why}"
    remedy = next((text for kind, text in _REMEDIES.items() if isinstance(error, kind)), "")
    return Check(name, "fail", found, remedy, subject)
