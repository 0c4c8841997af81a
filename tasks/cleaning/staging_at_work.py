"""Staged bytes that a staging at work relies on: it found them at its beginning, and comes to link them at its end."""

from dataclasses import replace
from pathlib import Path

from trainyard.tasks.caching.locks import is_locked
from trainyard.tasks.cleaning.home_inventory import pool_files
from trainyard.tasks.cleaning.plan import Plan


def is_staging(home: Path) -> bool:
    """Whether a staging is at work on this machine: each holds the lock of its directory for unfinished files.

    It takes that while it holds ``objects/.lock``: who holds the same, and finds none at work, may remove bytes of the
    pool until he lets go.
    """
    return any(is_locked(path) for path in (home / "objects" / "partial").glob("*.lock"))


def without_pool(plan: Plan, home: Path) -> Plan:
    """The plan without the bytes of the pool, which then count as kept for a run."""
    in_pool = {id_ for id_, _ in pool_files(home)}
    kept_bytes = sum(blob.num_bytes for blob in plan.blobs if blob.id in in_pool)
    return replace(
        plan,
        blobs=tuple(blob for blob in plan.blobs if blob.id not in in_pool),
        kept_bytes=plan.kept_bytes + kept_bytes,
        needed_bytes=plan.needed_bytes + kept_bytes,
    )
