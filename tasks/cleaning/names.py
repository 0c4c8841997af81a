"""What Trainyard calls the things that it makes: whatever has another name is somebody else's, and stays."""

import re

from trainyard.tasks.artifacts.products import ANSWERS
from trainyard.tasks.caching.runs import RunName

_SHA256 = "[0-9a-f]{64}"
_UNFINISHED = r"\.[^/]*\.[0-9a-f]{32}\.tmp|\.create\.[^/]*"
"""Files that are only being written (``tasks/artifacts/local_files.py``)."""

_IN_STORE = re.compile(
    rf"objects/[0-9a-f]{{2}}/({_SHA256}|{_UNFINISHED})"
    rf"|cache/[a-z]+/({_SHA256}\.json|{_UNFINISHED})"
    rf"|{re.escape(ANSWERS)}[^/]+/([a-z]+\.json|{_UNFINISHED})"
)
_RUN_NOTE = re.compile(rf"runs/([^/]+)/([a-z]+\.json|{_UNFINISHED})")
_LEASE = re.compile(rf"leases/[a-z]+-{_SHA256}\.json")

_BEING_COPIED = re.compile(r"\.(.+)\.[a-z0-9_]{8}", re.DOTALL)
"""What is being copied from a store (``ArtifactStore.materialize``), or was by somebody who was killed."""

_KEY = re.compile("[0-9a-f]{32}")
_IN_HOME = {
    "datasets": re.compile(_SHA256),
    "environments": re.compile("[0-9a-f]{32}|conda-[0-9a-f]{32}"),
    "runs": re.compile("[0-9]{8}-[0-9]{6}-[0-9a-f]{6}"),
    "checkpoints": _KEY,
    "work": _KEY,
    "models": _KEY,
    "sources": _KEY,
    "damaged": re.compile(".+-[0-9a-f]{8}", re.DOTALL),
    "reports": re.compile(r"validation-[0-9a-f]{16}\.html"),
    "objects": re.compile(rf"[0-9a-f]{{2}}/{_SHA256}"),
}


def is_collected(key: str) -> bool:
    """Whether a file of a store is one that may go, once nothing needs it.

    Args:
        key: Its path below the store's URL.
    """
    note = _RUN_NOTE.fullmatch(key)
    return bool(_IN_STORE.fullmatch(key)) or (note is not None and RunName.parse(note[1]) is not None)


def is_lease(key: str) -> bool:
    """Whether a file of a store is a lease of single flight."""
    return _LEASE.fullmatch(key) is not None


def is_of_home(place: str, name: str) -> bool:
    """Whether something in one of the home directory's places is Trainyard's.

    Args:
        place: The place, for example ``runs``.
        name: Its path in it.
    """
    unfinished = _BEING_COPIED.fullmatch(name)
    return _IN_HOME[place].fullmatch(unfinished[1] if unfinished else name) is not None
