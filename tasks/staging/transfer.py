"""Bring objects to this machine: several at a time, each hashed as it arrives."""

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from queue import SimpleQueue

from trainyard.tasks.artifacts.digests import digest_file
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.artifacts.read_ahead import Block
from trainyard.tasks.staging.listing import Listing

NUM_TRANSFERS = 16
"""Objects in flight at once; each holds a block of at most 8 MiB in memory, twice while it arrives."""

_TICK_S = 0.5
_SYNC_BYTES = 64 * 2**20
"""How much of a file is brought to the disk at once while the rest arrives."""

Fetched = tuple[ObjectInfo, Path, str]
"""An object, the finished file with its bytes, and their SHA-256."""


class _StoppedError(Exception):
    """A transfer that another one's failure has ended."""


def fetch_objects(
    listing: Listing,
    objects: Sequence[ObjectInfo],
    scratch: Path,
    count_bytes: Callable[[int], None],
) -> Iterator[list[Fetched]]:
    """Fetch objects of a listing, and give those that are finished, every half second.

    After the first error nothing new is begun, what is under way is dropped, what is finished is given,
    and then the error is raised.

    Args:
        listing: Where the objects are.
        objects: Which of them to fetch.
        scratch: Directory for the files; whoever takes a file moves it away.
        count_bytes: Called, from the transferring threads, with the size of each block that arrived.

    Raises:
        ObjectChangedError: An object is no longer the version that was listed; a retry lists it anew.
        StorageUnavailableError: The storage failed; a retry goes on from here.
        PipelineError: Other errors of the storage.
    """
    stop = threading.Event()
    waiting, taking = enumerate(objects), threading.Lock()
    finished: SimpleQueue[Fetched] = SimpleQueue()
    prefix = uuid.uuid4().hex

    def take() -> tuple[int, ObjectInfo] | None:
        with taking:
            return None if stop.is_set() else next(waiting, None)

    def work() -> None:
        try:
            while taken := take():
                n, info = taken
                path = scratch / f"{prefix}-{n}"
                finished.put((info, path, _fetch(listing, info, path, count_bytes, stop)))
        except _StoppedError:
            return
        except BaseException:
            stop.set()
            raise

    num_workers = min(NUM_TRANSFERS, len(objects))
    with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="stage") as executor:
        try:
            workers = {executor.submit(work) for _ in range(num_workers)}
            while workers:
                # Woken once a tick, not by each object: this thread would stand in the way of those that work.
                done, workers = wait(workers, timeout=_TICK_S, return_when=FIRST_EXCEPTION)
                failed = [worker for worker in done if worker.exception()]
                if failed:
                    done, workers = wait(workers).done, set()
                yield _drain(finished)
                for worker in [*failed, *done]:
                    worker.result()
        finally:
            stop.set()


def _drain(finished: "SimpleQueue[Fetched]") -> list[Fetched]:
    """What is finished by now; together, so that it is recorded with one sync to disk."""
    return [finished.get() for _ in range(finished.qsize())]


def _fetch(
    listing: Listing,
    info: ObjectInfo,
    path: Path,
    count_bytes: Callable[[int], None],
    stop: threading.Event,
) -> str:
    """Fetch one object to a file that is safe on disk; its SHA-256."""
    location = listing.location_of(info)
    if location.clone_version(info, path):
        count_bytes(info.num_bytes)
        return digest_file(path)[0]
    hasher = hashlib.sha256()
    num_bytes = 0
    with path.open("wb", buffering=0) as out, _early_sync(out, info.num_bytes) as sync:
        for block in location.read_version(info):
            hasher.update(block)
            _write(out, block)
            num_bytes += len(block)
            count_bytes(len(block))
            sync(num_bytes)
            if stop.is_set() and num_bytes < info.num_bytes:
                raise _StoppedError
        os.fsync(out.fileno())
    return hasher.hexdigest()


@contextmanager
def _early_sync(out: FileIO, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Bring a large file to the disk while it arrives, so that the last fsync has little left to do.

    Yields:
        To be called with the bytes that were written so far. What it, or the end of the block, raises is the disk's
        error: the kernel tells it once, so that no later fsync would.
    """
    if total_bytes < _SYNC_BYTES:
        yield lambda num_bytes: None
        return
    begun: Future[None] | None = None
    synced = 0

    def sync(num_bytes: int) -> None:
        nonlocal begun, synced
        if num_bytes - synced < _SYNC_BYTES or (begun and not begun.done()):
            return
        if begun:
            begun.result()
        begun, synced = executor.submit(os.fdatasync, out.fileno()), num_bytes

    with ThreadPoolExecutor(1, thread_name_prefix="sync") as executor:
        yield sync
    if begun:
        begun.result()


def _write(out: FileIO, block: Block) -> None:
    """Write all of a block, which one call need not do on a disk that is nearly full."""
    written = out.write(block)
    while written < len(block):
        written += out.write(block[written:])
