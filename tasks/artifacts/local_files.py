"""Files of this machine as objects: exact times and an end to cycles, which fsspec's local files lack."""

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainyard.tasks.artifacts.digests import read_chunks
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.errors import InvalidInputError

_FICLONE = 0x40049409  # ioctl_ficlone(2): share the extents of a file, copied when either is written to
# Filesystems that cannot, two different ones, and files that they will not share (swap files, special alignments).
_NO_REFLINK = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ETXTBSY, errno.EPERM}
NO_HARD_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}
"""Other disks, filesystems without hard links or files of others, and files that have as many links as they can."""


def reflink(source: Path, target: Path) -> bool:
    """Make ``target`` a file with the content of ``source`` without copying it, where the filesystem can.

    The bytes are the target's own: whoever writes to either file changes that one alone.

    Returns:
        Whether it did; else the target is an empty file, to be written to.
    """
    with source.open("rb") as readable, target.open("wb") as out:
        try:
            fcntl.ioctl(out.fileno(), _FICLONE, readable.fileno())
        except OSError as error:
            if error.errno not in _NO_REFLINK:
                raise
            return False
        os.fsync(out.fileno())
    return True


def hard_link(source: Path, target: Path) -> bool:
    """Make ``target`` another name of a file (of the one that a symbolic link leads to), where the filesystem can.

    The two stay one file: owner, mode and bytes are shared, and the time of its last change (ctime) becomes now.

    Returns:
        Whether it did; else there is no target.
    """
    try:
        os.link(os.path.realpath(source), target)  # link(2) itself does not follow links
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise
        return False
    with target.open("rb") as stream:
        os.fsync(stream.fileno())
    return True


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new file beside the target; fsynced and renamed onto it when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name[:60]}.{uuid.uuid4().hex}.tmp")
    try:
        yield scratch
        with scratch.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def create_file(target: Path, data: bytes) -> bool:
    """Write a file only if there is none; of several writers at once exactly one gets True."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".create.") as scratch:
        scratch.write(data)
        scratch.flush()
        os.fsync(scratch.fileno())
        try:
            os.link(scratch.name, target)  # fails where it exists: the one atomic "create if absent"
        except FileExistsError:
            return False
    return True


def copy_file(source: Path, target: Path, sha256: str | None = None) -> bool:
    """Copy a file, whole or not at all.

    Args:
        source: The file.
        target: Its new path; what is there is replaced.
        sha256: The digest that its bytes must still have.

    Returns:
        Whether they had; else nothing was written.
    """
    try:
        with replacing(target) as scratch, source.open("rb") as stream, scratch.open("wb") as out:
            hasher = hashlib.sha256()
            for chunk in read_chunks(stream):
                hasher.update(chunk)
                out.write(chunk)
            if sha256 and hasher.hexdigest() != sha256:
                raise _NotTheFileError
    except _NotTheFileError:
        return False
    return True


class _NotTheFileError(Exception):
    """A local file is not what it was when it was hashed."""


def local_info(key: str, status: os.stat_result, *, links: bool = False) -> ObjectInfo:
    """A file as an object of a listing; its version as in ``file_version``."""
    return ObjectInfo(key, status.st_size, file_version(status, links=links), modified_s=status.st_mtime)


def file_version(status: os.stat_result, *, links: bool = False) -> str:
    """What changes when a file changes: inode, modification time and change time, in nanoseconds.

    Args:
        status: The file's.
        links: Leave out the change time: links are made to the file, and each changes it. Who relies on such a
            version also looks at the linked file's own status.
    """
    version = f"{status.st_ino:x}-{status.st_mtime_ns:x}"
    return version if links else f"{version}-{status.st_ctime_ns:x}"


def stat_file(path: Path) -> os.stat_result | None:
    """The status of a regular file, or None for a directory; links are followed.

    Raises:
        FileNotFoundError: There is nothing.
        InvalidInputError: It is a pipe, a socket or a device.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInputError(f"{path} is neither a file nor a directory, so it cannot be staged; remove it.")
    return status


def walk_files(root: Path, *, may_vanish: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file below a directory, as its path relative to it (forward slashes) and its status.

    Links are followed, to directories too, as a training script would follow them.

    Args:
        root: The directory.
        may_vanish: Leave out what is gone before it is looked at, in a directory where others work.

    Raises:
        FileNotFoundError: A link leads nowhere.
        InvalidInputError: A link leads to a directory above it, or there is a pipe, socket or device.
    """
    yield from _walk(root, "", (_identity(root.stat()),), (FileNotFoundError,) if may_vanish else ())


def _walk(
    directory: Path, prefix: str, above: tuple[tuple[int, int], ...], passed_over: tuple[type[OSError], ...]
) -> Iterator[tuple[str, os.stat_result]]:
    try:
        names = sorted(os.listdir(directory))
    except passed_over:
        return
    for name in names:
        path, key = directory / name, f"{prefix}{name}"
        try:
            status = stat_file(path)
            identity = None if status else _identity(path.stat())
        except passed_over:
            continue
        if status:
            yield key, status
        elif identity in above:
            raise InvalidInputError(f"{path} is a link to a directory above it: a tree without end; remove it.")
        elif identity:
            yield from _walk(path, f"{key}/", (*above, identity), passed_over)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
