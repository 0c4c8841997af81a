"""What changed between two stagings, object by object: for ``trainyard explain``."""

import re
from collections.abc import Collection
from heapq import nsmallest
from itertools import zip_longest

from pydantic import ValidationError

from trainyard.tasks.artifacts.products import StagedData, StagedDataset
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.explain import differences
from trainyard.tasks.caching.records import read_recorded
from trainyard.tasks.caching.runs import StageNote
from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.staging.manifest import DatasetManifest

_OBJECTS = re.compile(r"dataset \d+: (number of )?objects")
"""Components of a key that say of objects no more than that they changed."""

_MOST_NAMED = 3


def describe_difference(store: ArtifactStore, new: StageNote, old: StageNote) -> list[str]:
    """What differs between two notes of a stage, for people; of staged data with the names of some objects.

    Args:
        store: Where both runs kept their results.
        new: What a run noted.
        old: What an earlier one noted.

    Returns:
        Lines such as ``data: +3 objects (a.npy, b.npy, c.npy)``; less is said where a manifest is gone.
    """
    names = {*new.components, *old.components}
    objects = {name for name in names if _OBJECTS.fullmatch(name)}
    changes = None
    if any(new.components.get(name) != old.components.get(name) for name in objects):
        changes = _data_changes(store, new, old)
    if not changes:
        return differences(new.components, old.components)
    others = ({name: text for name, text in each.components.items() if name not in objects} for each in (new, old))
    return [*changes, *differences(*others)]


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
