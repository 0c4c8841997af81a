"""What objects take on a disk: blocks and inodes, which for many small ones is more than their bytes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.artifacts.objects import ObjectInfo

_SPARE_BYTES = 16 << 20
"""Room for the store's manifests, and what else is small."""
_BESIDE_BYTES = 512
"""What each object takes beside its bytes: its names in two directories, and its rows in the index."""
_SPARE_FILES = 16
_POOL_FOLDERS = 256
_LARGEST_BLOCK, _USUAL_BLOCK = 1 << 16, 1 << 12


@dataclass(frozen=True, slots=True)
class Disk:
    """What a disk says that is left of it."""

    free_bytes: int
    """For users who are not root."""

    free_inodes: int | None
    """How many files can be made; None where it has no such limit."""

    block_bytes: int
    """What the size of a file is rounded up to."""

    @classmethod
    def of(cls, path: Path) -> "Disk":
        """The disk of a path."""
        found = os.statvfs(path)
        free_bytes = found.f_bavail * found.f_frsize
        if not found.f_files:  # Btrfs, which also keeps small files among its own data
            return cls(free_bytes, None, 1)
        # NFS tells how much it sends at once.
        block_bytes = found.f_frsize if found.f_frsize <= _LARGEST_BLOCK else _USUAL_BLOCK
        return cls(free_bytes, found.f_favail, block_bytes)


@dataclass(frozen=True, slots=True)
class Room:
    """What some objects take."""

    num_bytes: int = 0
    """Their sizes."""

    disk_bytes: int = 0
    """Those in whole blocks."""

    num_files: int = 0
    """How many they are."""

    num_folders: int = 0
    """How many folders they are in."""

    @classmethod
    def of(cls, objects: Sequence[ObjectInfo], disk: Disk) -> "Room":
        """What objects take on a disk."""
        block = disk.block_bytes
        return cls(
            sum(info.num_bytes for info in objects),
            sum(-(-info.num_bytes // block) * block for info in objects),
            len(objects),
            len({info.key.rpartition("/")[0] for info in objects}),
        )

    def __add__(self, other: "Room") -> "Room":
        """Both."""
        return Room(
            self.num_bytes + other.num_bytes,
            self.disk_bytes + other.disk_bytes,
            self.num_files + other.num_files,
            self.num_folders + other.num_folders,
        )

    def fits(self, disk: Disk) -> bool:
        """Whether a disk has as many blocks, with some to spare."""
        beside = self.num_files * _BESIDE_BYTES + self.num_folders * disk.block_bytes + _SPARE_BYTES
        return not self.num_bytes or self.disk_bytes + beside <= disk.free_bytes

    def missing_inodes(self, disk: Disk) -> int:
        """How many more inodes a disk needs, with some to spare; 0 where it has enough."""
        if disk.free_inodes is None or not self.num_files:
            return 0
        needed = self.num_files + self.num_folders + min(self.num_files, _POOL_FOLDERS) + _SPARE_FILES
        return max(0, needed - disk.free_inodes)

    def __str__(self) -> str:
        """For messages: the sizes, and what they take where that is much more."""
        taken = "" if self.disk_bytes <= 1.1 * self.num_bytes else f" (which take {self.disk_bytes / 1e9:,.3f} GB)"
        return f"{self.num_bytes / 1e9:,.3f} GB{taken}"
