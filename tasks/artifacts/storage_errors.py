"""Errors of fsspec and its backends turned into ours, in one table beside the one module that imports it."""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from trainyard.tasks.credentials import redacted
from trainyard.tasks.errors import (
    InvalidInputError,
    ObjectChangedError,
    PipelineError,
    StorageAccessError,
    StorageNotFoundError,
    StorageUnavailableError,
)

_BACKENDS = {"botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs"}
_PARSERS = {"aiobotocore.parsers", "botocore.parsers"}
_BAD_REQUEST = {
    "EndpointResolutionError",
    "InvalidEndpointConfigurationError",
    "InvalidRegionError",
    "InvalidURL",
    "NonHttpUrlClientError",
    "ParamValidationError",
    "TooManyRedirects",
}
# Codes of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html that are about who asks, or where; the
# last is what rclone's server says to a request without a signature.
_ELSEWHERE = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
_REFUSED_CODES = {"ExpiredToken", "InvalidToken", *_ELSEWHERE, "UnsupportedAlgorithm"}
_RETRYABLE_STATUS = {408, 409, 429}
_CHANGED_STATUS = {412, 416}
"""Of a read of a listed version: it is another one now, or shorter than it was."""
_GONE_STATUS = {404, 410}
_OF_THIS_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EISDIR}
_BAD_NAME = {errno.ELOOP, errno.ENAMETOOLONG}
_MOST_CAUSES = 5

_SET_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment of this process, "
    "or use a datastore block"
)
_OR_IN_BLOCK = ", or the storage options of the datastore's block."
_RETRIED = "; retried as the stage's policy says."
_LOG_IN = "log in again, for example with 'aws sso login'"
_CREDENTIALS = {
    "NoCredentialsError": _SET_CREDENTIALS,
    "PartialCredentialsError": _SET_CREDENTIALS,
    "ProfileNotFound": "name a profile that ~/.aws/config or ~/.aws/credentials of this machine has",
    "SSOTokenLoadError": _LOG_IN,
    "TokenRetrievalError": _LOG_IN,
    "UnauthorizedSSOTokenError": _LOG_IN,
    "CredentialRetrievalError": "run the profile's credential_process by itself to see why",
    "ConfigParseError": "correct ~/.aws/config",
    "ConfigNotFound": "correct AWS_CONFIG_FILE",
}
"""What to do where botocore has no credentials to ask with, by the name of its error."""


class BackendError(Exception):
    """What a backend raised, as text without credentials: the cause of an error of ours.

    The backend's own would be printed with it, and written to logs, with the address that was asked.
    """

    kind = ""
    """Name of the backend's error."""


class NoSuchKeyError(FileNotFoundError):
    """There is the bucket, and nothing of that name in it."""


