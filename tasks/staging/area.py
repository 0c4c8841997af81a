"""What one staging works with, below the home directory."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.staging.capacity import disk_errors_translated
from trainyard.tasks.staging.index import StagingIndex
from trainyard.tasks.staging.listing import Listing
from trainyard.tasks.staging.pool import ObjectPool, staging_lock
from trainyard.tasks.staging.scratch import remove_unused, scratch_directory
from trainyard.tasks.staging.unfinished import remove_forgotten


@dataclass(frozen=True, slots=True)
class StagingArea:
    """What one staging works with."""

    home: Path
    store: ArtifactStore
    index: StagingIndex
    pool: ObjectPool
    scratch: Path
    timeout_s: float | None

    def held_digests(self, listing: Listing) -> dict[str, str]:
        """The digest, by key, of each object whose listed version is in the pool already."""
        with self.index.batch():
            known = self.index.known_digests(listing.source, listing.objects)
            found = [(info.key, known[info.key], info.num_bytes) for info in listing.objects if info.key in known]
            held = self.pool.find_held((sha256, num_bytes) for _, sha256, num_bytes in found)
            return {key: sha256 for (key, sha256, _), is_held in zip(found, held, strict=True) if is_held}


@contextmanager
def staging_area(context: StageContext) -> Iterator[StagingArea]:
    """What a staging works with; while it does, 'trainyard gc' takes nothing from the pool.

    Raises:
        DiskFullError: The disk has become full within the block.
        PermanentError: The disk cannot be written to.
    """
    home = context.home.absolute()
    with (
        disk_errors_translated(home),
        closing(StagingIndex(index_path(home))) as index,
        ExitStack() as stack,
    ):
        remove_leftovers(home)
        with staging_lock(home):  # 'trainyard gc' leaves the pool alone from here on, or is done with it
            scratch = stack.enter_context(scratch_directory(_scratch_root(home)))
        with disk_errors_translated(home):  # before the scratch directory goes: the message tells what was left
            yield StagingArea(home, context.store, index, ObjectPool(home, index), scratch, context.timeout_s)


def remove_leftovers(home: Path) -> None:
    """Remove what killed stagings have left below a home directory, and unfinished objects that nobody goes on with."""
    remove_unused(_scratch_root(home))
    remove_forgotten(unfinished_path(home))


def index_path(home: Path) -> Path:
    """The file of the index."""
    return home / "objects" / "index.sqlite"


def _scratch_root(home: Path) -> Path:
    return home / "objects" / "partial"


def unfinished_path(home: Path) -> Path:
    """The directory of large objects that were interrupted."""
    return home / "objects" / "unfinished"
