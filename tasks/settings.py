"""Settings from the environment, read in one place (prefix ``TRAINYARD_``)."""

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from trainyard.tasks.credentials import HIDDEN
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.urls import local_path_of

PREFIX = "TRAINYARD_"
SECRET = {"failure_webhook_url"}
STORE_FOLDERS = {"objects", "cache", "runs", "answers", "models", "leases"}
"""What a store has below its URL."""


class Settings(BaseSettings):
    """What differs between machines; nothing here changes what a stage computes.

    Raises:
        InvalidInputError: A variable has a value that cannot be; names each of them.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, use_attribute_docstrings=True, extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(default_factory=lambda: Path.home() / ".trainyard")
    """Directory for runs, checkpoints, staged data and, by default, the store."""

    store: str | None = None
    """URL of the artifact store; ``store/`` in the home directory by default."""

    stop_grace_s: float = Field(default=10.0, ge=0, le=300)
    """Seconds between SIGTERM and SIGKILL for a stopped training; also those that a failed rank has to end."""

    s3_transport: Literal["auto", "s3fs"] = "auto"
    """What reads S3 objects: obstore where it is installed (and s3fs what it cannot), or s3fs alone."""

    lease_ttl_s: float = Field(default=60.0, ge=1, le=3600)
    """Seconds after which a silent run that shares the store is dead: its work is done anew, its training ends."""

    progress_interval_s: float = Field(default=2.0, ge=0.1, le=3600)
    """Least seconds between two progress lines of one stage."""

    server_port: int = Field(default=4200, ge=1, le=65535)
    """Port of the Prefect server that Trainyard starts on this machine; any free one where it is taken."""

    worker_wait_s: float = Field(default=60.0, ge=0, le=86_400)
    """Seconds to wait for a run to be started on a work pool that has no live worker, or is paused."""

    lost_after_s: int = Field(default=180, ge=60, le=86_400)
    """Seconds without a heartbeat after which a deployed run, which sends one every 30, counts as lost."""

    failure_webhook_url: SecretStr | None = None
    """Address that ``trainyard deploy`` has the Prefect server call when a pipeline fails."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = [_problem(str(item["loc"][0]), item["input"], item["msg"]) for item in error.errors()]
            raise InvalidInputError.from_problems("The settings of this machine", problems) from error

    @field_validator("home")
    @classmethod
    def _anchor_home(cls, home: Path) -> Path:
        try:
            return home.expanduser().absolute()
        except RuntimeError:
            raise ValueError(f"{str(home)!r}: this machine knows no such user") from None

    @field_validator("store")
    @classmethod
    def _check_store(cls, store: str | None, info: ValidationInfo) -> str | None:
        problem = store_problem(store, info.data["home"]) if store and "home" in info.data else None
        if problem:
            raise ValueError(problem)
        return store

    @field_validator("failure_webhook_url")
    @classmethod
    def _check_webhook(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not _is_web_address(url.get_secret_value()):
            raise ValueError("no address that a server can call; expected https://host/path or http://host/path")
        return url or None

    @property
    def store_url(self) -> str:
        """The store to use where a call names none."""
        return self.store or f"file://{self.home / 'store'}"  # fsspec takes paths as they are: no as_uri


def store_problem(url: str, home: Path) -> str | None:
    """Why a store may not be where it is: its files and those of the home directory must not be taken for each other.

    Args:
        url: The store's.
        home: This machine's directory.
    """
    path = local_path_of(url)
    if path is None:
        return None
    place, own, usual = path.resolve(), home.resolve(), (home / "store").resolve()
    if place == own or (own in place.parents and usual not in (place, *place.parents)):
        what = f"it lies in TRAINYARD_HOME ({home}), where other things are"
    elif place in own.parents and own.relative_to(place).parts[0] in STORE_FOLDERS:
        what = f"TRAINYARD_HOME ({home}) lies in a folder of it"
    else:
        return None
    return f"no place for the artifact store: {what}. Its own folder there is {home / 'store'}; or name another place."


def _problem(field: str, value: object, message: str) -> str:
    """What is wrong with a setting, by the variable that a person knows it as; a secret is not shown."""
    shown = HIDDEN if field in SECRET else value
    return f"{PREFIX}{field.upper()}={shown}: {message.removeprefix('Value error, ')}"


def _is_web_address(text: str) -> bool:
    try:
        address = urlsplit(text)
        has_place = bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number
        return False
    return address.scheme in ("http", "https") and has_place and not re.search(r"\s", text)
