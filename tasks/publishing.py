"""Prefect artifacts: what people see of a stage. A server that cannot show it does not fail the stage."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.exceptions import PrefectException

log = logging.getLogger(__name__)

# What Prefect's client raises for a server that refuses, is away, or is not there at all.
UNPUBLISHED = (httpx.HTTPError, PrefectException, RuntimeError, OSError)


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Publish something in the block; where Prefect cannot take it, log that and go on.

    Args:
        what: What is published, for the log.
    """
    try:
        yield
    except UNPUBLISHED as error:
        log.warning("Prefect does not show %s: %s: %s", what, type(error).__name__, error)
