"""Errors of Prefect's client, translated once."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.exceptions import PrefectException

from trainyard.tasks.errors import PrefectUnavailableError


@contextmanager
def prefect_errors() -> Iterator[None]:
    """Ask the Prefect server something in the block.

    Raises:
        PrefectUnavailableError: The server does not answer, or refuses.
    """
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise PrefectUnavailableError(
            f"The Prefect server did not do what it was asked ({line}). Check PREFECT_API_URL, and that the server is "
            "not older than this client: trainyard doctor."
        ) from error
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise PrefectUnavailableError(
            f"The Prefect server does not answer ({error}): check PREFECT_API_URL."
        ) from error
