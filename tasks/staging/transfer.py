"""Bring objects to this machine: several at a time, each hashed as it arrives."""

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from io import FileIO
from pathlib import Path
from queue import SimpleQueue

from trainyard.tasks.artifacts.digests import digest_file
from trainyard.tasks.artifacts.local_files import file_version
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.artifacts.read_ahead import Block
from trainyard.tasks.artifacts.storage_errors import changed
from trainyard.tasks.staging.durability import syncing_early, syncing_together
from trainyard.tasks.staging.index import same_state
from trainyard.tasks.staging.listing import Listing
from trainyard.tasks.staging.pool import FinishedFile
from trainyard.tasks.staging.unfinished import ArrivingFile, UnfinishedObjects, write_all

NUM_TRANSFERS = 16
"""Objects in flight at once; each holds a block of at most 8 MiB in memory, twice while it arrives."""

_TICK_S = 0.25
_MANY_OBJECTS = 200
"""From so many on, small files are brought to the disk together, not one by one."""
_SMALL_BYTES = 2**20
"""The largest of those; a larger one is synced by the thread that fetches it."""
_HANDED_BYTES = 2**18
"""The largest object that goes to the thread that writes for all."""
_HASH_ATTEMPTS = 3
"""How often a file is hashed that somebody works at."""
_MANY_ARRIVED = 64
"""From so many before that thread on, who fetches writes his own."""

Fetched = tuple[ObjectInfo, FinishedFile]
"""An object, and the file with its bytes."""


class _StoppedError(Exception):
    """A transfer that another one's failure has ended."""


def fetch_objects(
    listing: Listing,
    objects: Sequence[ObjectInfo],
    scratch: Path,
    count_bytes: Callable[[int], None],
    unfinished: UnfinishedObjects | None = None,
) -> Iterator[list[Fetched]]:
    """Fetch objects of a listing, and give those that are finished and safe on disk, four times a second.

    After the first error nothing new is begun, what is under way is dropped, what is finished is given,
    and then the error is raised.

    Args:
        listing: Where the objects are.
        objects: Which of them to fetch.
        scratch: Directory for the files; whoever takes a file moves it away.
        count_bytes: Called, from the transferring threads, with the size of each block that is in a file.
        unfinished: Where large objects are kept while they arrive, for another attempt; None keeps none.

    Raises:
        ObjectChangedError: An object is no longer the version that was listed; a retry lists it anew.
        StorageUnavailableError: The storage failed; a retry goes on from here.
        PipelineError: Other errors of the storage.
    """
    num_fetchers = min(NUM_TRANSFERS, len(objects))
    with (
        syncing_together(scratch) if len(objects) >= _MANY_OBJECTS else nullcontext() as sync_together,
        ThreadPoolExecutor(max(1, num_fetchers + bool(sync_together)), thread_name_prefix="stage") as executor,
    ):
        sync_each = not sync_together
        transfer = _Transfer(listing, objects, num_fetchers, scratch, count_bytes, unfinished, sync_each=sync_each)
        try:
            running = {executor.submit(transfer.run_fetcher) for _ in range(num_fetchers)}
            if sync_together:
                running.add(executor.submit(transfer.run_writer))
            while running:
                # Woken once a tick, not by each object: this thread would stand in the way of those that work.
                _, running = wait(running, timeout=_TICK_S)
                batch = transfer.take_finished()
                unsynced = [file.path for (_, file), is_synced in batch if not is_synced]
                if sync_together and unsynced:
                    sync_together(unsynced)
                yield [fetched for fetched, _ in batch]
            transfer.raise_first_error()
        finally:
            transfer.stop()


