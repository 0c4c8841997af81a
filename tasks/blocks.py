"""Prefect blocks: a datastore whose secret storage options stay on the Prefect server, and hosts to train on."""

import os
from typing import Any, ClassVar, Literal, TypeVar

import httpx
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_URL
from prefect.types import SecretDict
from pydantic import ConfigDict, Field, ValidationError

from trainyard.tasks.credentials import redacted_url
from trainyard.tasks.errors import (
    InvalidInputError,
    PipelineError,
    PrefectUnavailableError,
    StorageAccessError,
    StorageUnavailableError,
)
from trainyard.tasks.specs.datastore import BLOCK_TYPE_SLUG, Datastore
from trainyard.tasks.specs.hosts import Hosts
from trainyard.tasks.specs.urls import OpenEndpoint, OpenUrl, scheme_of, storage_url

# https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-envvars.html
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
_SETTINGS = {
    "endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "profile": ("AWS_PROFILE",),
}

_SYNC: dict[str, Any] = {"_sync": True}  # Prefect's way to say "no coroutine, please" from any context
_Block = TypeVar("_Block", bound=Block)


class DatastoreBlock(Block):
    """A datastore: its URL, and the storage options (credentials, too) that its filesystem needs."""

    _block_type_name: ClassVar[str | None] = "Trainyard Datastore"
    _block_type_slug: ClassVar[str | None] = BLOCK_TYPE_SLUG
    _description: ClassVar[str | None] = "Where training data lives, and the credentials to read it."
    _code_example: ClassVar[str | None] = """\
        ```python
        from trainyard import Datastore

        datastore = Datastore.load("BLOCK_NAME")
        ```"""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: OpenUrl = Field(
        min_length=1, title="URL", description="Any fsspec URL, for example s3://training-data/digits."
    )
    endpoint_url: OpenEndpoint | None = Field(
        default=None, title="Endpoint URL", description="Address of an S3-compatible server."
    )
    anonymous: bool = Field(default=False, title="Anonymous", description="Read a public bucket without credentials.")
    region: str | None = Field(default=None, title="Region", description="The bucket's region.")
    profile: str | None = Field(
        default=None, title="Profile", description="A profile of the AWS configuration files of the staging machine."
    )
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto", title="Addressing", description="Where requests name the bucket: in the path, or in the host."
    )
    link_mode: Literal["reflink", "hardlink"] = Field(
        default="reflink", title="Link mode", description="How files of this machine are staged without a copy."
    )
    storage_options: SecretDict = Field(
        default=SecretDict({}),
        title="Storage options",
        description="Options of the fsspec implementation, for S3 for example key, secret and token.",
    )

    @classmethod
    def from_environment(cls, url: str) -> "DatastoreBlock":
        """A datastore on S3 with the settings and credentials that this process has in its environment.

        Args:
            url: Where the data is, for example ``s3://training-data``.

        Raises:
            InvalidInputError: The variables name no credentials, or the URL is not one of S3.
        """
        if scheme_of(storage_url(url)) not in ("s3", "s3a"):
            raise InvalidInputError(f"{url} is not on S3: only S3's variables are known; give the storage_options.")
        options = {option: os.environ[name] for name, option in _CREDENTIALS.items() if os.environ.get(name)}
        settings = {
            field: value
            for field, names in _SETTINGS.items()
            if (value := next(filter(None, map(os.environ.get, names)), None))
        }
        if not ({"key", "secret"} <= options.keys() or settings.get("profile")):
            raise InvalidInputError(
                "The environment has neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor AWS_PROFILE: set them."
            )
        return cls(url=url, storage_options=SecretDict(options), **settings)


def load_datastore(name: str) -> Datastore:
    """A plain value for a saved block; what is secret stays in the block.

    Args:
        name: The block's name, as in the Prefect UI.

    Raises:
        InvalidInputError: No block of that name is known to the Prefect server, or what it holds is wrong.
        StorageUnavailableError: The Prefect server does not answer; a retry may help.
    """
    return Datastore(url=_load_datastore_block(name).url, block=name)


