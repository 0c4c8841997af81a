"""From a data reference to the place it names, with the credentials that open it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from trainyard.tasks.artifacts.filesystem import Location
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.datastore import DataReference, Datastore


def locate(reference: DataReference) -> Location:
    """The place a reference names.

    Raises:
        InvalidInputError: The URL's scheme is unknown, or a setting does not fit it.
    """
    base = Location(reference.datastore.url, storage_options(reference.datastore))
    key = reference.key.strip("/")
    return base / key if key else base


def storage_options(datastore: Datastore) -> dict[str, Any]:
    """The fsspec options of a datastore: its own settings before those of its block. May hold secrets.

    Raises:
        InvalidInputError: A setting does not fit the URL, or there is no such block.
        StorageUnavailableError: The Prefect server that holds the block does not answer.
    """
    block = _block_options(datastore)
    options: dict[str, Any] = dict(block["storage_options"])
    endpoint_url = datastore.endpoint_url or block["endpoint_url"]
    anonymous = datastore.anonymous or block["anonymous"]
    if endpoint_url or anonymous:
        _require_s3(datastore, "endpoint_url" if endpoint_url else "anonymous")
    if endpoint_url:
        _require_web_address(endpoint_url)
        options["client_kwargs"] = {**options.get("client_kwargs", {}), "endpoint_url": endpoint_url}
    if anonymous:
        options["anon"] = True
    return options


def _block_options(datastore: Datastore) -> Mapping[str, Any]:
    if datastore.block is None:
        return {"endpoint_url": None, "anonymous": False, "storage_options": {}}
    # Only a block needs Prefect: a stage called without a server must not pay for it.
    from trainyard.tasks.blocks import block_options

    return block_options(datastore.block)


def _require_s3(datastore: Datastore, setting: str) -> None:
    if not datastore.url.startswith(("s3://", "s3a://")):
        raise InvalidInputError(f"{setting} is a setting of S3, and the datastore is {datastore.url}: remove it.")


def _require_web_address(endpoint_url: str) -> None:
    parts = urlsplit(endpoint_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInputError(
            f"endpoint_url {endpoint_url!r} is not a web address; use for example http://127.0.0.1:9000"
        )
