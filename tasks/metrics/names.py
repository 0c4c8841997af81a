"""Names of series that come from several places."""

from collections.abc import Iterable


def distinct_names(places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """One name for each pair of a place (a folder, a run) and a name: the bare name where one place alone has it."""
    by_name: dict[str, list[str]] = {}
    for place, name in dict.fromkeys(places):
        by_name.setdefault(name, []).append(place)
    return {
        (place, name): name if len(found) == 1 or not place else f"{place}/{name}"
        for name, found in by_name.items()
        for place in found
    }
