"""Dataset directories: built whole or not at all, believed while they hold exactly their manifest."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from trainyard.tasks.artifacts.datasets import dataset_directory
from trainyard.tasks.staging.index import StagingIndex
from trainyard.tasks.staging.keys import safe_name
from trainyard.tasks.staging.manifest import DatasetManifest
from trainyard.tasks.staging.pool import ObjectPool, staging_lock


def build_dataset(home: Path, manifest: DatasetManifest, pool: ObjectPool, scratch: Path) -> None:
    """Make the directory of a dataset from the pool, which must hold every object of it.

    The directory appears by one rename. Where another process was faster, its directory stays: the bytes are
    the same.
    """
    whole = scratch / manifest.sha256
    (whole / "data").mkdir(parents=True)
    pool.link(
        ((entry.sha256, entry.num_bytes) for entry in manifest.objects),
        (f"{whole}/data/{safe_name(entry.key)}" for entry in manifest.objects),
    )
    destination = dataset_directory(home, manifest.sha256).parent
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        with staging_lock(home):
            os.rename(whole, destination)
    except OSError:
        if not destination.is_dir():
            raise
        shutil.rmtree(whole)


def stands(home: Path, sha256: str, index: StagingIndex) -> bool:
    """Whether a dataset's directory is, to the last file, as it was when ``find_damage`` last found it right."""
    state = _state(dataset_directory(home, sha256))
    return state is not None and index.is_proven(sha256, state)


def find_damage(home: Path, manifest: DatasetManifest, index: StagingIndex) -> str | None:
    """What is wrong with a dataset's directory; None where it holds the manifest's objects and nothing else.

    Files that did not change since they were last proven are not hashed again.
    """
    directory = dataset_directory(home, manifest.sha256)
    if not directory.is_dir():
        return f"there is no {directory}"
    state = _state(directory)  # first: what changes while the files are looked at is seen the next time
    try:
        damage = _find_damage_in(directory, manifest, index)
    except (FileNotFoundError, NotADirectoryError) as error:  # collected, moved aside, or another thing now
        return f"{error.filename} went away meanwhile"
    if damage is None and state is not None:
        index.remember_directory(manifest.sha256, state)
    return damage


def _find_damage_in(directory: Path, manifest: DatasetManifest, index: StagingIndex) -> str | None:
    expected = {safe_name(entry.key) for entry in manifest.objects}
    num_files = 0
    for name, _ in _walk(str(directory)):
        num_files += 1
        if name not in expected:
            return f"{directory / name} is not part of the dataset"
    if num_files < len(expected):  # a disk that folds names would show one file under two of them
        return f"{len(expected) - num_files} of {len(expected)} files are missing in {directory}"
    claims = ((f"{directory}/{entry.key}", entry.num_bytes, entry.sha256) for entry in manifest.objects)
    for (path, _, _), intact in index.check_files(claims):
        if not intact:
            return f"{path} is missing, or its bytes are not those that were staged"
    return None


class NameProbe:
    """Asks a filesystem whether two names are one to it, by trying.

    Args:
        scratch: A directory on it.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def __call__(self, one: str, other: str) -> bool:
        """Whether a file of the one name is found under the other."""
        directory = self._scratch / f"names-{uuid.uuid4().hex}"
        try:
            (directory / one).mkdir(parents=True)
            return (directory / other).exists()
        finally:
            shutil.rmtree(directory)


def _state(directory: Path) -> str | None:
    """A digest of what is below a directory: every name, and the kind, identity, size and times of every file.

    That no file was written to, replaced, added or removed follows from two states being the same. Where the system
    tells names in another order, or another link to a file was made, they are not: the files are looked at then.

    Returns:
        The digest; None where there is no directory, or something in it goes just now.
    """
    digest = hashlib.sha256()
    try:
        for name, entry in _walk(str(directory)):
            s = entry.stat(follow_symlinks=False)
            facts = f"{s.st_mode} {s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {name}\0"
            digest.update(facts.encode(errors="surrogateescape"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return digest.hexdigest()


def _walk(directory: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Everything below a directory that is not a directory, by name: files, and links whatever they lead to."""
    waiting = [(directory, "")]
    while waiting:
        path, prefix = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{prefix}{entry.name}/"))
                else:
                    yield f"{prefix}{entry.name}", entry
