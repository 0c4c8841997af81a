"""A cheap look at a reference before anything is launched."""

from trainyard.tasks.errors import StorageNotFoundError
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.staging.access import locate
from trainyard.tasks.staging.listing import empty_dataset, find_single_object, list_reference, not_found
from trainyard.tasks.staging.patterns import is_pattern


def probe_reference(reference: DataReference) -> None:
    """Prove, with a few requests, that there is data and that it may be read.

    Args:
        reference: What is to be staged.

    Raises:
        InvalidInputError: The scheme is unknown, a setting does not fit, or there is no object.
        StorageNotFoundError: There is no such bucket, or no such object or prefix in it.
        StorageAccessError: The credentials are missing or refused.
        StorageUnavailableError: The endpoint did not answer for some 20 seconds; a retry may help.
    """
    location = locate(reference)
    _ = location.endpoint  # refused here, where nothing was launched, if it holds credentials
    try:
        if find_single_object(reference, location):
            location.check_readable()
            return
    except StorageNotFoundError as error:
        if not is_pattern(reference.key):
            raise not_found(reference, error) from error.__cause__
        list_reference(reference)  # only all names tell whether one matches
        return
    first = location.first_object()
    if first is None:
        raise empty_dataset(reference)
    (location / first.key).check_readable()
