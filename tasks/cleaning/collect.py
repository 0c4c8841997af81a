"""``trainyard gc``: look, decide, look again, remove."""

import os
import shutil
import time
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.cleaning.home_inventory import pool_files, server_bytes, take_home_inventory
from trainyard.tasks.cleaning.plan import Inventory, Item, Limits, Plan, common, plan_removal
from trainyard.tasks.cleaning.staging_at_work import is_staging, without_pool
from trainyard.tasks.cleaning.store_inventory import take_store_inventory
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.runtime.scratch import remove_abandoned


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
        InvalidInputError: Another garbage collection is at work on this machine.
    """
    (home / "locks").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "locks" / "gc.lock", timeout=0):
            found = _look(store, home, limits)
            if not dry_run:
                remove_abandoned()
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
    at_home = take_home_inventory(home, contents.live_digests, contents.live_keys)
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


def _part_of(plan: Plan, inventory: Inventory) -> Plan:
    ids = {item.id for item in inventory.items}
    blobs = tuple(blob for blob in plan.blobs if blob.id in inventory.blobs)
    kept_bytes = sum(blob.num_bytes for blob in inventory.blobs.values()) - sum(blob.num_bytes for blob in blobs)
    return Plan(tuple(item for item in plan.items if item.id in ids), blobs, kept_bytes)


def _clean_store(store: ArtifactStore, plan: Plan) -> None:
    """Records and notes first: what nothing speaks of any more may then go."""
    for blob in sorted(plan.blobs, key=lambda blob: blob.id.startswith("objects/")):
        location = store.root / blob.id
        if location.is_local and _modified_since(location.local_path, blob.last_used_s):
            continue
        location.delete()
    if store.root.is_local:
        for item in plan.items:
            if item.kind == "run note":
                _remove_empty(store.root.local_path / item.id)


def _clean_home(home: Path, plan: Plan) -> None:
    trash = home / "trash" / uuid.uuid4().hex
    trash.mkdir(parents=True)
    try:
        for n, item in enumerate(plan.items):
            with suppress(Timeout), _held(home, item):
                if not _modified_since(Path(item.id), item.last_used_s):
                    os.replace(item.id, trash / str(n))
        _unlink_unneeded(home, {blob.id for blob in plan.blobs})
    finally:
        shutil.rmtree(home / "trash", ignore_errors=True)


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
