"""What a reference holds right now, from a listing alone: no object is read."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.artifacts.storage_errors import changed
from trainyard.tasks.errors import InvalidInputError, StorageNotFoundError
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.staging.access import locate
from trainyard.tasks.staging.garbage import rarely_collected
from trainyard.tasks.staging.keys import check_keys
from trainyard.tasks.staging.patterns import is_pattern, split_pattern


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of one reference, as they were when they were listed."""

    reference: DataReference
    """What was listed."""

    location: Location
    """Where it is: the single object, or the prefix that the objects' keys are relative to."""

    single_object: bool
    """Whether the reference names one object."""

    objects: tuple[ObjectInfo, ...]
    """Every object, sorted by key."""

    @property
    def source(self) -> str:
        """Where the objects are, server included: a version says something only about one place."""
        return f"{self.location.endpoint} {self.reference.uri}".strip()

    @property
    def fingerprint(self) -> str:
        """Digest of every key, size and version: it changes when anything in the listing does.

        Where a listing does not tell versions apart, no two are taken for the same.
        """
        versions = [[info.key, info.num_bytes, info.version or uuid.uuid4().hex] for info in self.objects]
        return digest_value(versions)

    def location_of(self, info: ObjectInfo) -> Location:
        """Where one of the objects is."""
        return self.location if self.single_object else self.location / info.key


@rarely_collected()
def list_reference(reference: DataReference) -> Listing:
    """List a reference: one object, everything below a prefix, or what a pattern matches.

    Raises:
        InvalidInputError: There is a prefix or bucket, but no object in it; or nothing matches the pattern.
        UnsafeObjectKeyError: A key cannot be a file of the dataset's directory.
        StorageNotFoundError: There is no such bucket, object or prefix.
        StorageAccessError: The credentials are missing or refused.
        StorageUnavailableError: The storage did not answer; a retry may help.
    """
    location = locate(reference)
    try:
        single = find_single_object(reference, location)
    except StorageNotFoundError as error:
        if not is_pattern(reference.key):
            raise not_found(reference, error) from error.__cause__
        location, objects = _list_matches(reference)
        return _checked(Listing(reference, location, False, objects))
    objects = (single,) if single else _each_once(location, location.list_objects())
    if not objects:
        raise empty_dataset(reference)
    return _checked(Listing(reference, location, single is not None, objects))


def _each_once(location: Location, found: Iterable[ObjectInfo]) -> tuple[ObjectInfo, ...]:
    """Objects in the order of their keys; one that two pages of a listing have told of is one object.

    Raises:
        ObjectChangedError: It was another version on the second page.
    """
    objects = sorted(found, key=lambda info: info.key)
    by_key = {info.key: info for info in objects}
    if len(by_key) == len(objects):
        return tuple(objects)
    for info in objects:
        if (info.num_bytes, info.version) != (by_key[info.key].num_bytes, by_key[info.key].version):
            raise changed((location / info.key).url)
    return tuple(by_key.values())


def _checked(listing: Listing) -> Listing:
    check_keys(info.key for info in listing.objects)
    return listing


def _list_matches(reference: DataReference) -> tuple[Location, tuple[ObjectInfo, ...]]:
    """The folder above a pattern's first special character, and what matches below it."""
    base, matches = split_pattern(reference.key)
    location = locate(reference.model_copy(update={"key": base}))
    num_seen, found = 0, []
    for info in location.list_objects():
        num_seen += 1
        if matches(info.key):
            found.append(info)
    if not found:
        raise no_match(reference, location, num_seen)
    return location, _each_once(location, found)


def listing_components(listings: Iterable[Listing]) -> dict[str, str]:
    """What decides the stage's result, by name: where each reference is, and every version in it.

    The address counts: an ETag tells versions of one object apart, and says nothing about objects elsewhere
    (RFC 9110, section 8.8.3). Stages after this one depend on the digests of the bytes alone.
    """
    components = {}
    for n, listing in enumerate(listings):
        components[f"dataset {n}: source"] = listing.source
        components[f"dataset {n}: kind"] = "object" if listing.single_object else "prefix"
        components[f"dataset {n}: objects"] = listing.fingerprint
        components[f"dataset {n}: number of objects"] = str(len(listing.objects))  # to say more than "changed"
    return components


def find_single_object(reference: DataReference, location: Location) -> ObjectInfo | None:
    """The object that a reference names, or None where it names a prefix (a last slash always does)."""
    found = location.find_object()
    return None if reference.uri.endswith("/") else found


def not_found(reference: DataReference, error: StorageNotFoundError) -> StorageNotFoundError:
    """The error for a place where there is nothing, with what its author may have meant."""
    if reference.key or not is_pattern(reference.datastore.url):
        return error
    return StorageNotFoundError(
        f"{error} A pattern is the key of a reference, not a part of the datastore's URL: write "
        "Datastore(url=...).path('*.png') in Python, {datastore: {url: ...}, key: '*.png'} in a pipeline file."
    )


def no_match(reference: DataReference, location: Location, num_seen: int) -> InvalidInputError:
    """The error for a pattern that nothing matches."""
    return InvalidInputError(
        f"No object matches {reference.uri}: there are {num_seen:,} objects below {location.url}. "
        "'*' and '?' stay within one folder, '**' crosses folders; check the pattern."
    )


def empty_dataset(reference: DataReference) -> InvalidInputError:
    """The error for a place that is there, with nothing in it."""
    return InvalidInputError(f"{reference.uri} is empty: there is no object to train on; put data there first.")
