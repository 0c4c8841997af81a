"""Stage data references: list, transfer what is new, and build a directory that never changes.

Below the home directory::

    objects/<first two digits>/<sha256>    the pool: one read-only file for each content
    objects/index.sqlite                   which object version has which digest, which file has been proven
    objects/partial/                       unfinished files of running processes
    objects/unfinished/                    large objects whose transfer may have been interrupted
    datasets/<sha256>/data/<key>           a dataset: hard links into the pool
    damaged/                               what was found not to be what its name says
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from pydantic import ValidationError

from trainyard.tasks.artifacts.datasets import dataset_directory, touch_dataset
from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.artifacts.products import StagedData, StagedDataset
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ArtifactDamagedError, ArtifactElsewhereError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.staging.area import StagingArea, index_path, staging_area, unfinished_path
from trainyard.tasks.staging.capacity import (
    disk_errors_translated,
    require_room,
    require_room_for_all,
    room_needed,
)
from trainyard.tasks.staging.directories import NameProbe, build_dataset, find_damage, stands
from trainyard.tasks.staging.garbage import rarely_collected
from trainyard.tasks.staging.index import StagingIndex
from trainyard.tasks.staging.keys import check_folded
from trainyard.tasks.staging.listing import Listing, list_reference
from trainyard.tasks.staging.manifest import DatasetManifest, ManifestEntry
from trainyard.tasks.staging.pool import move_aside, staging_lock
from trainyard.tasks.staging.progress import ProgressMeter, StagingProgress
from trainyard.tasks.staging.room import Disk, Room
from trainyard.tasks.staging.transfer import fetch_objects
from trainyard.tasks.staging.unfinished import UnfinishedObjects

Report = Callable[[StagingProgress], None]
_Staged = StagedDataset | DatasetManifest
"""A dataset whose directory is there: as it was described before, or what it holds."""


def stage_references(
    references: Iterable[DataReference], context: StageContext, progress: Report | None = None
) -> StagedData:
    """Bring every reference to this machine, verified.

    Args:
        references: What the estimator names, in its order.
        context: Where the store and the home directory are.
        progress: Called now and then, and at the end, with how far it is.

    Raises:
        DiskFullError: There is no room for the data.
        PermanentError: As ``list_reference``; or the disk cannot be written to.
        TransientError: As ``list_reference``; or an object changed while it was read. A retry goes on from
            where this attempt ended.
    """
    return stage_listings([list_reference(reference) for reference in references], context, progress)


@rarely_collected()
def stage_listings(listings: Sequence[Listing], context: StageContext, progress: Report | None = None) -> StagedData:
    """Bring what was listed to this machine, in those versions; otherwise as ``stage_references``."""
    if not listings:
        return StagedData()
    total_objects = sum(len(listing.objects) for listing in listings)
    meter = ProgressMeter(total_objects, progress, Settings().progress_interval_s)
    with staging_area(context) as area:
        area.index.tick = meter.tick
        standing = [_find_standing(listing, area) for listing in listings]
        foreseen = _foresee(listings, standing, area, meter)
        staged = [_stage_listing(*todo, area, meter) for todo in zip(listings, standing, foreseen, strict=True)]
    meter.finish()
    # Not above: an error of the store is not one of the home's disk.
    return StagedData(datasets=tuple(_describe(*pair, context) for pair in zip(listings, staged, strict=True)))


@rarely_collected()
def verify_staged(product: StagedData, context: StageContext) -> None:
    """Prove that the files of every dataset are on this machine, right and with nothing beside them.

    A directory that is not right is moved aside, so that staging again makes it anew.

    Raises:
        ArtifactElsewhereError: Nothing of what is missing is on this machine; staging brings it.
        ArtifactDamagedError: Something is missing, wrong or too many; staging again helps.
        DiskFullError: There is no room for what is remembered of a first look.
        PermanentError: The disk cannot be written to.
    """
    if not product.datasets:
        return
    home = context.home.absolute()
    with disk_errors_translated(home), closing(StagingIndex(index_path(home))) as index:
        in_doubt = {dataset.sha256: dataset for dataset in product.datasets if not stands(home, dataset.sha256, index)}
        manifests = [_read_manifest(dataset, context.store) for dataset in in_doubt.values()]
        is_elsewhere = not any(dataset_directory(home, sha256).parent.exists() for sha256 in in_doubt)
        damages = [_clear_damage(home, manifest, index) for manifest in manifests]
    found = [damage for damage in damages if damage]
    if found and is_elsewhere:
        raise ArtifactElsewhereError(f"Staged data is not on this machine: {'; '.join(found)}.")
    if found:
        raise ArtifactDamagedError(f"Staged data is not as it was staged: {'; '.join(found)}.")
    for dataset in product.datasets:
        touch_dataset(home, dataset.sha256)


def _stage_listing(
    listing: Listing, standing: _Staged | None, foreseen_bytes: int, area: StagingArea, meter: ProgressMeter
) -> _Staged:
    """The dataset that is listed, whose directory is there then."""
    if standing:
        meter.add_reused(len(listing.objects))
    staged = standing or _fetch_dataset(listing, foreseen_bytes, area, meter)
    touch_dataset(area.home, staged.sha256)
    return staged


def _find_standing(listing: Listing, area: StagingArea) -> _Staged | None:
    """The dataset that is listed, where its directory stands as it should; else None."""
    dataset = _find_unchanged(listing, area)
    if dataset:
        return dataset
    digests = area.index.known_digests(listing.source, listing.objects)
    if len(digests) < len(listing.objects):
        return None
    manifest = _manifest(listing, digests)
    return None if find_damage(area.home, manifest, area.index) else manifest


def _find_unchanged(listing: Listing, area: StagingArea) -> StagedDataset | None:
    """What the last listing came to, if this one is the same; no object of it is gone through."""
    product = area.index.known_product(listing.source, _identity(listing, area.store))
    if product is None:
        return None
    try:
        dataset = StagedDataset.model_validate_json(product)
    except ValidationError:  # of another release
        return None
    try:
        is_held = area.store.holds(dataset.manifest.sha256)
    except OSError:  # of the store: who stores the manifest again is told
        return None
    return dataset if is_held and stands(area.home, dataset.sha256, area.index) else None


def _describe(listing: Listing, staged: _Staged, context: StageContext) -> StagedDataset:
    """A dataset for the stage's product, with its manifest in the store."""
    if isinstance(staged, StagedDataset):
        return staged
    dataset = StagedDataset(
        uri=listing.reference.uri,
        sha256=staged.sha256,
        single_object=staged.single_object,
        num_objects=len(staged.objects),
        num_bytes=staged.num_bytes,
        manifest=context.store.put_bytes(staged.to_bytes()),
    )
    with closing(StagingIndex(index_path(context.home.absolute()))) as index:
        index.remember_product(listing.source, _identity(listing, context.store), dataset.model_dump_json())
    return dataset


