"""Where data lives: a datastore is a URL, a reference is a place inside it."""

import os.path
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from trainyard.tasks.credentials import key_problem
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.specs.urls import OpenEndpoint, OpenUrl, joined

MOST_LEVELS_UP = 2
"""How far above the script's working directory a run may put data: ``../../data``, where many a repository has it."""


BLOCK_TYPE_SLUG = "trainyard-datastore"
"""What Prefect calls the type of the blocks that hold datastores."""


class DataReference(Spec):
    """One object, or all objects under a prefix, of a datastore; reaches the script as a local path.

    Every run sees a directory of its own: what a script adds beside its data, or removes, no other run sees.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    datastore: "Datastore" = Field(title="Datastore")
    """The datastore it is in."""

    key: str = Field(default="", title="Key or prefix")
    """Path inside the datastore: one object, a prefix (everything below it), or a pattern such as ``train/*.png``
    (``*`` and ``?`` stay in one folder, ``**`` does not; an object or prefix of that very name goes first). Empty:
    the whole datastore."""

    mode: Literal["mount", "download"] = Field(default="mount", title="Mode")
    """``mount``: links to verified files that all runs share, read-only. ``download``: a copy for this run alone,
    for scripts that change files in place."""

    path_on_compute: str | None = Field(default=None, min_length=1, title="Path", examples=["../data"])
    """Directory where the script looks for it, relative to its working directory, for scripts that have the path in
    their code. By default one that the run chooses, and tells the script."""

    @field_validator("path_on_compute")
    @classmethod
    def _path_stays_with_the_run(cls, value: str | None) -> str | None:
        if value is None:
            return None
        path = os.path.normpath(value)
        if "\0" in value or os.path.isabs(path) or path.split("/").count("..") > MOST_LEVELS_UP:
            raise ValueError(
                f"{value!r} must be a path relative to the script's working directory, at most {MOST_LEVELS_UP} levels "
                "up: for example 'data' or '../data'"
            )
        return path

    @field_validator("key")
    @classmethod
    def _key_stays_in_the_datastore(cls, value: str) -> str:
        if ".." in value.split("/"):
            raise ValueError("leads out of the datastore with '..': name a datastore that holds it")
        if "\0" in value or value.encode(errors="replace").decode() != value:
            raise ValueError("holds a NUL character, or is not valid Unicode")
        return value

    @model_validator(mode="after")
    def _refuse_credentials_in_key(self) -> "DataReference":
        problem = key_problem(self.datastore.url, self.key)
        if problem:
            raise ValueError(f"key {problem}")
        return self

    @property
    def uri(self) -> str:
        """The full address, for example ``s3://training-data/digits/train``."""
        return joined(self.datastore.url, self.key) if self.key else self.datastore.url

    def as_mount(self, path_on_compute: str | None = None) -> "DataReference":
        """The same data; the script gets a local path to it, its files read-only.

        Args:
            path_on_compute: Where the script looks for it, relative to its working directory.
        """
        return self._at("mount", path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> "DataReference":
        """The same data; the script gets a local path to a copy of its own.

        Args:
            path_on_compute: Where the script looks for it, relative to its working directory.
        """
        return self._at("download", path_on_compute)

    def _at(self, mode: Literal["mount", "download"], path: str | None) -> "DataReference":
        return DataReference(datastore=self.datastore, key=self.key, mode=mode, path_on_compute=path)


class Datastore(Spec):
    """A place that holds data, as any fsspec URL: ``s3://bucket/prefix``, ``file:///data``, ``memory://x``.

    Credentials are never fields. They come from the environment (for S3: ``AWS_ACCESS_KEY_ID``,
    ``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...) of the process that stages the data,
    or from the Prefect block that ``block`` names.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    url: OpenUrl = Field(min_length=1, title="URL", examples=["s3://training-data/digits"])
    """Any fsspec URL; a plain path means ``file://``."""

    endpoint_url: OpenEndpoint | None = Field(default=None, title="Endpoint URL", examples=["http://127.0.0.1:9000"])
    """Address of an S3-compatible server; the environment's, or the cloud's own, by default."""

    anonymous: bool = Field(default=False, title="Anonymous")
    """Read a public bucket without credentials."""

    region: str | None = Field(default=None, title="Region", examples=["eu-central-1"])
    """The bucket's region; the environment's, or the profile's, by default."""

    profile: str | None = Field(default=None, title="Profile", examples=["training"])
    """A profile of the AWS configuration files of the machine that stages the data."""

    addressing: Literal["auto", "path", "virtual"] = Field(default="auto", title="Addressing")
    """Where requests name the bucket: in the path, or in the host. auto: in the path for servers of one's own."""

    link_mode: Literal["reflink", "hardlink"] = Field(default="reflink", title="Link mode")
    """How files of this machine are staged without a copy. ``reflink``: where the filesystem shares extents (Btrfs,
    XFS); elsewhere they are copied. ``hardlink``: where it does not, as links to the files themselves, which nobody
    may write to while a training reads them; those on another disk are copied."""

    block: str | None = Field(default=None, title="Prefect block")
    """Name of the Prefect block (type ``trainyard-datastore``) that holds the secret storage options."""

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"url": data}
        if isinstance(data, dict) and "block" in data and "url" not in data:
            raise ValueError(
                f"names the block {data['block']!r} without a url, by which the data is known; write both, for example "
                f"{{url: s3://training-data/digits, block: {data['block']}}}"
            )
        return from_block(data)

    @classmethod
    def load(cls, name: str) -> "Datastore":
        """A datastore saved as a Prefect block.

        Args:
            name: The block's name, as in the Prefect UI.

        Raises:
            InvalidInputError: No block of that name is known to the Prefect server.
            StorageUnavailableError: The Prefect server does not answer.
        """
        from trainyard.tasks.blocks import load_datastore

        return load_datastore(name)

    def path(self, key: str) -> DataReference:
        """A reference to one object or prefix inside this datastore.

        Args:
            key: Path relative to the datastore's URL, for example ``"train/"`` or ``"train/*.png"``.
        """
        return DataReference(datastore=self, key=key)

    def as_mount(self, path_on_compute: str | None = None) -> DataReference:
        """A reference to the whole datastore; as ``DataReference.as_mount``."""
        return DataReference(datastore=self, path_on_compute=path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DataReference:
        """A reference to the whole datastore; as ``DataReference.as_download``."""
        return DataReference(datastore=self, mode="download", path_on_compute=path_on_compute)


DataReference.model_rebuild()


def kind_of_data(fields: Mapping[str, Any]) -> type[Datastore] | type[DataReference]:
    """What a mapping is meant to be, by its shape: problems with it are those of that kind alone."""
    if "datastore" in fields:
        return DataReference
    if "block" in fields:
        return Datastore
    return DataReference if "url" not in fields and fields.keys() & DataReference.model_fields.keys() else Datastore


def from_block(value: Any) -> Any:
    """The fields of a datastore that a Prefect block holds (``DatastoreBlock.load(name)``); anything else as it is.

    The block is known by what Prefect calls its type, because nothing here imports Prefect.
    """
    if isinstance(value, dict) or getattr(value, "_block_type_slug", None) != BLOCK_TYPE_SLUG:
        return value
    if value._block_document_name is None:
        raise ValueError("is a Prefect block that was not saved, so only this process knows it: save(...) it first")
    return {"url": value.url, "block": value._block_document_name}


def read_data(value: Any) -> Any:
    """A datastore or a reference made of a mapping; anything else as it is."""
    return kind_of_data(value).model_validate(value) if isinstance(value, dict) else value
