import errno
import hashlib
import os

import pytest

from trainyard.tasks.artifacts.filesystem import Location
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import transfer
from trainyard.tasks.staging.listing import list_reference

NUM_BYTES = 5_000_000


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetch a file that is large enough to be synced while it arrives, and cannot be cloned."""
    monkeypatch.setattr(transfer, "_SYNC_BYTES", 1_000_000)
    monkeypatch.setattr(Location, "clone_version", lambda self, info, target: False)
    data = os.urandom(NUM_BYTES)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large.bin").write_bytes(data)
    (tmp_path / "scratch").mkdir()
    listing = list_reference(Datastore(url=str(tmp_path / "data")).as_mount())

    def run():
        batches = transfer.fetch_objects(listing, listing.objects, tmp_path / "scratch", lambda num_bytes: None)
        [(_, path, sha256)] = [fetched for batch in batches for fetched in batch]
        assert path.read_bytes() == data and sha256 == hashlib.sha256(data).hexdigest()

    return run


def test_a_large_file_is_brought_to_the_disk_while_it_arrives(fetch, monkeypatch):
    synced, sync = [], os.fdatasync

    def spy(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", spy)
    fetch()
    assert synced and synced[0] < NUM_BYTES


def test_what_the_disk_says_of_the_early_sync_is_not_lost(fetch, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space left"):
        fetch()