def _identity(listing: Listing, store: ArtifactStore) -> str:
    """What decides a dataset's description, beside where its objects are."""
    manifest_format = [*DatasetManifest.model_fields, *(part.name for part in fields(ManifestEntry))]
    return digest_value([store.url, listing.single_object, listing.fingerprint, manifest_format])


def _fetch_dataset(listing: Listing, foreseen_bytes: int, area: StagingArea, meter: ProgressMeter) -> DatasetManifest:
    """Bring what is missing, and make the dataset's directory."""
    check_folded((info.key for info in listing.objects), NameProbe(area.scratch))
    with exclusive(_source_lock(listing, area.home), "another run is fetching the same data", area.timeout_s):
        digests = _transfer(listing, foreseen_bytes, area, meter)
    manifest = _manifest(listing, digests)
    if _clear_damage(area.home, manifest, area.index):
        with area.index.batch():
            build_dataset(area.home, manifest, area.pool, area.scratch)
        # What was just built is looked at as it would be later: from here on it is known to stand.
        if damage := find_damage(area.home, manifest, area.index):
            raise ArtifactDamagedError(
                f"What was just staged is not as it should be, and staging again helps: {damage}."
            )
    return manifest


def _source_lock(listing: Listing, home: Path) -> Path:
    """Runs whose references overlap, and are not the same, wait for each other here: the second finds what is there."""
    return home / "locks" / f"source-{digest_value(listing.source)}.lock"


