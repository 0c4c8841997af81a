"""Errors of Prefect's client, translated once."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from trainyard.tasks.errors import PrefectUnavailableError

REFUSED = (401, 403)
NO_SERVER = ("Failed to reach API", "ephemeral Prefect API server")


@contextmanager
def prefect_errors() -> Iterator[None]:
    """Ask the Prefect server something in the block.

    Raises:
        PrefectUnavailableError: The server does not answer, or refuses.
    """
    try:
        yield
    except httpx.InvalidURL as error:
        raise PrefectUnavailableError(
            f"PREFECT_API_URL, or the active Prefect profile, names no address ({error}): correct it, or unset it."
        ) from error
    except (httpx.HTTPError, ObjectNotFound, ObjectAlreadyExists) as error:
        raise PrefectUnavailableError(_explain(error)) from error
    except RuntimeError as error:
        if "incompatible versions" in str(error):
            raise PrefectUnavailableError(f"{error} Upgrade the Prefect server, or correct PREFECT_API_URL.") from error
        if not any(words in str(error) for words in NO_SERVER):
            raise
        raise PrefectUnavailableError(
            f"The Prefect server does not answer ({error}). Start that server, correct PREFECT_API_URL (or the active "
            "Prefect profile), or unset it and run 'trainyard up' for one on this machine."
        ) from error


def _explain(error: Exception) -> str:
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    line = (str(error).splitlines() or [type(error).__name__])[0]
    if status in REFUSED:
        return (
            f"The Prefect server refused us ({line}): set PREFECT_API_AUTH_STRING to its "
            "PREFECT_SERVER_API_AUTH_STRING, or PREFECT_API_KEY."
        )
    return (
        f"The Prefect server did not do what it was asked ({type(error).__name__}: {line}). Check PREFECT_API_URL, the "
        "server's log and disk, and that it is not older than this client: trainyard doctor."
    )
