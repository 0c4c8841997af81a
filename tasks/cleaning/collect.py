"""``trainyard gc``: look, decide, look again, remove."""

import errno
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.known_stores import known_stores
from trainyard.tasks.cleaning.home_inventory import pool_files, server_bytes, take_home_inventory
from trainyard.tasks.cleaning.names import is_lease
from trainyard.tasks.cleaning.plan import Blob, Inventory, Item, Limits, Plan, common, plan_removal
from trainyard.tasks.cleaning.staging_at_work import is_staging, without_pool
from trainyard.tasks.cleaning.store_inventory import live_needs, take_store_inventory
from trainyard.tasks.credentials import redacted_url
from trainyard.tasks.errors import InvalidInputError, PipelineError, StorageNotFoundError
from trainyard.tasks.runtime.scratch import remove_abandoned
from trainyard.tasks.settings import store_problem
from trainyard.tasks.staging.area import remove_leftovers

log = logging.getLogger(__name__)

TRASH, TRASH_BESIDE = "trash", ".trainyard-trash"
"""Of the home directory, and of a place in it that is on a disk of its own."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a garbage collection removed, or would."""

    store: Plan
    """In the artifact store."""

    home: Plan
    """In this machine's directory."""

    limits: Limits
    """What was asked for."""

    shared: bool
    """Whether one limit is for both together: the store is on this machine."""

    server_bytes: int
    """Size of the files of Prefect's server on this machine, which are not collected."""


def collect_garbage(store: ArtifactStore, home: Path, limits: Limits, *, dry_run: bool) -> Collection:
    """Remove what was not used for long from a store and from this machine's directory.

    Runs may go on meanwhile. What a live run or a registered model needs, and whatever was used within the last hour,
    stays. Only what two looks, one after the other, agree on goes; and where a run comes to need something in the very
    moment that it goes, the run finds it missing, as with any damage, and makes it again.

    Args:
        store: The artifact store.
        home: This machine's directory.
        limits: How much is kept: in both together where the store is on this machine, else in each.
        dry_run: Whether to remove nothing.

    Raises:
        InvalidInputError: Another garbage collection is at work on this machine, or the store's files cannot be told
            from those of the home.
    """
    problem = store_problem(store.url, home)
    if problem:
        raise InvalidInputError(f"store {store.url}: {problem}")
    (home / "locks").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "locks" / "gc.lock", timeout=0):
            found = _look(store, home, limits)
            if not dry_run:
                remove_abandoned()
                remove_leftovers(home)
            if dry_run or not any((found.store.items, found.store.blobs, found.home.items, found.home.blobs)):
                return found
            again = _look(store, home, limits)
            agreed = replace(again, store=common(found.store, again.store), home=common(found.home, again.home))
            if is_staging(home):
                agreed = replace(agreed, home=without_pool(agreed.home, home))
            _clean_store(store, agreed.store)
            _clean_home(home, agreed.home)
            return agreed
    except Timeout as error:
        raise InvalidInputError(f"Another 'trainyard gc' is at work in {home}: wait until it has ended.") from error


def _look(store: ArtifactStore, home: Path, limits: Limits) -> Collection:
    now_s = time.time()
    contents = take_store_inventory(store, home, now_s)
    digests, keys = _needs_of_other_stores(store, home, now_s)
    at_home = take_home_inventory(home, contents.live_digests | digests, contents.live_keys | keys)
    in_store = contents.inventory
    if not store.root.is_local:
        plans = (plan_removal(in_store, limits, now_s), plan_removal(at_home, limits, now_s))
        return Collection(*plans, limits, shared=False, server_bytes=server_bytes(home))
    # On one disk, one limit for both: what was unused for longest goes, wherever it is.
    both = Inventory([*in_store.items, *at_home.items], {**in_store.blobs, **at_home.blobs})
    plan = plan_removal(both, limits, now_s)
    parts = (_part_of(plan, in_store), _part_of(plan, at_home))
    # What stays, and why, is known of both together: it is said once.
    parts = (replace(parts[0], young_bytes=plan.young_bytes, needed_bytes=plan.needed_bytes), parts[1])
    return Collection(*parts, limits, shared=True, server_bytes=server_bytes(home))