@contextmanager
def translated(url: str, *, opening: bool = False) -> Iterator[None]:
    """Turn errors of fsspec and its backends into ours.

    Args:
        url: What was being read or written, for the message.
        opening: Whether a filesystem is made from what a person wrote: then it is to blame for whatever else is raised.

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
    except Exception as error:
        ours = _translate(url, _behind(error), opening=opening)
        if ours is None:
            raise
        raise ours from _shown(error)


def timed_out(error: PipelineError) -> bool:
    """Whether a backend waited in vain for a server."""
    return isinstance(error.__cause__, BackendError) and error.__cause__.kind.endswith("TimeoutError")


def changed(url: str) -> ObjectChangedError:
    """The error for an object that is no longer the version that was listed."""
    return ObjectChangedError(f"{url} was overwritten while it was read; the next attempt lists it anew.")


def other_bytes(url: str, expected: str, told: str) -> StorageUnavailableError:
    """The error for an answer that says that it is of other bytes than those that were asked for."""
    return StorageUnavailableError(f"{url}: asked for {expected}, answered with {told!r}{_RETRIED}")


def cut_short(url: str, expected: int, got: int) -> StorageUnavailableError:
    """The error for an object of which too few, or too many, bytes came."""
    return StorageUnavailableError(f"{url}: expected {expected:,} bytes, got {got:,}{_RETRIED}")


def given_up(url: str) -> StorageUnavailableError:
    """The error for a read that nobody waits for any more."""
    return StorageUnavailableError(f"{url} was not read to its end: what it was read for has ended.")


def odd_answer(url: str, what: str) -> StorageUnavailableError:
    """The error for an answer that no S3 server gives: of a proxy, of a server that is ill, or of something else.

    Args:
        url: What was asked for.
        what: What is wrong with the answer, as the end of "was answered ...".
    """
    return StorageUnavailableError(
        f"{url} was answered {what}, as no S3 server does: check the endpoint and the network{_RETRIED}"
    )


def no_s3_server(url: str, endpoint: str) -> InvalidInputError:
    """The error for a server whose answers are not those of S3."""
    return InvalidInputError(
        f"What answers for {url} at {endpoint} is no S3 server: check the endpoint URL, which names no bucket."
    )


def _behind(error: Exception) -> BaseException:
    """What the backend met with: to fsspec, whatever goes wrong with a web address is a file that is not there."""
    cause = error.__cause__
    if type(error) is not FileNotFoundError or cause is None or isinstance(cause, FileNotFoundError):
        return error
    return cause if isinstance(cause, OSError) or _backend(cause) == "aiohttp" else error


def _backend(error: BaseException) -> str:
    return type(error).__module__.split(".")[0]


def _shown(error: BaseException, most: int = _MOST_CAUSES) -> BackendError:
    """An error and its causes, as a traceback prints them, without credentials."""
    shown = BackendError(redacted(f"{type(error).__module__}.{type(error).__qualname__}: {error}"))
    shown.kind = type(error).__name__
    if error.__cause__ and most > 1:
        shown.__cause__ = _shown(error.__cause__, most - 1)
    return shown.with_traceback(error.__traceback__)


def _translate(url: str, error: BaseException, *, opening: bool) -> PipelineError | None:
    """The error of ours; None where it is neither the storage's nor that of who names it."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return StorageNotFoundError(_not_found(url, error))
    if isinstance(error, PermissionError):
        return StorageAccessError(_refused(url, error))
    if isinstance(error, ImportError):
        return InvalidInputError(f"{url}: its fsspec implementation is not installed ({error}).")
    if isinstance(error, OSError) and error.errno in _BAD_NAME | (_OF_THIS_MACHINE if opening else set()):
        return InvalidInputError(f"{url} cannot be opened ({_brief(error)}): check the path.")
    if isinstance(error, OSError) and error.errno in _OF_THIS_MACHINE:
        return None
    if isinstance(error, OSError) or _backend(error) in _BACKENDS or _is_endpoint_error(error):
        return _from_backend(url, error)
    if isinstance(error, RecursionError):  # botocore's, that asks where the bucket is until it can no more
        return InvalidInputError(
            f"{url}: the server says that it is elsewhere, and not where: set the bucket's region or another endpoint."
        )
    if _is_of_parser(error):
        return odd_answer(url, f"with what cannot be read ({_brief(error)})")
    if opening:
        return InvalidInputError(f"{url} cannot be opened ({_brief(error)}): check the URL and the storage options.")
    return None


def _from_backend(url: str, error: BaseException) -> PipelineError:
    name, code, status = type(error).__name__, _code(error), _status(error)
    if name in _CREDENTIALS:
        return StorageAccessError(f"No credentials for {url} ({_brief(error)}): {_CREDENTIALS[name]}.")
    if "header injection" in str(error):
        return StorageAccessError(
            f"A credential for {url} holds a line break: look at the end of AWS_ACCESS_KEY_ID, of AWS_SESSION_TOKEN, "
            "or of the block's options."
        )
    if name == "FileExpired" or status in _CHANGED_STATUS or code == "ConditionalRequestConflict":
        return changed(url)
    if code in _REFUSED_CODES or status in (401, 403):
        return StorageAccessError(_refused(url, error))
    if status in _GONE_STATUS:
        return StorageNotFoundError(_not_found(url, error))
    if name in _BAD_REQUEST or _is_endpoint_error(error) or _is_wrong_request(status):
        return InvalidInputError(
            f"{url} cannot be asked for ({_brief(error)}): check the bucket, the key and the endpoint URL."
        )
    return StorageUnavailableError(
        f"{url} did not answer ({_brief(error)}): check the endpoint and the network{_RETRIED}"
    )


