"""The one module that imports fsspec: the filesystem behind a URL."""

import hashlib
import inspect
import os
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from trainyard.tasks.artifacts import s3_objects
from trainyard.tasks.artifacts.storage_errors import translated
from trainyard.tasks.credentials import credentials_problem, redacted_url
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.urls import scheme_of, storage_url


def open_filesystem(url: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    """Fsspec's filesystem for a URL, and the path in it.

    Args:
        url: Any fsspec URL, or a local path.
        storage_options: Passed to the fsspec implementation (of a chain, to that of its last link, where the data is);
            may hold secrets, never shown.

    Raises:
        InvalidInputError: The URL's scheme is unknown, it holds credentials, or an option does not fit.
        StorageAccessError: There are no credentials.
    """
    problem = credentials_problem(url)
    if problem:
        raise InvalidInputError(f"The URL {redacted_url(url)} {problem}.")
    if scheme_of(url) not in fsspec.available_protocols():
        raise InvalidInputError(_unknown_scheme(url))
    is_s3 = s3_objects.is_s3(storage_url(url))
    options = dict(storage_options)
    if is_s3:
        options = s3_objects.client_options(options)
        _forget_stale_credentials()
    with translated(url, opening=True):
        fs, path = _open(url, options)
        if s3_objects.is_s3(url):
            s3_objects.bound_retries(fs)
            _ = fs.s3  # here, where an option that does not fit is bad input
    return fs, path


def _open(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    opened: tuple[Any, str]
    if "::" not in url:
        opened = url_to_fs(url, **options)
        return opened
    implementation = fsspec.get_filesystem_class(scheme_of(url))
    if {"fo", "target_protocol"} & inspect.signature(
        implementation.__init__
    ).parameters.keys():  # it works on another one
        inner = storage_url(url)
        opened = url_to_fs(url, **(options if inner == url else {scheme_of(inner): dict(options)}))
        return opened
    # A key with two colons. To url_to_fs every one of them is a chain.
    return implementation(**implementation._get_kwargs_from_urls(url), **options), implementation._strip_protocol(url)


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
    known = "use for example s3://bucket/prefix or file:///path"
    return f"datastore URL {url!r}: unknown scheme {scheme_of(url)!r}; {known}"
