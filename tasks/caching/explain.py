"""Why a stage hit or missed its cache: this run's note held against those of earlier runs."""

import re
from collections.abc import Callable, Iterable, Mapping

from trainyard.tasks.caching.runs import RunName, StageNote

SHOWN_LENGTH = 60
"""Values longer than this many characters are not shown, only that they changed."""

MISSING, ELSEWHERE = "its result was missing or damaged", "its data was not on this machine"
"""Why an earlier result was not used."""

_UNFINISHED = "failed, was ended, or is still at work"
_DIGEST = re.compile(r"[0-9a-f]{40,}")


def component_differences(new: StageNote, old: StageNote) -> list[str]:
    """What differs between the keys of two notes, for people."""
    return differences(new.components, old.components)


def explain_stage(
    note: StageNote,
    earlier: Iterable[tuple[RunName, StageNote]],
    describe: Callable[[StageNote, StageNote], list[str]] = component_differences,
) -> list[str]:
    """Say why a stage hit or missed, for people.

    Args:
        note: What this run noted of the stage.
        earlier: What earlier runs noted of it, newest first; read only as far as needed.
        describe: Says what differs between this note and that of the closest earlier run, which comes second.

    Returns:
        One reason a line, never empty.
    """
    if note.key is None:
        return ["no key was noted: it failed or was ended before its key was known, or is still at work"]
    if note.cache != "on":
        return [f"its policy says cache={note.cache}: no earlier result was looked for"]
    known: list[tuple[RunName, StageNote]] = []
    for run, other in earlier:
        known.append((run, other))
        if other.key == note.key and (note.status == "cached" or _kept(other)):
            return [_same_key(note, run)]
    if note.status == "cached":
        return ["a verified result of the same key was in the store"]
    return _lost(note, known) or _closest_differences(note, known, describe)


def differences(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """What differs between the components of two keys, one sentence each, sorted by component.

    Args:
        new: The components of this run.
        old: Those of an earlier one.
    """
    return [_describe(name, new.get(name), old.get(name)) for name in _differing(new, old)]


def closest(
    components: Mapping[str, str], earlier: Iterable[tuple[RunName, StageNote]]
) -> tuple[RunName, StageNote] | None:
    """The earlier run whose components differ least; of equally close ones the newest.

    Args:
        components: The components of this run.
        earlier: Earlier notes, newest first.
    """
    return min(earlier, key=lambda item: len(_differing(components, item[1].components)), default=None)


def _same_key(note: StageNote, run: RunName) -> str:
    if note.status == "cached":
        return f"nothing changed since run {run}"
    if note.status == "unfinished" and note.missed is None:
        return f"nothing changed since run {run}, but whether its result can be used was not yet known"
    return f"nothing changed since run {run}, but {note.missed or MISSING}"


def _lost(note: StageNote, earlier: Iterable[tuple[RunName, StageNote]]) -> list[str]:
    """The newest run of the same key, none of which kept a result."""
    for run, other in earlier:
        if other.key == note.key:
            why = _UNFINISHED if other.status == "unfinished" else "kept no result (cache=off)"
            return [f"nothing changed since run {run}, which {why}"]
    return []


def _closest_differences(
    note: StageNote,
    earlier: Iterable[tuple[RunName, StageNote]],
    describe: Callable[[StageNote, StageNote], list[str]],
) -> list[str]:
    earlier = list(earlier)
    ours = [item for item in earlier if _is_same_project(note, item[1])]
    if earlier and not ours:
        return [f"there is no earlier run of this project ({note.model})"]
    found = closest(note.components, (item for item in ours if _kept(item[1])))
    reasons = ["there is no earlier result of this stage"]
    if found is not None:
        reasons = [*describe(note, found[1]), f"(compared with run {found[0]})"]
    failed = next((item for item in ours if item[1].status == "unfinished" and item[1].key), None)
    if failed is not None and (found is None or _distance(note, failed[1]) < _distance(note, found[1])):
        reasons += [*describe(note, failed[1]), f"(compared with run {failed[0]}, which {_UNFINISHED})"]
    return reasons


def _is_same_project(one: StageNote, other: StageNote) -> bool:
    """Whether two notes are of runs that make the same model; those of earlier versions do not say."""
    return None in (one.model, other.model) or one.model == other.model


def _distance(one: StageNote, other: StageNote) -> int:
    return len(_differing(one.components, other.components))


def _kept(note: StageNote) -> bool:
    """Whether a later run could have used its result."""
    return note.status != "unfinished" and note.cache != "off"


def _differing(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*new, *old} if new.get(name) != old.get(name))


def _describe(name: str, new: str | None, old: str | None) -> str:
    if old is None:
        return f"{name} added" if not _is_short(new) else f"{name} added: {new}"
    if new is None:
        return f"{name} removed" if not _is_short(old) else f"{name} removed: {old}"
    return f"{name}: {old} → {new}" if _is_short(old) and _is_short(new) else f"{name} changed"


def _is_short(value: str | None) -> bool:
    """Whether a value says something to people: no digest, and not too long for a line."""
    return value is not None and 0 < len(value) <= SHOWN_LENGTH and not _DIGEST.fullmatch(value)
