"""Local data on a filesystem that shares extents: staging takes no room, and the staged bytes are their own."""

import os

import pytest

from tests.integration.disks import MEBIBYTE, mounted_image
from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import DiskFullError, ObjectChangedError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import transfer
from trainyard.tasks.staging.dataset import stage_references

NUM_FILES, FILE_MIB = 4, 16


@pytest.fixture
def xfs(tmp_path):
    """A disk of its own, with XFS on it."""
    with mounted_image(tmp_path / "image", tmp_path / "disk", 400, "mkfs.xfs", "-q") as disk:
        yield disk


def used_bytes(mount):
    os.sync()
    found = os.statvfs(mount)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_staging_shares_the_extents_of_local_data(xfs, tmp_path):
    source = xfs / "data"
    source.mkdir()
    contents = {f"{n}.bin": os.urandom(FILE_MIB * MEBIBYTE) for n in range(NUM_FILES)}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    context = StageContext(store_url=str(tmp_path / "store"), home=xfs / "home")
    before = used_bytes(xfs)
    [dataset] = stage_references([Datastore(url=str(source)).as_mount()], context).datasets
    assert used_bytes(xfs) - before < FILE_MIB * MEBIBYTE, "a copy would take four times as much"

    with (source / "0.bin").open("r+b") as stream:
        stream.write(b"overwritten")
    staged = dataset_path(context.home, dataset)
    assert {path.name: path.read_bytes() for path in staged.iterdir()} == contents


def test_more_than_there_is_room_for_is_staged_where_it_takes_none(xfs, tmp_path):
    source = xfs / "data"
    source.mkdir()
    free_bytes = os.statvfs(xfs).f_bavail * os.statvfs(xfs).f_frsize
    for n in range(2):
        (source / f"{n}.bin").write_bytes(os.urandom(MEBIBYTE) * (free_bytes * 3 // 10 // MEBIBYTE))
    context = StageContext(store_url=str(tmp_path / "store"), home=xfs / "home")
    parts = [Datastore(url=str(source)).path(f"{n}.bin") for n in range(2)]
    for references in ([Datastore(url=str(source)).as_mount()], parts):  # one dataset, and several
        stage_references(references, context)
    with pytest.raises(DiskFullError, match="copied for the run"):
        stage_references([Datastore(url=str(source)).as_download()], context)


def test_files_with_holes_are_whole(xfs, tmp_path):
    source = xfs / "data"
    source.mkdir()
    for n in range(transfer._MANY_OBJECTS):
        with (source / f"{n}.bin").open("wb") as out:
            out.truncate(100_000 + n)
    context = StageContext(store_url=str(tmp_path / "store"), home=xfs / "home")
    [dataset] = stage_references([Datastore(url=str(source)).as_mount()], context).datasets
    assert dataset.num_objects == transfer._MANY_OBJECTS


def test_a_file_that_changed_since_it_was_listed_is_never_cloned(xfs):
    source = xfs / "source"
    source.write_bytes(b"alpha")
    location = Location(str(source))
    info = location.find_object()
    assert location.share_version(info, xfs / "target") == "extents"
    os.utime(source, ns=(1, 1))
    with pytest.raises(ObjectChangedError):
        location.share_version(info, xfs / "target")
