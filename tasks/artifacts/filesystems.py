"""The one module that imports fsspec: the filesystem behind a URL."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from trainyard.tasks.artifacts import s3_objects
from trainyard.tasks.artifacts.storage_errors import translated
from trainyard.tasks.credentials import credentials_problem, redacted_url
from trainyard.tasks.errors import InvalidInputError


def _known_scheme(url: str) -> bool:
    """Whether fsspec has an implementation for the URL's scheme (a plain path counts as ``file``)."""
    scheme = url.split("://", 1)[0] if "://" in url else "file"
    return scheme in fsspec.available_protocols()


def open_filesystem(url: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    """Fsspec's filesystem for a URL, and the path in it.

    Args:
        url: Any fsspec URL, or a local path.
        storage_options: Passed to the fsspec implementation; may hold secrets, never shown.

    Raises:
        InvalidInputError: The URL's scheme is unknown, or it holds credentials.
    """
    problem = credentials_problem(url)
    if problem:
        raise InvalidInputError(f"The URL {redacted_url(url)} {problem}.")
    if not _known_scheme(url):
        raise InvalidInputError(_unknown_scheme(url))
    is_s3 = s3_objects.is_s3(url)
    options = dict(storage_options)
    if is_s3:
        options = s3_objects.client_options(options)
        _forget_stale_credentials()
    with translated(url):
        fs, path = url_to_fs(url, **options)
    if is_s3:
        s3_objects.bound_retries(fs)
    return fs, path


_credentials_seen = ""


def _forget_stale_credentials() -> None:
    """Drop fsspec's remembered clients when the AWS settings of the environment have changed since."""
    global _credentials_seen
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    seen = hashlib.sha256(repr(settings).encode()).hexdigest()
    if seen != _credentials_seen:
        with translated("s3://"):
            fsspec.get_filesystem_class("s3").clear_instance_cache()
        _credentials_seen = seen


def _unknown_scheme(url: str) -> str:
    """The sentence for a URL whose scheme nobody implements."""
    scheme = url.split("://", 1)[0]
    known = "use for example s3://bucket/prefix or file:///path"
    return f"datastore URL {url!r}: unknown scheme {scheme!r}; {known}"
