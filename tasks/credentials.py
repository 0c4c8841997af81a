"""Credentials in URLs: found, so that a URL with some is refused, and hidden in whatever is shown.

A URL is looked at part by part (fsspec chains them: ``simplecache::s3://bucket/x``). What is taken for a credential:

- what stands before an ``@`` where a server or bucket is named. A name alone, without a colon, is one for web addresses
  (a token) and S3, and none elsewhere: ``sftp://me@host``, ``abfs://container@account``;
- a colon in the place of a server or bucket that begins no port, with an ``@`` anywhere after it: secret keys may hold
  slashes, ``s3://KEY:SEC/RET@bucket``. S3's buckets have no colon at all, but for the names of access points;
- the query of a web address, but for parameters that say which file is meant; elsewhere, where a query may be part of a
  key, one whose parameters are named as secrets are.

A key behind the first slash may hold an ``@`` and a ``?``.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,31}"
_CHAIN = re.compile(rf"::(?=/|{_SCHEME}::)")
_ADDRESS = re.compile(rf"(?P<scheme>{_SCHEME})://(?P<rest>(?:(?!{_SCHEME}://).)+)", re.DOTALL)
_IN_TEXT = re.compile(rf"(?P<scheme>{_SCHEME})://(?P<rest>(?:(?!{_SCHEME}://)[^\s\"<>])+)")
_NOT_IN_A_URL = re.compile(r"[\s\"<>]")
_END_OF_SENTENCE = ")]}'`.,:;!?"
_PORT = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:]*)(:[0-9]*)?")
_ACCESS_POINT = re.compile(r"arn:[^:]*:s3[a-z-]*:[^@]*")
_VARIABLES = re.compile(r"\$\{[A-Za-z0-9_]+\}(:\$\{[A-Za-z0-9_]+\})?@")
_S3 = {"s3", "s3a"}
_PATHS = {"file", "local", "memory"}
_HARMLESS = {"", "dl", "download", "format", "generation", "raw", "ref", "revision", "version", "versionid"}
_SECRET_NAME = re.compile(
    r"[?&;#][a-z0-9_.%-]*(?:token|secret|passw(?:or)?d|pwd|credentials?|signature|sig|key|keyid|auth|authorization"
    r"|code|jwt|sas)=",
    re.IGNORECASE,
)

HIDDEN = "****"
"""What stands in the place of a credential."""

ADVICE = (
    "keep credentials out of URLs (parameters are shown in the Prefect UI); use the environment of the machine that "
    "stages the data, or the secret storage options of a Prefect block of type Trainyard Datastore; a run that was "
    "started with it shows it among its parameters, so change it then"
)


_QUERY_PROBLEM = (
    "has a query, which may hold a secret, and parameters are shown in the Prefect UI: put it into the storage options "
    'of a Prefect block of type Trainyard Datastore, for https as {"params": {"name": "value"}}'
)


def credentials_problem(url: str) -> str | None:
    """Why a URL may not be used: it holds credentials, or may. Never shows them.

    Args:
        url: Any fsspec URL, or a local path.

    Returns:
        What follows the name of what it is the URL of (``holds a password...``); None for one without credentials.
    """
    problems = (_problem(scheme, rest) for scheme, rest in _addresses(url))
    return next((problem for problem in problems if problem), None)


def endpoint_problem(url: str) -> str | None:
    """The same for the address of a server: there, every query and fragment is one too many."""
    problem = credentials_problem(url)
    if problem or not set("?#") & set(url):
        return problem
    return f"has a query, which may hold a secret: {ADVICE}"


def key_problem(url: str, key: str) -> str | None:
    """Why a key may not be added to a URL: on the web it would be a query that may hold a secret.

    Args:
        url: The datastore's URL, itself without credentials.
        key: What is added to it; elsewhere than on the web any key is right.
    """
    if not any(_is_web(scheme) for scheme, _ in _addresses(url)):
        return None
    pairs = [pair for pair in re.split(r"[?&;#]", key)[1:] if "=" in pair]  # "img?.png" is a pattern
    return _QUERY_PROBLEM if _has_secret_query("https", f"?{'&'.join(pairs)}") else None


def redacted(text: str) -> str:
    """A text in which the credentials of every URL are hidden; all else stays. Hiding twice changes nothing."""
    return _IN_TEXT.sub(_hide, text)


def redacted_url(url: str) -> str:
    """A URL to show; of one with credentials and a character that no URL has, no more than its scheme."""
    if credentials_problem(url) is None:
        return url
    return f"{url.partition('://')[0]}://{HIDDEN}" if _NOT_IN_A_URL.search(url) else redacted(url)


def _addresses(url: str) -> Iterator[tuple[str, str]]:
    for found in _ADDRESS.finditer(url):
        yield found["scheme"].lower(), _CHAIN.split(found["rest"], maxsplit=1)[0]


def _problem(scheme: str, rest: str) -> str | None:
    if _end_of_credentials(scheme, rest):
        return f"holds a password, a key or a token: {ADVICE}"
    return _QUERY_PROBLEM if _has_secret_query(scheme, rest) else None


def _end_of_credentials(scheme: str, rest: str) -> int:
    """Where the credentials at the beginning of an address end; 0 where there are none."""
    length = len(re.split(r"[/?#]", rest, maxsplit=1)[0])
    place, behind = unquote(rest[:length]), rest[length:]
    if scheme in _S3 and _ACCESS_POINT.fullmatch(place):
        return 0
    user, at, _ = place.rpartition("@")
    is_user = bool(at) and (":" in user or scheme in _S3 or _is_web(scheme))
    is_cut = "@" in behind and scheme not in _PATHS and not _PORT.fullmatch(place)
    is_no_bucket = ":" in place and scheme in _S3
    if not (is_user or is_cut or is_no_bucket):
        return 0
    return rest.rfind("@") + 1 or length


def _has_secret_query(scheme: str, rest: str) -> bool:
    if scheme in _PATHS:
        return False
    query = rest.partition("?")[2].partition("#")[0]
    names = {pair.partition("=")[0].lower() for pair in re.split("[?&;]", query)}
    return (_is_web(scheme) and not names <= _HARMLESS) or _SECRET_NAME.search(rest) is not None


def _is_web(scheme: str) -> bool:
    return scheme.rpartition("+")[2] in ("http", "https")


def _hide(found: "re.Match[str]") -> str:
    scheme, whole = found["scheme"], found["rest"]
    text = whole.rstrip(_END_OF_SENTENCE)
    rest, *others = _CHAIN.split(text, maxsplit=1)
    if _VARIABLES.match(rest):  # names of variables are no credentials
        return found[0]
    end = _end_of_credentials(scheme.lower(), rest)
    shown = f"{HIDDEN}@" if end and rest[end - 1] == "@" else HIDDEN if end else ""
    rest = rest[end:]
    if _has_secret_query(scheme.lower(), rest):
        rest = re.split(r"[?#&;]", rest, maxsplit=1)[0] + "?" + HIDDEN
    return "::".join([f"{scheme}://{shown}{rest}", *others]) + whole[len(text) :]
