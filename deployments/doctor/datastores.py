"""Reach for a datastore as staging would: by its URL, or by the name of the Prefect block that holds it."""

from pathlib import Path

from trainyard.deployments.local.connection import find_server
from trainyard.tasks.credentials import credentials_problem
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.probe import probe_reference

_BLOCK = "block/"


def probe_datastore(asked: str) -> None:
    """Prove that there is data in a datastore, and that it may be read.

    Args:
        asked: A URL or local path; or the name of a Prefect block, ``block/NAME`` or ``NAME``.

    Raises:
        PipelineError: As ``probe_reference``; or there is no such block, or no server to ask for it.
    """
    name = block_name(asked)
    if name is None:
        problem = credentials_problem(asked)
        if problem:
            raise InvalidInputError(f"the URL {problem}.")
        datastore = Datastore(url=asked)
    else:
        if find_server(Settings()) is None:
            raise InvalidInputError(
                f"no Prefect server runs that could hold the block {name!r}: set PREFECT_API_URL, or start this "
                "machine's own with 'trainyard up'."
            )
        datastore = Datastore.load(name)
    probe_reference(datastore.as_mount())


def block_name(asked: str) -> str | None:
    """The name of the block that is meant; None for a URL or a path."""
    if asked.startswith(_BLOCK):
        return asked.removeprefix(_BLOCK)
    is_place = "://" in asked or "/" in asked or asked.startswith((".", "~")) or Path(asked).exists()
    return None if is_place else asked
