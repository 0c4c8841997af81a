"""Aliases: ``latest`` is the newest version; ``champion`` is moved, and only through a gate.

::

    models/<name>/champion/000003.json       the third move: to which version, why, and when

A move creates the next number, and only if there is none, so of two at once one succeeds and the other decides again on
what is then true. Nothing is overwritten: the moves are the history, and the last one counts.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, RegistrationError, StorageNotFoundError
from trainyard.tasks.registry.locking import claiming
from trainyard.tasks.registry.versions import list_versions, model_location, numbers
from trainyard.tasks.specs.spec import Spec

log = logging.getLogger(__name__)

CHAMPION, LATEST = "champion", "latest"


class Decision(NamedTuple):
    """Where the champion may go."""

    version: int
    reason: str
    kind: Literal["promote", "rollback"] = "promote"


class Move(Spec):
    """One move of the champion."""

    number: int = Field(ge=1)
    """The how-manieth it is."""

    version: int = Field(ge=1)
    """Where to."""

    kind: Literal["promote", "rollback"]
    """Forward, or back to what was before."""

    reason: str
    """Why it was allowed."""

    moved: datetime
    """When, in UTC."""


def list_moves(store: ArtifactStore, name: str) -> list[Move]:
    """Every move of the champion, the first one first.

    Raises:
        ArtifactDamagedError: One cannot be read.
    """
    folder = model_location(store, name) / CHAMPION
    return [_read_move(store, name, number) for number in numbers(folder)]


def reigns(moves: list[Move]) -> list[int]:
    """The versions that were champion one after another, without those that were rolled back."""
    versions: list[int] = []
    for move in moves:
        if move.kind == "rollback":
            versions.pop()
        else:
            versions.append(move.version)
    return versions


def champion_of(store: ArtifactStore, name: str) -> int | None:
    """The champion's version, or None while there is none."""
    found = numbers(model_location(store, name) / CHAMPION)
    return _read_move(store, name, found[-1]).version if found else None


def resolve(store: ArtifactStore, name: str, wanted: str | int) -> int:
    """The version that a number or an alias stands for.

    Raises:
        StorageNotFoundError: There is no such model, or none such; says what there is.
        RegistrationError: It is neither a number nor an alias.
    """
    versions = list_versions(store, name)
    if not versions:
        raise StorageNotFoundError(f"There is no model {name!r} in {store.url}; see 'trainyard models list'.")
    if wanted == LATEST:
        return versions[-1]
    if wanted == CHAMPION:
        version = champion_of(store, name)
        if version is None:
            raise StorageNotFoundError(f"The model {name!r} has no champion; versions: {_listed(versions)}.")
        return version
    try:
        number = int(wanted)
    except ValueError:
        raise RegistrationError(
            f"{wanted!r} is no version of {name!r}: expected a number, '{CHAMPION}' or '{LATEST}'."
        ) from None
    if number not in versions:
        raise StorageNotFoundError(f"There is no version {number} of {name!r}; versions: {_listed(versions)}.")
    return number


def move_champion(store: ArtifactStore, name: str, decide: Callable[[list[Move]], Decision]) -> Move:
    """Move the champion.

    Args:
        store: Where the registry is.
        name: The model.
        decide: Gets the moves so far; says where to and why, or raises. Called again where somebody else was faster.

    Raises:
        PipelineError: What ``decide`` raises.
    """
    folder = model_location(store, name) / CHAMPION
    while True:
        moves = list_moves(store, name)
        decision = decide(moves)
        move = Move(
            number=moves[-1].number + 1 if moves else 1,
            version=decision.version,
            kind=decision.kind,
            reason=decision.reason,
            moved=datetime.now(timezone.utc),
        )
        location = folder / f"{move.number:06}.json"
        with claiming(location.url):
            created = location.create_bytes(move.model_dump_json(indent=1).encode())
        if created or _read_move(store, name, move.number) == move:  # ours, of a request whose answer was lost
            log.info("The champion of %s is version %d: %s", name, move.version, move.reason)
            return move
        log.info("Somebody else moved the champion of %s at the same moment; deciding again.", name)


def _read_move(store: ArtifactStore, name: str, number: int) -> Move:
    location = model_location(store, name) / CHAMPION / f"{number:06}.json"
    try:
        return Move.model_validate_json(location.read_bytes())
    except ValidationError as error:
        raise ArtifactDamagedError(f"{location.url} is no move of the champion; remove it.") from error


def _listed(versions: list[int]) -> str:
    return ", ".join(map(str, versions))