def _needs_of_other_stores(store: ArtifactStore, home: Path, now_s: float) -> tuple[frozenset[str], frozenset[str]]:
    """What live runs of this home that keep their results elsewhere need of it, where their store can be read."""
    digests, keys = frozenset[str](), frozenset[str]()
    for url in {*known_stores(home), f"file://{home / 'store'}"} - {store.url}:
        try:
            found = live_needs(ArtifactStore(url), home, now_s)
        except PipelineError as error:
            log.warning("What runs that use the store %s need cannot be told: %s", redacted_url(url), error)
            continue
        digests, keys = digests | found[0], keys | found[1]
    return digests, keys


def _part_of(plan: Plan, inventory: Inventory) -> Plan:
    ids = {item.id for item in inventory.items}
    blobs = tuple(blob for blob in plan.blobs if blob.id in inventory.blobs)
    kept_bytes = sum(blob.num_bytes for blob in inventory.blobs.values()) - sum(blob.num_bytes for blob in blobs)
    return Plan(tuple(item for item in plan.items if item.id in ids), blobs, kept_bytes)


def _clean_store(store: ArtifactStore, plan: Plan) -> None:
    """Records and notes first: what nothing speaks of any more may then go."""
    for blob in sorted(plan.blobs, key=lambda blob: blob.id.startswith("objects/")):
        location = store.root / blob.id
        if not _was_used(location, blob):
            location.delete()
    if store.root.is_local:
        for item in plan.items:
            if item.kind == "run note":
                _remove_empty(store.root.local_path / item.id)


def _was_used(location: Location, blob: Blob) -> bool:
    """Whether a file was written again since the look; on a server only leases are asked for: another may hold one."""
    if location.is_local:
        return _modified_since(location.local_path, blob.last_used_s)
    if not is_lease(blob.id):
        return False
    with suppress(StorageNotFoundError):
        found = location.find_object()
        return found is not None and found.modified_s > blob.last_used_s
    return True


def _clean_home(home: Path, plan: Plan) -> None:
    try:
        for item in plan.items:
            with suppress(Timeout), _held(home, item):
                if not _modified_since(Path(item.id), item.last_used_s):
                    _put_away(Path(item.id), home)
        _unlink_unneeded(home, {blob.id for blob in plan.blobs})
    finally:
        for trash in (home / TRASH, *home.glob(f"*/{TRASH_BESIDE}")):  # also of one that was killed
            shutil.rmtree(trash, ignore_errors=True)


def _put_away(path: Path, home: Path) -> None:
    """Rename something into the trash: at once, so that nobody meets with half of it."""
    for trash in (home / TRASH, path.parent / TRASH_BESIDE):
        trash.mkdir(exist_ok=True)
        try:
            os.replace(path, trash / uuid.uuid4().hex)
        except OSError as error:
            if error.errno != errno.EXDEV or trash.parent != home:
                raise
        else:
            return


def _held(home: Path, item: Item) -> AbstractContextManager[object]:
    """The lock of who uses or makes an item, where it has one; raises ``Timeout`` where somebody does."""
    folder = Path(item.id)
    lock = folder.with_name(f"{folder.name}.lock")
    if item.kind == "dataset":
        return FileLock(home / "objects" / ".lock")
    return FileLock(lock, timeout=0) if lock.exists() else nullcontext()


def _unlink_unneeded(home: Path, ids: Iterable[str]) -> None:
    wanted = set(ids)
    with FileLock(home / "objects" / ".lock"):
        if is_staging(home):  # since a moment ago
            return
        for id_, path in pool_files(home):
            if id_ in wanted:
                path.unlink(missing_ok=True)


def _modified_since(path: Path, time_s: float) -> bool:
    try:
        return path.stat().st_mtime > time_s
    except FileNotFoundError:
        return True


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
