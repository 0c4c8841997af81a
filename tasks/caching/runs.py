"""Run notes: under which key each stage of each pipeline run worked, so that hits and misses can be explained.

Layout below the store's URL::

    runs/<when it started>-<pipeline run id>/<stage>.json

Names begin with the time, so that the newest run is found by listing, without reading the others. Every stage has a
file of its own: nothing is read to be written again, and what a killed run noted stays.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from pydantic import Field, ValidationError

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import InvalidInputError, PipelineError, StorageNotFoundError
from trainyard.tasks.specs.policy import STAGE_NAMES, CacheMode, StageName
from trainyard.tasks.specs.spec import Spec

log = logging.getLogger(__name__)

HISTORY_LENGTH = 50
"""How many earlier runs are looked at, newest first: a store may hold thousands, and each look is a request."""

_STAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True, order=True)
class RunName:
    """The name of one pipeline run's folder of notes; names sort by time.

    Args:
        started: When it started, in UTC.
        id: The pipeline run's id.
    """

    started: datetime
    id: str

    @classmethod
    def now(cls, run_id: str) -> "RunName":
        """The name of a run that starts now."""
        return cls(datetime.now(timezone.utc), run_id)

    @classmethod
    def parse(cls, folder: str) -> "RunName | None":
        """The name that a folder has, or None where the folder is no run's."""
        stamp, _, run_id = folder.partition("-")
        try:
            started = datetime.strptime(stamp, _STAMP).replace(tzinfo=timezone.utc)
        except ValueError:
            return None
        return cls(started, run_id) if run_id else None

    @property
    def folder(self) -> str:
        """The name as it is in the store."""
        return f"{self.started.strftime(_STAMP)}-{self.id}"

    def __str__(self) -> str:
        """The run for people: the beginning of its id, and its time."""
        return f"{self.id[:8]} of {self.started:%Y-%m-%d %H:%M:%S} UTC"


class StageNote(Spec):
    """How one stage went in one pipeline run. Values of environment variables appear as digests alone."""

    stage: StageName
    """The stage's name."""

    status: Literal["unfinished", "ran", "cached"]
    """Whether it ran or used a result of before; unfinished when it failed, was killed or is still at work."""

    cache: CacheMode
    """The cache mode that it was run with."""

    key: str | None = None
    """Its key, or None where it ended before the key was known."""

    components: dict[str, str] = Field(default_factory=dict)
    """The components of the key."""

    missed: str | None = None
    """Why an earlier result of the same key was not used, for people; None where nobody looked for one (yet)."""

    model: str | None = None
    """Name of the model that the pipeline run makes: what tells projects apart that share a store."""

    noted: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    """When this was noted, in UTC."""


def write_note(store: ArtifactStore, folder: str, note: StageNote) -> None:
    """Note how a stage went; a later note replaces it. A store that refuses the note never fails the stage."""
    try:
        (store.root / _note_path(folder, note.stage)).write_bytes(note.model_dump_json(indent=1).encode())
    except (PipelineError, OSError) as error:  # of a local disk, such as one that may only be read
        log.warning("'trainyard explain' will not know how the stage %r went: %s", note.stage, error)


def read_note(store: ArtifactStore, run: RunName, stage: StageName) -> StageNote | None:
    """What a run noted of a stage, or None where there is nothing, or nothing that can be read."""
    try:
        return StageNote.model_validate_json((store.root / _note_path(run.folder, stage)).read_bytes())
    except (StorageNotFoundError, ValidationError):
        return None


def read_notes(store: ArtifactStore, run: RunName) -> list[StageNote]:
    """What a run noted, in the pipeline's order."""
    return [note for name in STAGE_NAMES if (note := read_note(store, run, name))]


def earlier_notes(
    store: ArtifactStore, runs: Sequence[RunName], run: RunName, stage: StageName
) -> Iterator[tuple[RunName, StageNote]]:
    """What the runs before a run noted of a stage, newest first, at most ``HISTORY_LENGTH`` of them."""
    for earlier in [name for name in runs if name < run][:HISTORY_LENGTH]:
        if note := read_note(store, earlier, stage):
            yield earlier, note


def list_runs(store: ArtifactStore) -> list[RunName]:
    """Every run that left notes, newest first."""
    names = (RunName.parse(folder) for folder in (store.root / "runs").list_names())
    return sorted((name for name in names if name), reverse=True)


def find_run(runs: Sequence[RunName], wanted: str | None) -> RunName:
    """The run with an id, or with the only id that begins so; the newest where none is named.

    Args:
        runs: The runs that there are, newest first. One that was retried as a whole is here more than once.
        wanted: An id, or its beginning.

    Raises:
        InvalidInputError: There is no such run, or more than one.
    """
    if not runs:
        raise InvalidInputError("This store holds no pipeline run to explain: run one first, or name its --store.")
    found = [run for run in runs if run.id.startswith(wanted or "")]
    ids = {run.id for run in found}
    if wanted and len(ids) > 1 and wanted not in ids:
        raise InvalidInputError(f"{len(ids)} runs have ids that begin with {wanted!r}: give more of the id.")
    if not found:
        newest = ", ".join(run.id for run in runs[:3])
        raise InvalidInputError(f"This store holds no pipeline run {wanted!r}; the newest are {newest}.")
    return next((run for run in found if run.id == wanted), found[0])


def _note_path(folder: str, stage: StageName) -> str:
    return f"runs/{folder}/{stage}.json"
