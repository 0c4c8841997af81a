"""Bring objects to this machine: several at a time, each hashed as it arrives."""

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from io import FileIO
from pathlib import Path
from queue import SimpleQueue

from trainyard.tasks.artifacts.digests import digest_file
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.artifacts.read_ahead import Block
from trainyard.tasks.staging.durability import syncing_together
from trainyard.tasks.staging.listing import Listing

NUM_TRANSFERS = 16
"""Objects in flight at once; each holds a block of at most 8 MiB in memory, twice while it arrives."""

_TICK_S = 0.25
_SYNC_BYTES = 32 * 2**20
"""How much of a file is brought to the disk at once while the rest arrives."""
_MANY_OBJECTS = 200
"""From so many on, small files are brought to the disk together, not one by one."""
_SMALL_BYTES = 2**20
"""The largest of those; a larger one is synced by the thread that fetches it."""

Fetched = tuple[ObjectInfo, str, str]
"""An object, the path of the finished file with its bytes, and their SHA-256."""


class _StoppedError(Exception):
    """A transfer that another one's failure has ended."""


def fetch_objects(
    listing: Listing,
    objects: Sequence[ObjectInfo],
    scratch: Path,
    count_bytes: Callable[[int], None],
) -> Iterator[list[Fetched]]:
    """Fetch objects of a listing, and give those that are finished and safe on disk, four times a second.

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
    finished: SimpleQueue[tuple[Fetched, bool]] = SimpleQueue()  # and whether its file is on the disk
    prefix = f"{scratch}/{uuid.uuid4().hex}"

    def take() -> tuple[int, ObjectInfo] | None:
        with taking:
            return None if stop.is_set() else next(waiting, None)

    def work() -> None:
        try:
            while taken := take():
                n, info = taken
                path = f"{prefix}-{n}"
                sync = not sync_together or info.num_bytes > _SMALL_BYTES
                sha256, is_synced = _fetch(listing, info, path, count_bytes, stop, sync=sync)
                finished.put(((info, path, sha256), is_synced))
        except _StoppedError:
            return
        except BaseException:
            stop.set()
            raise

    num_workers = min(NUM_TRANSFERS, len(objects))
    with (
        syncing_together(scratch) if len(objects) >= _MANY_OBJECTS else nullcontext() as sync_together,
        ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="stage") as executor,
    ):
        try:
            workers = {executor.submit(work) for _ in range(num_workers)}
            while workers:
                # Woken once a tick, not by each object: this thread would stand in the way of those that work.
                done, workers = wait(workers, timeout=_TICK_S, return_when=FIRST_EXCEPTION)
                failed = [worker for worker in done if worker.exception()]
                if failed:
                    done, workers = wait(workers).done, set()
                batch = [finished.get() for _ in range(finished.qsize())]
                unsynced = [path for (_, path, _), is_synced in batch if not is_synced]
                if sync_together and unsynced:
                    sync_together(unsynced)
                yield [fetched for fetched, _ in batch]
                for worker in [*failed, *done]:
                    worker.result()
        finally:
            stop.set()


def _fetch(
    listing: Listing,
    info: ObjectInfo,
    path: str,
    count_bytes: Callable[[int], None],
    stop: threading.Event,
    *,
    sync: bool,
) -> tuple[str, bool]:
    """Fetch one object to a file.

    Returns:
        The SHA-256 of its bytes; whether they are on the disk, which they always are where ``sync`` asks for that.
    """
    location = listing.location_of(info)
    whole = location.read_whole(info)
    if whole is not None:
        _write_file(path, whole, sync=sync)
        count_bytes(info.num_bytes)
        return hashlib.sha256(whole).hexdigest(), sync
    if location.clone_version(info, Path(path)):
        count_bytes(info.num_bytes)
        return digest_file(Path(path))[0], True
    hasher = hashlib.sha256()
    num_bytes = 0
    with FileIO(path, "w") as out, _early_sync(out, info.num_bytes) as sync_early:
        for block in location.read_version(info):
            hasher.update(block)
            _write(out.fileno(), block)
            num_bytes += len(block)
            count_bytes(len(block))
            sync_early(num_bytes)
            if stop.is_set() and num_bytes < info.num_bytes:
                raise _StoppedError
        if sync:
            os.fsync(out.fileno())
    return hasher.hexdigest(), sync


def _write_file(path: str, data: Block, *, sync: bool) -> None:
    """Make a small file: a file object would ask the system more often, and other threads go first each time."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _write(descriptor, data)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _write(descriptor: int, block: Block) -> None:
    """Write all of a block, which one call need not do on a disk that is nearly full."""
    written = os.write(descriptor, block)
    while written < len(block):
        written += os.write(descriptor, block[written:])
