"""Who is at work: which stage keys and directories a run needs right now."""

from collections.abc import Iterator
from pathlib import Path

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.lease import is_leased
from trainyard.tasks.caching.locks import is_locked
from trainyard.tasks.caching.runs import RunName, StageNote, list_runs, read_notes
from trainyard.tasks.cleaning.plan import YOUNG_S

UNFINISHED_S = 24 * 3600.0
"""How long a run that did not come to an end counts as alive, where nothing else says that it is dead."""


def training_since_s(home: Path) -> float | None:
    """When the longest of the trainings at work on this machine began; None where there is none."""
    locks = (path for path in (home / "work").glob("*.lock") if is_locked(path))
    return min((path.stat().st_mtime for path in locks), default=None)


def runs_with_notes(store: ArtifactStore) -> Iterator[tuple[RunName, list[StageNote]]]:
    """Every run that left notes, and what it noted."""
    for run in list_runs(store):
        yield run, read_notes(store, run)


def is_alive(notes: list[StageNote], store: ArtifactStore, home: Path, now_s: float) -> bool:
    """Whether a run may go on: it noted something just now, or has a stage under way.

    A stage is under way while its key is locked; a run that was killed, or waits between two attempts, holds no
    lock, and counts as alive for a day.
    """
    newest_s = max((note.noted.timestamp() for note in notes), default=0.0)
    if now_s - newest_s < YOUNG_S:
        return True
    open_stages = [note for note in notes if note.status == "unfinished"]
    if open_stages and now_s - newest_s < UNFINISHED_S:
        return True
    return any(
        is_locked(home / "locks" / f"{note.stage}-{note.key}.lock") or is_leased(store, note.stage, note.key)
        for note in open_stages
        if note.key
    )
