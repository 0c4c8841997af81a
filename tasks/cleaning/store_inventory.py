"""What is in an artifact store, and what of it is needed.

Objects that anything but the cache speaks of are never removed: every JSON file outside ``objects/``, ``cache/``,
``runs/`` and ``answers/`` (the registry's manifests, for one) protects each object whose digest stands in it. So do
the notes of live runs: what a stage at work reads (a training its source) stands in no record until it has ended.
"""

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.artifacts.products import ANSWERS
from trainyard.tasks.artifacts.references import ArtifactRef, TreeListing
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.lease import MOST_TTL_S, may_live
from trainyard.tasks.caching.records import record_path
from trainyard.tasks.caching.runs import StageNote
from trainyard.tasks.cleaning.liveness import is_alive, runs_with_notes
from trainyard.tasks.cleaning.names import is_collected, is_lease
from trainyard.tasks.cleaning.plan import UNREFERENCED_S, Blob, Inventory, Item
from trainyard.tasks.errors import ArtifactDamagedError, StorageNotFoundError

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_LARGEST_TEXT = 64 << 20
_NUM_READERS = 16
_REFERENCE_FIELDS = set(ArtifactRef.model_fields)


@dataclass(frozen=True, slots=True)
class StoreContents:
    """The inventory of a store, and what it says of this machine."""

    inventory: Inventory
    """Records, run notes and objects; ids are paths below the store's URL."""

    live_digests: frozenset[str]
    """Every digest in the records and notes of live runs: of datasets, too."""

    live_keys: frozenset[str]
    """Keys of the stages of live runs."""


def take_store_inventory(store: ArtifactStore, home: Path, now_s: float) -> StoreContents:
    """Look at everything below a store's URL.

    Args:
        store: The store.
        home: This machine's directory, whose locks tell which runs are alive.
        now_s: The time, in seconds since 1970.
    """
    files = {info.key: info for info in _files(store)}
    objects = {info.key.rsplit("/", 1)[-1]: info for info in files.values() if info.key.startswith("objects/")}
    reader = _Reader(store, objects)
    runs = list(runs_with_notes(store))
    live = [(run, notes) for run, notes in runs if is_alive(notes, store, home, now_s)]
    live_keys = frozenset(note.key for _, notes in live for note in notes if note.key)
    used_s: dict[str, float] = {}
    for _, notes in runs:
        for note in notes:
            used_s[note.key or ""] = max(used_s.get(note.key or "", 0.0), note.noted.timestamp())
    records = [info for info in files.values() if info.key.startswith("cache/") and is_collected(info.key)]
    with ThreadPoolExecutor(_NUM_READERS) as executor:
        contents = dict(zip((info.key for info in records), executor.map(reader.record, records), strict=True))
    items, live_digests = [], set(_digests_of_others(store, files.values(), reader))
    registered = frozenset(live_digests)
    for info in records:
        key = info.key.rsplit("/", 1)[-1].removesuffix(".json")
        needs = frozenset(objects[d].key for d in contents[info.key] if d in objects)
        last_used_s = max(info.modified_s, used_s.get(key, 0.0))
        items.append(Item("cached result", info.key, needs | {info.key}, last_used_s, key in live_keys))
        if key in live_keys:
            live_digests |= contents[info.key]
    for run, notes in runs:
        names = frozenset(key for key in files if key.startswith(f"runs/{run.folder}/") and is_collected(key))
        noted_s = max((note.noted.timestamp() for note in notes), default=run.started.timestamp())
        items.append(Item("run note", f"runs/{run.folder}", names, noted_s, (run, notes) in live))
    for folder, answers in _answers(files.values()).items():
        needs = frozenset(info.key for info in answers)
        answered_s = max(info.modified_s for info in answers)
        items.append(Item("run answer", folder, needs, answered_s, protected=now_s - answered_s < UNREFERENCED_S))
    kept = {objects[digest].key for digest in registered if digest in objects}
    kept |= {key for key in files if key.startswith("models/")}
    items.append(Item("registered models", "models", frozenset(kept), now_s, protected=True))
    noted = frozenset(_digests_of_notes((note for _, notes in live for note in notes), reader))
    live_digests |= noted
    needs = frozenset(objects[digest].key for digest in noted if digest in objects)
    items.append(Item("inputs of live runs", "inputs", needs, now_s, protected=True))
    counted = (info for info in files.values() if is_collected(info.key) or info.key.startswith("models/"))
    blobs = {info.key: Blob(info.key, info.num_bytes, info.modified_s) for info in counted}
    dead = (info for info in files.values() if is_lease(info.key) and not may_live(info, MOST_TTL_S, now_s))
    blobs |= {info.key: Blob(info.key, info.num_bytes, info.modified_s) for info in dead}  # no item needs them
    return StoreContents(Inventory(items, blobs), frozenset(live_digests), live_keys)