def _not_found(url: str, error: BaseException) -> str:
    scheme, _, path = url.partition("://")
    bucket, _, key = path.partition("/")
    if scheme not in ("s3", "s3a"):
        return f"Nothing found at {url}: check the path and its spelling ({_brief(error)})."
    if _code(error) == "NoSuchBucket" or not key:
        return f"The bucket {bucket!r} of {url} does not exist: check its name and the endpoint URL."
    if isinstance(error, NoSuchKeyError):
        return f"Nothing found at {url}: the bucket exists, but has no such object or prefix; check the key."
    return f"Nothing found at {url}: check the key, the bucket and the endpoint URL ({_brief(error)})."


def _refused(url: str, error: BaseException) -> str:
    match _code(error):
        case "InvalidAccessKeyId":
            return f"{url}: the server does not know this access key id; check AWS_ACCESS_KEY_ID{_OR_IN_BLOCK}"
        case "SignatureDoesNotMatch":
            return f"{url}: the secret key is not that of the access key id; check AWS_SECRET_ACCESS_KEY{_OR_IN_BLOCK}"
        case "ExpiredToken" | "InvalidToken":
            return f"{url}: the session token has expired or is wrong; renew AWS_SESSION_TOKEN{_OR_IN_BLOCK}"
        case "RequestTimeTooSkewed":
            return f"{url}: this machine's clock differs too much from the server's; set the clock."
        case "InvalidObjectState":
            return f"{url} is archived (Glacier, or a class like it): restore it first, or copy it to another class."
        case "UnsupportedAlgorithm":
            return f"{url} does not answer anonymous requests: set anonymous=False and {_SET_CREDENTIALS}."
        case code if code in _ELSEWHERE:
            return f"{url} is in another region ({_brief(error)}): set {_region(error)}."
        case "MethodNotAllowed":
            return f"{url} may not be asked for in this way ({_brief(error)}): check that the endpoint URL is S3's."
        case None:
            return f"{url} may not be read ({_brief(error)}): check the permissions of this user."
    return (
        f"Access to {url} was refused ({_brief(error)}): these credentials may not list or read it; "
        "ask for the permission, or use others."
    )


def _region(error: BaseException) -> str:
    """The setting that mends a request to the wrong region, with its value where the server tells it."""
    told = str(_response(error).get("Error", {}).get("Region") or "")
    found = told or next(iter(re.findall(r"expecting '([a-z0-9-]+)'", str(error))), "")
    return f'region="{found}"' if found else "the bucket's region"


def _is_endpoint_error(error: BaseException) -> bool:
    """Whether it is botocore's plain ``ValueError`` about an endpoint URL."""
    return isinstance(error, ValueError) and str(error).startswith("Invalid endpoint")


def _is_of_parser(error: BaseException) -> bool:
    """Whether botocore met with something odd in an answer ("many" for a size), for which it has no error."""
    return any(frame.f_globals.get("__name__") in _PARSERS for frame, _ in walk_tb(error.__traceback__))


def _is_wrong_request(status: int | None) -> bool:
    return status is not None and 300 <= status < 500 and status not in _RETRYABLE_STATUS


def _response(error: BaseException) -> Mapping[str, Any]:
    """The answer of the S3 server behind an error: s3fs keeps botocore's error as the cause of its own."""
    found = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return found if isinstance(found, Mapping) else {}


def _code(error: BaseException) -> str | None:
    code = _response(error).get("Error", {}).get("Code")
    return None if code is None else str(code)


def _status(error: BaseException) -> int | None:
    """The status of the server's answer: S3's, or else that of aiohttp's error."""
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(error, "status", None)
    return int(status) if isinstance(status, int) else None


def _brief(error: BaseException) -> str:
    text = " ".join(redacted(str(error)).split())  # before it is cut: half a URL is not known for one
    return f"{type(error).__name__}: {text[:200]}"
