"""What was staged is on the disk, and not only in its cache."""

import os

import pytest

from tests.integration.staging_faults.objects import reference
from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.staging import durability, transfer
from trainyard.tasks.staging.dataset import stage_references


@pytest.mark.parametrize("together", [False, True])
def test_every_file_is_synced_by_itself_or_with_others(server, bucket_name, context, monkeypatch, together):
    sizes = {"small": 20_000, "large": 2 << 20, "larger": 9 << 20}
    server.put(bucket_name, {f"train/{name}": os.urandom(num_bytes) for name, num_bytes in sizes.items()})
    monkeypatch.setattr(transfer, "_MANY_OBJECTS", 3 if together else 4)
    monkeypatch.setattr(durability, "_can_sync", lambda directory: True)
    alone, fsync, syncs, syncfs = set(), os.fsync, [], durability._syncfs

    def spy(descriptor):
        alone.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(durability, "_syncfs", lambda descriptor: syncs.append(descriptor) or syncfs(descriptor))
    [dataset] = stage_references([reference(server, bucket_name)], context).datasets
    staged = dataset_path(context.home, dataset)
    synced_alone = {name for name in sizes if (staged / name).stat().st_ino in alone}
    assert synced_alone == ({"large", "larger"} if together else set(sizes))
    # The first is asked for errors of before, and brings nothing: those that count come when files are written.
    assert len(syncs) >= 2 if together else syncs == []
