"""From a data reference to the place it names, with the credentials that open it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.credentials import endpoint_problem
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.datastore import DataReference, Datastore
from trainyard.tasks.specs.urls import scheme_of, storage_url

_S3_SETTINGS: Mapping[str, Any] = {
    "endpoint_url": None,
    "anonymous": False,
    "region": None,
    "profile": None,
    "addressing": "auto",
}
"""What a datastore says of S3, and what stands for nothing said."""
_LOCAL_SETTINGS: Mapping[str, Any] = {"link_mode": "reflink"}
"""What it says of files of this machine."""
_SETTINGS = {**_S3_SETTINGS, **_LOCAL_SETTINGS}


def locate(reference: DataReference) -> Location:
    """The place a reference names.

    Raises:
        InvalidInputError: The URL's scheme is unknown, or a setting does not fit it.
    """
    options, settings = _options_and_settings(reference.datastore)
    base = Location(reference.datastore.url, options, links=settings["link_mode"] == "hardlink")
    key = reference.key.strip("/")
    return base / key if key else base


def storage_options(datastore: Datastore) -> dict[str, Any]:
    """The fsspec options of a datastore: its own settings before those of its block. May hold secrets.

    Raises:
        InvalidInputError: A setting does not fit the URL, or there is no such block.
        StorageUnavailableError: The Prefect server that holds the block does not answer.
    """
    return _options_and_settings(datastore)[0]


def _options_and_settings(datastore: Datastore) -> tuple[dict[str, Any], dict[str, Any]]:
    block = _block_options(datastore)
    _require_place_of(datastore, block)
    options: dict[str, Any] = dict(block.pop("storage_options", {}))
    own = {name: getattr(datastore, name) for name in _SETTINGS if getattr(datastore, name) != _SETTINGS[name]}
    settings = {**_SETTINGS, **block, **own}
    if scheme_of(storage_url(datastore.url)) not in ("s3", "s3a"):
        _refuse_settings(datastore, settings, _S3_SETTINGS, "S3")
    if scheme_of(datastore.url) not in ("file", "local"):
        _refuse_settings(datastore, settings, _LOCAL_SETTINGS, "local files")
    return _with_s3_settings(options, settings), settings


def _require_place_of(datastore: Datastore, block: dict[str, Any]) -> None:
    """The secrets of a block are for its own place: whoever may name a block must not have them sent elsewhere."""
    if not block:
        return
    url = str(block.pop("url"))
    if not f"{datastore.url.rstrip('/')}/".startswith(f"{url.rstrip('/')}/"):
        raise InvalidInputError(
            f"The Prefect block {datastore.block!r} is for {url}, and the datastore is {datastore.url}: name a place "
            "in it."
        )
    if datastore.endpoint_url is not None and datastore.endpoint_url != block["endpoint_url"]:
        raise InvalidInputError(
            f"The Prefect block {datastore.block!r} is for the endpoint {block['endpoint_url'] or 'of the environment'}"
            f", and the datastore has endpoint_url {datastore.endpoint_url}: remove it, or change the block's."
        )


def _refuse_settings(datastore: Datastore, settings: Mapping[str, Any], refused: Mapping[str, Any], place: str) -> None:
    """A setting that does nothing is a mistake."""
    chosen = [name for name, value in refused.items() if settings[name] != value]
    if chosen:
        verb = "is a setting" if len(chosen) == 1 else "are settings"
        raise InvalidInputError(
            f"{', '.join(chosen)} {verb} of {place}, and the datastore is {datastore.url}: remove it."
        )


def _with_s3_settings(options: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """s3fs's names for the settings of a datastore."""
    client = {}
    if settings["endpoint_url"]:
        _require_web_address(settings["endpoint_url"])
        client["endpoint_url"] = settings["endpoint_url"]
    if settings["region"]:
        client["region_name"] = settings["region"]
    if client:
        options["client_kwargs"] = {**options.get("client_kwargs", {}), **client}
    if settings["profile"]:
        options["profile"] = settings["profile"]
    if settings["anonymous"]:
        options["anon"] = True
    if settings["addressing"] != "auto":
        config = options.get("config_kwargs", {})
        options["config_kwargs"] = {
            **config,
            "s3": {**config.get("s3", {}), "addressing_style": settings["addressing"]},
        }
    return options


def _block_options(datastore: Datastore) -> dict[str, Any]:
    if datastore.block is None:
        return {}
    # Only a block needs Prefect: a stage called without a server must not pay for it.
    from trainyard.tasks.blocks import block_options

    return block_options(datastore.block)


def _require_web_address(endpoint_url: str) -> None:
    problem = endpoint_problem(endpoint_url)
    if problem:
        raise InvalidInputError(f"The datastore's endpoint_url {problem}.")
    if not _is_web_address(endpoint_url):
        raise InvalidInputError(
            f"endpoint_url {endpoint_url!r} is not a web address; use for example http://127.0.0.1:9000"
        )


def _is_web_address(url: str) -> bool:
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:  # no number, or too large a one
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)
