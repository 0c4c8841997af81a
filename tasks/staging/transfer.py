"""Bring objects to this machine: several at a time, each hashed as it arrives."""

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_file
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.staging.listing import Listing

NUM_TRANSFERS = 16
"""Objects in flight at once; each holds a block of at most 8 MiB in memory, twice while it arrives."""

_TICK_S = 0.5
_MOST_ENDED = 1000

Fetched = tuple[ObjectInfo, Path, str]
"""An object, the finished file with its bytes, and their SHA-256."""


class _StoppedError(Exception):
    """A transfer that another one's failure has ended."""


def fetch_objects(
    listing: Listing,
    objects: Iterable[ObjectInfo],
    scratch: Path,
    count_bytes: Callable[[int], None],
) -> Iterator[list[Fetched]]:
    """Fetch objects of a listing, and give those that are finished, every half second or sooner.

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

    def fetch(info: ObjectInfo) -> Fetched:
        return _fetch(listing, info, scratch, count_bytes, stop)

    waiting = iter(objects)
    with ThreadPoolExecutor(NUM_TRANSFERS, thread_name_prefix="stage") as executor:
        try:
            running = {executor.submit(fetch, info) for info in islice(waiting, 2 * NUM_TRANSFERS)}
            while running:
                done, running = _work(running, lambda: executor.submit(fetch, next(waiting)))
                failed = [future for future in done if future.exception()]
                if failed:
                    stop.set()
                    done, running = done | _settle(running), set()
                yield [future.result() for future in done if not future.exception()]
                for future in failed:
                    future.result()
        finally:
            stop.set()
            executor.shutdown(cancel_futures=True)


def _fetch(
    listing: Listing,
    info: ObjectInfo,
    scratch: Path,
    count_bytes: Callable[[int], None],
    stop: threading.Event,
) -> Fetched:
    path = scratch / uuid.uuid4().hex
    location = listing.location_of(info)
    if location.clone_version(info, path):
        count_bytes(info.num_bytes)
        return info, path, digest_file(path)[0]
    hasher = hashlib.sha256()
    with path.open("wb") as out:
        for block in location.read_version(info):
            hasher.update(block)
            out.write(block)
            count_bytes(len(block))
            if stop.is_set() and out.tell() < info.num_bytes:
                raise _StoppedError
        out.flush()
        os.fsync(out.fileno())
    return info, path, hasher.hexdigest()


def _work(
    running: "set[Future[Fetched]]", begin_next: Callable[[], "Future[Fetched]"]
) -> "tuple[set[Future[Fetched]], set[Future[Fetched]]]":
    """What ends within a tick, at most, and what is under way then; for each that ends another one is begun.

    Not one by one: what is finished is recorded together, with one sync to disk.
    """
    ended: set[Future[Fetched]] = set()
    deadline = time.monotonic() + _TICK_S
    while running and len(ended) < _MOST_ENDED and (left_s := deadline - time.monotonic()) > 0:
        done, running = wait(running, timeout=left_s, return_when=FIRST_COMPLETED)
        ended |= done
        if any(future.exception() for future in done):
            break
        for _ in done:
            with suppress(StopIteration):
                running.add(begin_next())
    return ended, running


def _settle(running: Iterable["Future[Fetched]"]) -> set["Future[Fetched]"]:
    """Wait for what is under way, and forget what has not begun."""
    begun = [future for future in running if not future.cancel()]
    return wait(begun).done