class _Transfer:
    """What the threads of one transfer share: some fetch, and one hashes and writes the small files of them all.

    Sixteen that did all of it would for the most part wait for each other, and for Python's lock.

    Args:
        listing: Where the objects are.
        objects: Which of them to fetch.
        num_fetchers: How many threads fetch.
        scratch: Directory for the files.
        count_bytes: Called with the size of each block that is in a file.
        unfinished: Where large objects are kept while they arrive.
        sync_each: Whether small files, too, are synced one by one: then who fetches one also writes it.
    """

    def __init__(
        self,
        listing: Listing,
        objects: Sequence[ObjectInfo],
        num_fetchers: int,
        scratch: Path,
        count_bytes: Callable[[int], None],
        unfinished: UnfinishedObjects | None,
        *,
        sync_each: bool,
    ) -> None:
        self._stopped = threading.Event()
        self._listing = replace(listing, location=listing.location.until(self._stopped.is_set))
        self._count_bytes, self._sync_each = count_bytes, sync_each
        self._unfinished = unfinished
        self._prefix = f"{scratch}/{uuid.uuid4().hex}"
        self._num_fetchers = num_fetchers
        self._waiting = enumerate(objects)
        self._lock = threading.Lock()  # for those two
        self._arrived: SimpleQueue[tuple[ObjectInfo, str, Block] | None] = SimpleQueue()
        self._finished: SimpleQueue[tuple[Fetched, bool]] = SimpleQueue()  # and whether its file is on the disk
        self._errors: list[BaseException] = []

    def run_fetcher(self) -> None:
        """Fetch one object after the other; what several threads do at once."""
        try:
            with self._errors_kept():
                while taken := self._take():
                    n, info = taken
                    self._fetch(info, f"{self._prefix}-{n}")
        finally:
            with self._lock:
                self._num_fetchers -= 1
                if not self._num_fetchers:
                    self._arrived.put(None)

    def run_writer(self) -> None:
        """Write what was fetched until no more can come; what one thread does."""
        with self._errors_kept():
            while taken := self._arrived.get():
                self._write(*taken, sync=False)

    def stop(self) -> None:
        """Begin nothing new, and drop what comes in blocks; what has arrived whole is still written."""
        self._stopped.set()

    def take_finished(self) -> list[tuple[Fetched, bool]]:
        """What was finished since the last call, and whether it is on the disk."""
        return [self._finished.get() for _ in range(self._finished.qsize())]

    def raise_first_error(self) -> None:
        """Raise what ended the transfer, if it did not end by itself."""
        if self._errors:
            raise self._errors[0]

    @contextmanager
    def _errors_kept(self) -> Iterator[None]:
        try:
            yield
        except _StoppedError:
            return
        except BaseException as error:
            self._errors.append(error)
            self.stop()

    def _take(self) -> tuple[int, ObjectInfo] | None:
        with self._lock:
            return None if self._stopped.is_set() else next(self._waiting, None)

    def _fetch(self, info: ObjectInfo, path: str) -> None:
        location = self._listing.location_of(info)
        sync = self._sync_each or info.num_bytes > _SMALL_BYTES
        whole = location.read_whole(info)
        if whole is None:
            self._copy(location, info, path, sync=sync)
        elif sync or info.num_bytes > _HANDED_BYTES or self._arrived.qsize() >= _MANY_ARRIVED:
            self._write(info, path, whole, sync=sync)
        else:
            self._arrived.put((info, path, whole))

    def _copy(self, location: Location, info: ObjectInfo, path: str, *, sync: bool) -> None:
        sharing = location.share_version(info, Path(path))
        if sharing:
            self._hash(location, info, path, is_linked=sharing == "inode")
            return
        with self._opened(location, info, path) as file:
            with syncing_early(file.out, info.num_bytes, file.checkpoint) as sync_early:
                for block in location.read_version(info, file.num_bytes):
                    file.write(block)
                    self._count_bytes(len(block))
                    sync_early(file.num_bytes)
                    if file.num_bytes < info.num_bytes:
                        self._go_on()
                if sync:
                    os.fsync(file.out.fileno())
            file.finish(path)
        self._finish(info, path, file.sha256(), is_synced=sync)

    @contextmanager
    def _opened(self, location: Location, info: ObjectInfo, path: str) -> Iterator[ArrivingFile]:
        """The file that an object is written to: one that outlives this process, or a new one at the path."""
        with ExitStack() as stack:
            file = None
            if self._unfinished:
                file = stack.enter_context(self._unfinished.opened(location, info, self._go_on))
            yield file or ArrivingFile(stack.enter_context(FileIO(path, "w")))

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise _StoppedError

    def _hash(self, location: Location, info: ObjectInfo, path: str, *, is_linked: bool) -> None:
        """Hash a file that shares its bytes with the user's own; a linked one may change meanwhile."""
        for _ in range(_HASH_ATTEMPTS):  # another link to the file, for its other name, changes its ctime
            before = os.lstat(path)
            sha256 = digest_file(Path(path))[0]
            if not is_linked or same_state(before, os.lstat(path)):
                break
        else:
            raise changed(location.url)
        if is_linked and file_version(before, links=True) != info.version:
            raise changed(location.url)
        self._count_bytes(info.num_bytes)
        self._finish(info, path, sha256, is_synced=True, linked=before if is_linked else None)

    def _finish(
        self, info: ObjectInfo, path: str, sha256: str, *, is_synced: bool, linked: os.stat_result | None = None
    ) -> None:
        self._finished.put(((info, FinishedFile(path, sha256, info.num_bytes, linked)), is_synced))

    def _write(self, info: ObjectInfo, path: str, data: Block, *, sync: bool) -> None:
        _write_file(path, data, sync=sync)
        self._count_bytes(info.num_bytes)
        self._finish(info, path, hashlib.sha256(data).hexdigest(), is_synced=sync)


def _write_file(path: str, data: Block, *, sync: bool) -> None:
    """Make a small file: a file object would ask the system more often, and other threads go first each time."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
