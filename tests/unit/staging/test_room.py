import os

import pytest

from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.staging.room import Disk, Room

MEBIBYTE = 1 << 20
FIELDS = (
    "f_bsize",
    "f_frsize",
    "f_blocks",
    "f_bfree",
    "f_bavail",
    "f_files",
    "f_ffree",
    "f_favail",
    "f_flag",
    "f_namemax",
)


def objects(*sizes):
    return [ObjectInfo(f"folder/{n}", size, "1") for n, size in enumerate(sizes)]


@pytest.fixture
def statvfs(monkeypatch):
    def answer(**fields):
        values = {"f_frsize": 4096, "f_bavail": 1000, "f_files": 100, "f_favail": 50, **fields}
        monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values.get(name, 0) for name in FIELDS))

    return answer


def test_each_object_takes_whole_blocks(statvfs, tmp_path):
    statvfs()
    room = Room.of(objects(0, 1, 4096, 4097), Disk.of(tmp_path))
    assert room == Room(num_bytes=8194, disk_bytes=4 * 4096, num_files=4, num_folders=1)
    assert str(room) == "0.000 GB (which take 0.000 GB)"
    assert str(Room.of(objects(10**9), Disk.of(tmp_path))) == "1.000 GB"


def test_a_disk_that_counts_no_inodes_is_asked_for_none_and_not_for_blocks(statvfs, tmp_path):
    """Btrfs keeps small files among its own data."""
    statvfs(f_files=0, f_favail=0)
    disk = Disk.of(tmp_path)
    room = Room.of(objects(*[1] * 100), disk)
    assert (room.disk_bytes, room.missing_inodes(disk)) == (100, 0)


def test_a_server_that_tells_how_much_it_sends_at_once_is_not_asked_for_that_of_each_file(statvfs, tmp_path):
    statvfs(f_frsize=MEBIBYTE)
    disk = Disk.of(tmp_path)
    assert disk.free_bytes == 1000 * MEBIBYTE
    assert Room.of(objects(1), disk).disk_bytes == 4096


def test_what_each_object_takes_beside_its_bytes_counts():
    disk = Disk(free_bytes=(16 << 20) + 100 * 4096 + 100 * 512 + 4096, free_inodes=None, block_bytes=4096)
    assert Room.of(objects(*[10] * 100), disk).fits(disk)
    assert not Room.of(objects(*[10] * 101), disk).fits(disk)


def test_inodes_of_folders_count():
    disk = Disk(free_bytes=1 << 40, free_inodes=100 + 100 + 1 + 16, block_bytes=4096)
    assert Room.of(objects(*[10] * 100), disk).missing_inodes(disk) == 0
    assert Room.of(objects(*[10] * 101), disk).missing_inodes(disk) == 2


def test_nothing_needs_no_room():
    disk = Disk(free_bytes=0, free_inodes=0, block_bytes=4096)
    assert Room().fits(disk) and not Room().missing_inodes(disk)
