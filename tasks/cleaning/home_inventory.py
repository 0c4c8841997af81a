"""What is in this machine's directory: staged data, environments, runs, checkpoints, workspaces, copies of models."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainyard.tasks.caching.locks import is_locked
from trainyard.tasks.cleaning.liveness import training_since_s
from trainyard.tasks.cleaning.names import is_of_home
from trainyard.tasks.cleaning.plan import Blob, Inventory, Item

_FOLDERS = {
    "environments": "environment",
    "runs": "run directory",
    "checkpoints": "checkpoints",
    "work": "workspace",
    "models": "copy of a model",
    "sources": "source of a training",
    "damaged": "damaged data",
}
_SERVER = ("prefect", "services")
_BEFORE_TRAINING_S = 24 * 3600.0


def take_home_inventory(home: Path, live_digests: frozenset[str], live_keys: frozenset[str]) -> Inventory:
    """Look at everything below the home directory that may be removed.

    While a training is at work here, whatever was used since a day before it began is protected.

    Args:
        home: This machine's directory.
        live_digests: Digests that live runs need: of datasets, too.
        live_keys: Keys of the stages of live runs.
    """
    blobs = _Files()
    items: list[Item] = []
    since_s = training_since_s(home)
    short_keys = {key[:32] for key in live_keys}
    for folder in _folders(home, "datasets"):
        items.append(_item("dataset", folder, blobs, since_s, protected=folder.name in live_digests))
    for place, kind in _FOLDERS.items():
        for folder in _folders(home, place):
            needed = folder.name in short_keys or is_locked(folder.with_name(f"{folder.name}.lock"))
            items.append(_item(kind, folder, blobs, since_s, protected=needed))
    items += [_file("copy of a report", path, blobs) for path in _files(home, "reports")]
    items += [_file("damaged data", path, blobs) for path in _files(home, "damaged")]
    for _, path in pool_files(home):
        status = path.lstat()
        blobs.add(status, status.st_mtime)
    return Inventory(items, blobs.blobs())


def pool_files(home: Path) -> Iterator[tuple[str, Path]]:
    """The staged objects, each with the id of its blob."""
    for path in (home / "objects").glob("??/*"):
        if is_of_home("objects", f"{path.parent.name}/{path.name}"):
            yield _inode(path.lstat()), path


def server_bytes(home: Path) -> int:
    """Size of what Prefect's server keeps on this machine: its database is no cache, and is not collected."""
    return sum(status.st_size for place in _SERVER for status in _walk(home / place))


class _Files:
    """Files by their inode, so that hard links count once."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Blob, int]] = {}
        self._num_links: Counter[str] = Counter()

    def add(self, status: os.stat_result, last_used_s: float) -> str:
        """Count one name of a file; gives the id of its blob."""
        id_ = _inode(status)
        self._found.setdefault(id_, (Blob(id_, status.st_size, last_used_s), status.st_nlink))
        self._num_links[id_] += 1
        return id_

    def blobs(self) -> dict[str, Blob]:
        """What they are; one that has a name elsewhere, too, takes no room here: its removal would free none."""
        return {
            id_: blob if self._num_links[id_] >= num_links else replace(blob, num_bytes=0)
            for id_, (blob, num_links) in self._found.items()
        }


def _file(kind: str, path: Path, blobs: _Files) -> Item:
    """A single file: a copy of a validation report (the store keeps another), or an object that was damaged."""
    status = path.lstat()
    return Item(kind, str(path), frozenset({blobs.add(status, status.st_mtime)}), status.st_mtime)


def _folders(home: Path, place: str) -> list[Path]:
    return [path for path in _ours(home, place) if path.is_dir() and not path.is_symlink()]


def _files(home: Path, place: str) -> list[Path]:
    return [path for path in _ours(home, place) if path.is_file() and not path.is_symlink()]


def _ours(home: Path, place: str) -> list[Path]:
    parent = home / place
    if not parent.is_dir():
        return []
    return [path for path in sorted(parent.iterdir()) if is_of_home(place, path.name)]


def _item(kind: str, folder: Path, blobs: _Files, since_s: float | None, *, protected: bool) -> Item:
    """A folder as one item, its files as its blobs."""
    needs, last_used_s = set(), folder.stat().st_mtime
    lock = folder.with_name(f"{folder.name}.lock")
    if lock.exists():
        last_used_s = max(last_used_s, lock.stat().st_mtime)
    for status in _walk(folder):
        needs.add(blobs.add(status, 0.0 if kind == "dataset" else status.st_mtime))
        if kind != "dataset":  # its files keep the time at which they were first staged
            last_used_s = max(last_used_s, status.st_mtime)
    if since_s is not None and last_used_s >= since_s - _BEFORE_TRAINING_S:
        protected = True
    return Item(kind, str(folder), frozenset(needs), last_used_s, protected)


def _walk(folder: Path) -> Iterator[os.stat_result]:
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(directory, name))
            except FileNotFoundError:
                continue


def _inode(status: os.stat_result) -> str:
    return f"inode {status.st_dev}:{status.st_ino}"
