"""Claims on one machine, one at a time.

``Location.create_bytes`` lets exactly one of several writers succeed where the storage can create an object only if
there is none: local disks, memory, and S3 servers that know ``If-None-Match``. A server that does not know it would let
two writers at the same moment both believe that they succeeded; among the processes of this machine, this lock keeps
them apart.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from trainyard.tasks.artifacts.digests import digest_bytes


@contextmanager
def claiming(url: str) -> Iterator[None]:
    """Nobody else on this machine claims the same URL while the block runs; the kernel frees a dead holder's lock."""
    path = Path(tempfile.gettempdir()) / f"trainyard-claim-{digest_bytes(url.encode())[:32]}.lock"
    with FileLock(path, mode=0o666):
        yield
