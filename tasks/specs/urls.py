"""URLs as fields: what everybody may see, so without credentials; and what their parts mean.

fsspec chains them (``zip://train::s3://bucket/data.zip``): each link but the last says how to read the next one.
"""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from trainyard.tasks.credentials import credentials_problem, endpoint_problem

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
_HAS_SCHEME = re.compile(rf"({_SCHEME})(?:://|::)")
_CHAIN = re.compile(rf"::(?=/|{_SCHEME}(?:://|::))")
_ONE_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
_STORAGES = "s3 s3a gs gcs az abfs abfss adl oss hdfs webhdfs sftp ssh smb ftp"
STORAGE_URL = re.compile(rf"({'|'.join(_STORAGES.split())})://.+")
"""What data is named by; ``http`` and ``file`` as well name servers and meeting places of ranks."""


def scheme_of(url: str) -> str:
    """The scheme of a URL, of its first link in a chain; ``file`` for a plain path."""
    found = _HAS_SCHEME.match(url)
    return found[1].lower() if found else "file"


def local_path_of(url: str) -> Path | None:
    """The path of a URL that names a place of this machine; None of any other."""
    if scheme_of(url) not in ("file", "local"):
        return None
    return Path(re.sub(r"^(file|local):/{0,2}(?=/)", "", url)).expanduser().absolute()


def storage_url(url: str) -> str:
    """The last link of a chain, which says where the bytes are; of other URLs, all of it."""
    return _CHAIN.split(url)[-1]


def joined(url: str, key: str) -> str:
    """The URL of something below another one.

    Args:
        url: Any fsspec URL, or a path.
        key: Path relative to it.
    """
    first, *others = _CHAIN.split(url, maxsplit=1)
    if others and "://" not in first:  # "simplecache::" has no path of its own
        return f"{first}::{joined(others[0], key)}"
    base = first if first.endswith("://") else f"{first.rstrip('/')}/"
    return "::".join([f"{base}{key.lstrip('/')}", *others])


def _checked_url(url: str) -> str:
    problem = credentials_problem(url)
    if problem:
        raise ValueError(problem)
    if _ONE_SLASH.match(url):
        raise ValueError("has one slash behind its scheme, where there are two: for example s3://bucket/prefix")
    return re.sub(rf"^{_SCHEME}(?=://)", lambda scheme: scheme[0].lower(), url)


def _checked_endpoint(url: str) -> str:
    problem = endpoint_problem(url)
    if problem:
        raise ValueError(problem)
    return url


NO_PASSWORD = r"^(?!.*://[^/]*:[^/]*@)"
"""For the schemas of forms, which Prefect checks before there is a run whose parameters would show a password. The most
usual way to write one; everything else is refused by the run itself."""

OpenUrl = Annotated[str, AfterValidator(_checked_url), Field(json_schema_extra={"pattern": NO_PASSWORD})]
"""Any fsspec URL, or a path, without credentials."""

OpenEndpoint = Annotated[str, AfterValidator(_checked_endpoint)]
"""The address of a server, without credentials, query or fragment."""
