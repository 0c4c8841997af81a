"""Which stores the runs of a home use: what they left at home is needed as long as a run in any of them lives."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.artifacts.local_files import replacing


def remember_store(home: Path, url: str) -> None:
    """Note that runs of this home use a store; a file a store, so that nobody overwrites what another one notes."""
    path = home / "stores" / f"{digest_bytes(url.encode())[:32]}.url"
    if path.exists():
        return
    with suppress(OSError), replacing(path) as scratch:  # a full disk: the stage itself will say so
        scratch.write_text(url)


def known_stores(home: Path) -> Iterator[str]:
    """URLs of the stores that runs of this home used, sorted."""
    for path in sorted((home / "stores").glob("*.url")):
        with suppress(OSError, UnicodeDecodeError):
            yield path.read_text()