def _transfer(listing: Listing, foreseen_bytes: int, area: StagingArea, meter: ProgressMeter) -> dict[str, str]:
    """The digest of every object by key; afterwards the pool holds them all.

    Args:
        listing: What is fetched.
        foreseen_bytes: What the meter expects of it already.
        area: Where to.
        meter: Counts.
    """
    source = listing.source
    digests = area.held_digests(listing)
    meter.add_reused(len(digests))
    missing = [info for info in listing.objects if info.key not in digests]
    unfinished = UnfinishedObjects(unfinished_path(area.home), meter.add_found)
    require_room(area.home, listing, room_needed(listing, missing, area.scratch, unfinished))
    meter.expect_bytes(_size_of(missing) - foreseen_bytes)
    with meter.transferring():
        for finished in fetch_objects(listing, missing, area.scratch, meter.add_bytes, unfinished):
            with area.index.batch():
                area.pool.adopt([file for _, file in finished])
                for info, file in finished:
                    area.index.remember_object(source, info, file.sha256)
                    digests[info.key] = file.sha256
                meter.add_transferred(len(finished))
            meter.tick()
    return digests


def _foresee(
    listings: Sequence[Listing], standing: Sequence[_Staged | None], area: StagingArea, meter: ProgressMeter
) -> list[int]:
    """Prove that there is room for all, and tell the meter what is to be transferred, before the first byte is.

    A single dataset without a copy is looked at when its transfer begins.

    Returns:
        How many bytes of each listing the meter expects then.
    """
    foreseen = [0] * len(listings)
    disk = Disk.of(area.scratch)
    copied = [Room.of(listing.objects, disk) for listing in listings if listing.reference.mode == "download"]
    if len(listings) == 1 and not copied:
        return foreseen
    missing_room = Room()
    unfinished = UnfinishedObjects(unfinished_path(area.home), meter.add_found)
    for n, (listing, dataset) in enumerate(zip(listings, standing, strict=True)):
        if dataset is None:
            held = area.held_digests(listing)
            missing = [info for info in listing.objects if info.key not in held]
            missing_room += room_needed(listing, missing, area.scratch, unfinished)
            foreseen[n] = _size_of(missing)
    require_room_for_all(area.home, missing_room, sum(copied, Room()))
    meter.expect_bytes(sum(foreseen))
    return foreseen


def _size_of(objects: Iterable[ObjectInfo]) -> int:
    return sum(info.num_bytes for info in objects)


def _manifest(listing: Listing, digests: dict[str, str]) -> DatasetManifest:
    def entry(info: ObjectInfo) -> ManifestEntry:
        return ManifestEntry(key=info.key, num_bytes=info.num_bytes, sha256=digests[info.key], version=info.version)

    objects = tuple(entry(info) for info in listing.objects)
    return DatasetManifest(uri=listing.reference.uri, single_object=listing.single_object, objects=objects)


def _read_manifest(dataset: StagedDataset, store: ArtifactStore) -> DatasetManifest:
    return DatasetManifest.model_validate_json(store.read_bytes(dataset.manifest))


def _clear_damage(home: Path, manifest: DatasetManifest, index: StagingIndex) -> str | None:
    """What was wrong with a dataset's directory, which is then out of the way; None where it is right."""
    damage = find_damage(home, manifest, index)
    directory = dataset_directory(home, manifest.sha256).parent
    if not damage or not directory.exists():
        return damage
    with staging_lock(home):
        # Looked at again: another process may have put it there, or mended it, in between.
        damage = find_damage(home, manifest, index)
        if damage and directory.exists():
            return f"{damage} (moved to {move_aside(directory, home / 'damaged')})"
    return damage
