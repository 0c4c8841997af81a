"""What is left of a pipeline that was refused: enough to find what else is wrong with it, in the same message."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, TypeVar

from pydantic import ValidationError

from trainyard.tasks.specs.estimator import source_problems
from trainyard.tasks.specs.spec import Spec

STAND_IN = "\u2026"
"""Takes the place of a value that was refused and that there must be; a problem that names it is not the user's."""

STOOD_IN_FOR = ("source_directory", "entry_script", "compute_target")
"""Values of an estimator that must be there, or whose default would be checked in the place of what was meant."""

COUNTS = ("node_count", "process_count_per_node")

Whole = TypeVar("Whole", bound=Spec)


def valid_part(whole: type[Whole], content: Mapping[str, Any]) -> Whole | None:
    """The pipeline without the values that were refused, as if they had not been given.

    Args:
        whole: What the content describes: a spec with a field ``estimator``.
        content: What the person wrote.

    Returns:
        None where nothing can be made of it.
    """
    rest = deepcopy(dict(content))
    while True:
        try:
            return whole.model_validate(rest)
        except ValidationError as error:
            refused = deepcopy(rest)
            for item in error.errors():
                _leave_out(rest, refused, item["loc"], item["msg"])
            if rest == refused:
                return None


def new_problems(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those that were not said before, with the place put in front."""
    said = list(known)
    return [problem for problem in found if not any(problem in line for line in said)]


def _leave_out(rest: dict[str, Any], refused: dict[str, Any], place: tuple[int | str, ...], message: str) -> None:
    """Take one of the refused values out of the rest."""
    estimator = rest.get("estimator")
    if isinstance(estimator, dict) and place[0] == "estimator":
        if place[1:] == ("source_directory",) and _is_about_the_source(refused["estimator"], message):
            return  # a value that is right in itself
        if len(place) == 1:  # the counts, which do not fit the backend
            for name in COUNTS:
                estimator.pop(name, None)
            return
        if place[1:] == ("script_params",) and _keep_only_data(estimator):
            return
        if place[1] in STOOD_IN_FOR:
            estimator[str(place[1])] = STAND_IN
            return
    _remove(rest, _innermost(refused, place))


def _keep_only_data(estimator: dict[str, Any]) -> bool:
    """Of parameters that are refused together, those that name data; whether that are fewer."""
    parameters = estimator.get("script_params")
    if not isinstance(parameters, dict):
        return False
    estimator["script_params"] = {name: value for name, value in parameters.items() if isinstance(value, dict)}
    return len(estimator["script_params"]) < len(parameters)


def _innermost(content: Any, place: tuple[int | str, ...]) -> list[int | str]:
    """As much of a place as there are keys; what follows names a type among several, an item or what is missing."""
    keys: list[int | str] = []
    for key in place:
        if not isinstance(content, dict) or key not in content:
            break
        keys.append(key)
        content = content[key]
    return keys


def _remove(folder: Any, keys: list[int | str]) -> None:
    for key in keys[:-1]:
        folder = folder.get(key, {})
    for last in keys[-1:]:
        folder.pop(last, None)


def _is_about_the_source(estimator: dict[str, Any], message: str) -> bool:
    source, script = estimator.get("source_directory"), estimator.get("entry_script")
    return isinstance(source, str) and isinstance(script, str) and message in source_problems(source, script)
