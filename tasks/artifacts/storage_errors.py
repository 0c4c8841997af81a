"""Errors of fsspec and its backends turned into ours, in one table beside the one module that imports it."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trainyard.tasks.errors import (
    InvalidInputError,
    ObjectChangedError,
    PipelineError,
    StorageAccessError,
    StorageNotFoundError,
    StorageUnavailableError,
)

_BACKENDS = {"botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs"}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"}
_BAD_REQUEST = {"ParamValidationError", "InvalidRegionError", "InvalidEndpointConfigurationError"}
# Codes of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html that are about who asks; the
# last is what rclone's server says to a request without a signature.
_REFUSED_CODES = {"ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed", "UnsupportedAlgorithm"}
_RETRYABLE_STATUS = {408, 429}
_OF_THIS_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EISDIR, errno.ENAMETOOLONG}

_SET_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment of this process, "
    "or use a datastore block"
)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn errors of fsspec and its backends into ours.

    Args:
        url: What was being read or written, for the message.

    Raises:
        StorageNotFoundError: No such bucket, or no such key in it. A retry does not help.
        StorageAccessError: Credentials are missing or refused. A retry does not help.
        InvalidInputError: The request itself is wrong, or a backend is not installed. A retry does not help.
        ObjectChangedError: The object is no longer the version that was asked for. A retry lists it anew.
        StorageUnavailableError: Everything that time may mend.
    """
    try:
        yield
    except PipelineError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StorageNotFoundError(_not_found(url, error)) from error
    except PermissionError as error:
        raise StorageAccessError(_refused(url, error)) from error
    except ImportError as error:
        raise InvalidInputError(f"{url}: its fsspec implementation is not installed ({error}).") from error
    except OSError as error:
        if error.errno in _OF_THIS_MACHINE:
            raise
        raise _from_backend(url, error) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in _BACKENDS or _is_endpoint_error(error):
            raise _from_backend(url, error) from error
        raise


def changed(url: str) -> ObjectChangedError:
    """The error for an object that is no longer the version that was listed."""
    return ObjectChangedError(f"{url} was overwritten while it was read; the next attempt lists it anew.")


def cut_short(url: str, expected: int, got: int) -> StorageUnavailableError:
    """The error for an object of which too few, or too many, bytes came."""
    return StorageUnavailableError(f"{url}: expected {expected:,} bytes, got {got:,}; this is retried.")


def _from_backend(url: str, error: Exception) -> PipelineError:
    name, code, status = type(error).__name__, _code(error), _status(error)
    if name in _NO_CREDENTIALS:
        return StorageAccessError(f"No credentials for {url} ({_brief(error)}): {_SET_CREDENTIALS}.")
    if name == "FileExpired" or status == 412 or code == "ConditionalRequestConflict":
        return changed(url)
    if code in _REFUSED_CODES or status in (401, 403):
        return StorageAccessError(_refused(url, error))
    if name in _BAD_REQUEST or _is_endpoint_error(error) or _is_wrong_request(status):
        return InvalidInputError(
            f"{url} cannot be asked for ({_brief(error)}): check the bucket, the key and the endpoint URL."
        )
    return StorageUnavailableError(
        f"{url} did not answer ({_brief(error)}): check the endpoint and the network; this is retried."
    )


def _not_found(url: str, error: OSError) -> str:
    scheme, _, path = url.partition("://")
    bucket, _, key = path.partition("/")
    if scheme in ("s3", "s3a") and (_code(error) == "NoSuchBucket" or not key):
        return f"The bucket {bucket!r} of {url} does not exist: check its name and the endpoint URL."
    if scheme in ("s3", "s3a"):
        return f"Nothing found at {url}: the bucket exists, but has no such object or prefix; check the key."
    return f"Nothing found at {url}: check the path and its spelling ({_brief(error)})."


def _refused(url: str, error: Exception) -> str:
    match _code(error):
        case "InvalidAccessKeyId":
            return f"{url}: the server does not know this access key id; check AWS_ACCESS_KEY_ID."
        case "SignatureDoesNotMatch":
            return f"{url}: the secret key is not that of the access key id; check AWS_SECRET_ACCESS_KEY."
        case "ExpiredToken" | "InvalidToken":
            return f"{url}: the session token has expired or is wrong; renew AWS_SESSION_TOKEN."
        case "RequestTimeTooSkewed":
            return f"{url}: this machine's clock differs too much from the server's; set the clock."
        case "UnsupportedAlgorithm":
            return f"{url} does not answer anonymous requests: set anonymous=False and {_SET_CREDENTIALS}."
        case None:
            return f"{url} may not be read ({_brief(error)}): check the permissions of this user."
    return (
        f"Access to {url} was refused ({_brief(error)}): these credentials may not list or read it; "
        "ask for the permission, or use others."
    )


def _is_endpoint_error(error: Exception) -> bool:
    """Whether it is botocore's plain ``ValueError`` about an endpoint URL."""
    return isinstance(error, ValueError) and str(error).startswith("Invalid endpoint")


def _is_wrong_request(status: int | None) -> bool:
    return status is not None and 400 <= status < 500 and status not in _RETRYABLE_STATUS


def _response(error: BaseException) -> Mapping[str, Any]:
    """The answer of the S3 server behind an error: s3fs keeps botocore's error as the cause of its own."""
    found = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return found if isinstance(found, Mapping) else {}


def _code(error: BaseException) -> str | None:
    code = _response(error).get("Error", {}).get("Code")
    return None if code is None else str(code)


def _status(error: BaseException) -> int | None:
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None if status is None else int(status)


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
