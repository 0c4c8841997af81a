"""What changed between two runs, by the names that people gave: for ``trainyard explain``.

Keys hold digests of whole datasets and source trees; what these consist of is in the store.
"""

import re
from collections.abc import Collection
from heapq import nsmallest
from itertools import zip_longest

from pydantic import ValidationError

from trainyard.tasks.artifacts.products import StagedData, StagedDataset
from trainyard.tasks.artifacts.references import TreeListing
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.explain import differences
from trainyard.tasks.caching.records import read_recorded
from trainyard.tasks.caching.runs import StageNote
from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.staging.manifest import DatasetManifest

_OBJECTS = re.compile(r"dataset \d+: (number of )?objects")
"""Components of a key that say of objects no more than that they changed."""

_SOURCE = "input:source"
_ARGUMENT = "config:argument["
_ARGUMENT_ORDER = "config:argument order"

_MOST_NAMED = 3


def describe_difference(store: ArtifactStore, new: StageNote, old: StageNote) -> list[str]:
    """What differs between two notes of a stage, for people: with the names of some files and objects.

    Args:
        store: Where both runs kept their results.
        new: What a run noted.
        old: What an earlier one noted.

    Returns:
        Lines such as ``data: +3 objects (a.npy, b.npy, c.npy)`` and ``source: train.py changed``; less is said where a
        manifest or a source tree is gone.
    """
    changed = {name for name in {*new.components, *old.components} if _differs(name, new, old)}
    said: set[str] = set()
    lines: list[str] = []
    objects = {name for name in changed if _OBJECTS.fullmatch(name)}
    if objects and (found := _data_changes(store, new, old)):
        lines += found
        said |= objects
    if _SOURCE in changed and (found := _source_changes(store, new, old)):
        lines += found
        said.add(_SOURCE)
    if any(name.startswith(_ARGUMENT) and not (name in new.components and name in old.components) for name in changed):
        said.add(_ARGUMENT_ORDER)  # another argument says it
    others = ({name: text for name, text in each.components.items() if name not in said} for each in (new, old))
    return [*lines, *differences(*others)]


def _differs(name: str, new: StageNote, old: StageNote) -> bool:
    return new.components.get(name) != old.components.get(name)


def _source_changes(store: ArtifactStore, new: StageNote, old: StageNote) -> list[str] | None:
    """A line for each kind of change in the source tree; None where a tree is not there (any more)."""
    digests = [note.components.get(_SOURCE) for note in (new, old)]
    try:
        trees = [store.list_tree_of(digest) for digest in digests if digest]
    except (ArtifactDamagedError, ValidationError):
        return None
    return [f"source: {change}" for change in tree_changes(*trees)] if len(trees) == len(digests) else None


def tree_changes(new: TreeListing, old: TreeListing) -> list[str]:
    """What was changed, added and removed, each with the first names."""
    now = {entry.path: (entry.sha256, entry.executable) for entry in new.entries}
    before = {entry.path: (entry.sha256, entry.executable) for entry in old.entries}
    changed = {path for path in now.keys() & before.keys() if now[path] != before[path]}
    found = [(changed, "changed"), (now.keys() - before.keys(), "added"), (before.keys() - now.keys(), "removed")]
    return [f"{_names(paths)} {what}" for paths, what in found if paths]


def _data_changes(store: ArtifactStore, new_note: StageNote, old_note: StageNote) -> list[str] | None:
    """A line for each kind of change in each dataset; None where a result or a manifest is not there (any more)."""
    new, old = (read_recorded(store, note.stage, note.key or "", StagedData) for note in (new_note, old_note))
    if new is None or old is None:
        return None
    lines = []
    try:
        for n, pair in enumerate(zip_longest(new.datasets, old.datasets)):
            name = f"data {n}" if max(len(new.datasets), len(old.datasets)) > 1 else "data"
            lines += [f"{name}: {change}" for change in _dataset_changes(store, *pair)]
    except (ArtifactDamagedError, ValidationError):
        return None
    return lines


def _dataset_changes(store: ArtifactStore, new: StagedDataset | None, old: StagedDataset | None) -> list[str]:
    if new is None or old is None:
        return ["a dataset more" if new else "a dataset less"]
    return manifest_changes(_read(store, new), _read(store, old))


def manifest_changes(new: DatasetManifest, old: DatasetManifest) -> list[str]:
    """What was added, removed and changed, each with the first names; objects are told apart by their bytes."""
    now = {entry.key: entry for entry in new.objects}
    before = {entry.key: entry for entry in old.objects}
    kept = now.keys() & before.keys()
    changed = {key for key in kept if now[key].sha256 != before[key].sha256}
    rewritten = {key for key in kept - changed if now[key].version != before[key].version}
    found = [
        ("+", now.keys() - kept, ""),
        ("-", before.keys() - kept, ""),
        ("", changed, " changed"),
        ("", rewritten, " written again with the same bytes"),
    ]
    return [f"{sign}{_count(len(keys))}{what} ({_names(keys)})" for sign, keys, what in found if keys]


def _count(num_objects: int) -> str:
    return f"{num_objects:,} object" if num_objects == 1 else f"{num_objects:,} objects"


def _names(keys: Collection[str]) -> str:
    ordered = nsmallest(_MOST_NAMED, keys)
    more = len(keys) - len(ordered)
    return ", ".join(ordered) + (f" and {more:,} more" if more > 0 else "")


def _read(store: ArtifactStore, dataset: StagedDataset) -> DatasetManifest:
    return DatasetManifest.model_validate_json(store.read_bytes(dataset.manifest))