def live_needs(store: ArtifactStore, home: Path, now_s: float) -> tuple[frozenset[str], frozenset[str]]:
    """What live runs in a store need at home: digests (of datasets, too), and keys of their stages.

    Only their own notes and records are read, for who cleans another store.

    Raises:
        PipelineError: The store cannot be read.
    """
    notes = [note for _, notes in runs_with_notes(store) if is_alive(notes, store, home, now_s) for note in notes]
    keys = frozenset(note.key for note in notes if note.key)
    texts = [value for note in notes for value in note.components.values()]
    for note in notes:
        with suppress(StorageNotFoundError):
            if note.key:
                texts.append((store.root / record_path(note.stage, note.key)).read_bytes().decode(errors="replace"))
    return frozenset(digest for text in texts for digest in _DIGEST.findall(text)), keys


def _answers(files: Iterable[ObjectInfo]) -> dict[str, list[ObjectInfo]]:
    """What runs answered to whoever waited for them, by the folder of each run; it keeps no object alive."""
    found: dict[str, list[ObjectInfo]] = {}
    for info in files:
        if info.key.startswith(ANSWERS) and is_collected(info.key):
            found.setdefault(info.key.rpartition("/")[0], []).append(info)
    return found


def _files(store: ArtifactStore) -> Iterator[ObjectInfo]:
    try:
        yield from store.root.list_objects(may_vanish=True)  # others write to the store meanwhile
    except StorageNotFoundError:
        return


def _digests_of_notes(notes: Iterable[StageNote], reader: "_Reader") -> Iterator[str]:
    """Digests among the components of some notes, and in the trees among them."""
    for note in notes:
        for value in note.components.values():
            for digest in _DIGEST.findall(value):
                yield digest
                yield from reader.tree(digest)


def _digests_of_others(store: ArtifactStore, files: Iterable[ObjectInfo], reader: "_Reader") -> Iterator[str]:
    """Digests in JSON files that are neither objects, records nor run notes, and in the trees among them."""
    for info in files:
        if info.key.startswith(("objects/", "cache/", "runs/", "leases/", ANSWERS)) or not info.key.endswith(".json"):
            continue
        for digest in _DIGEST.findall((store.root / info.key).read_bytes().decode(errors="replace")):
            yield digest
            yield from reader.tree(digest)


class _Reader:
    """Reads records and trees; each tree once."""

    def __init__(self, store: ArtifactStore, objects: dict[str, ObjectInfo]) -> None:
        self._store, self._objects = store, objects
        self._trees: dict[str, frozenset[str]] = {}

    def record(self, info: ObjectInfo) -> frozenset[str]:
        """Every digest that a record speaks of, with those in its trees."""
        try:
            data = (self._store.root / info.key).read_bytes()
            document = json.loads(data)
        except (StorageNotFoundError, ValueError):
            return frozenset()
        trees = (self.tree(ref["sha256"]) for ref in _references(document) if ref["kind"] == "tree")
        return frozenset(_DIGEST.findall(data.decode())).union(*trees)

    def tree(self, sha256: str) -> frozenset[str]:
        """Digests of the files of a tree; none where the object is no tree."""
        if sha256 not in self._trees:
            self._trees[sha256] = self._read_tree(sha256)
        return self._trees[sha256]

    def _read_tree(self, sha256: str) -> frozenset[str]:
        info = self._objects.get(sha256)
        if info is None or info.num_bytes > _LARGEST_TEXT:
            return frozenset()
        location = self._store.root / info.key
        try:
            if not location.read_bytes().startswith(b'{"entries"'):
                return frozenset()
            listing = TreeListing.model_validate_json(location.read_bytes())
        except (StorageNotFoundError, ArtifactDamagedError, ValidationError):
            return frozenset()
        return frozenset(entry.sha256 for entry in listing.entries)


def _references(value: Any) -> Iterator[dict[str, Any]]:
    """Every artifact reference inside a JSON document."""
    if isinstance(value, dict):
        if set(value) == _REFERENCE_FIELDS:
            yield value
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