def block_options(name: str) -> dict[str, Any]:
    """The fsspec options that a block holds, secrets included; raises as ``load_datastore`` does.

    Returns:
        The fields that a ``Datastore`` has too, and the ``storage_options``.
    """
    block = _load_datastore_block(name)
    return {
        "url": block.url,
        "endpoint_url": block.endpoint_url,
        "anonymous": block.anonymous,
        "region": block.region,
        "profile": block.profile,
        "addressing": block.addressing,
        "link_mode": block.link_mode,
        "storage_options": dict(block.storage_options.get_secret_value()),
    }


def _load_datastore_block(name: str) -> DatastoreBlock:
    by_code = "DatastoreBlock(url=...).save(name)"
    return _load_block(DatastoreBlock, name, by_code, refused=StorageAccessError, silent=StorageUnavailableError)


class HostsBlock(Block):
    """Machines to train on, reached over ssh; no secrets: keys stay files."""

    _block_type_name: ClassVar[str | None] = "Trainyard Hosts"
    _block_type_slug: ClassVar[str | None] = "trainyard-hosts"
    _description: ClassVar[str | None] = "Machines that train together, and how ssh reaches them."
    _code_example: ClassVar[str | None] = """\
        ```python
        from trainyard import PyTorch

        estimator = PyTorch(..., compute_target="hosts/BLOCK_NAME")
        ```"""

    target: Hosts = Field(title="Hosts", description="The machines, and how to reach them.")


def load_hosts(name: str) -> Hosts:
    """The hosts that a block holds.

    Args:
        name: The block's name, as in the Prefect UI.

    Raises:
        InvalidInputError: No block of that name is known to the Prefect server, or what it holds is wrong.
        PrefectUnavailableError: The Prefect server does not answer; a retry may help.
    """
    by_code = "HostsBlock(target=Hosts(...)).save(name) from trainyard.tasks.blocks"
    block = _load_block(HostsBlock, name, by_code, refused=PrefectUnavailableError, silent=PrefectUnavailableError)
    return block.target


def _load_block(
    kind: type[_Block], name: str, by_code: str, *, refused: type[PipelineError], silent: type[PipelineError]
) -> _Block:
    """A saved block.

    Args:
        kind: Its class.
        name: Its name.
        by_code: What creates one, for people.
        refused: Raised where the server does not let us read it.
        silent: Raised where the server does not answer.

    Raises:
        InvalidInputError: There is no such block, or what it holds is wrong.
    """
    block_type = kind._block_type_name
    try:
        block = kind.load(name, **_SYNC)
    except ValueError as error:
        raise InvalidInputError(
            f"There is no Prefect block {name!r} of type {block_type!r} on {_server()}: create it in the UI or with "
            f"{by_code}."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
        if isinstance(error.__cause__, ValidationError):  # Prefect's server takes what the block itself refuses
            raise InvalidInputError(
                f"The Prefect block {name!r} of type {block_type!r} is wrong: {_problems(error.__cause__)}; correct it "
                "in the UI."
            ) from None
        place = f"The Prefect server that holds the block {name!r} of type {block_type!r}"
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
            raise refused(
                f"{place} refused to tell it ({error.response.status_code}): check PREFECT_API_KEY, or "
                "PREFECT_API_AUTH_STRING."
            ) from error
        raise silent(f"{place} did not answer ({type(error).__name__}): check PREFECT_API_URL.") from error
    assert isinstance(block, kind), name
    return block


def _server() -> str:
    """The server that was asked, for people: one of several perhaps, of which another has what they look for."""
    address: str | None = PREFECT_API_URL.value()
    if address:
        return f"the server {redacted_url(address)}"
    return (
        "Prefect's temporary server, which was asked because PREFECT_API_URL is not set ('trainyard up' prints the "
        "line that sets it: export PREFECT_API_URL=...)"
    )


def _problems(error: ValidationError) -> str:
    """What is wrong with each field, without its value."""
    found = (f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors(include_input=False))
    return "; ".join(found)
