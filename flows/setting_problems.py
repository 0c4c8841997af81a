"""What is wrong with the settings of a pipeline, in sentences for whoever wrote them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from trainyard.tasks.specs.datastore import DataReference, Datastore, kind_of_data
from trainyard.tasks.specs.spec import Spec

_SECRETS = {
    "secret",
    "token",
    "password",
    "access_key",
    "secret_key",
    "access_key_id",
    "credentials",
    "storage_options",
}
_PYDANTICS = re.compile(r"^(Value error|Assertion failed), ")
_KEY = "[key]"


def setting_problems(error: ValidationError, spec: type[Spec], given: object) -> list[str]:
    """One sentence for each problem: where it is, what is wrong, and what may have been meant.

    Args:
        error: What pydantic found.
        spec: What was to be made.
        given: What it was to be made of.
    """
    return list(dict.fromkeys(_sentence(item, spec, given) for item in error.errors()))


def _sentence(item: Any, spec: type[Spec], given: object) -> str:
    *folders, last = [part for part in item["loc"] if part != _KEY] or [""]
    place, owner = ".".join(map(str, [*folders, last])), _spec_at(spec, folders, given)
    message = _PYDANTICS.sub("", str(item["msg"]))
    if item["type"] == "extra_forbidden":
        return f"{place} is not a setting{_hint(str(last), owner)}"
    if item["type"] == "literal_error" and _KEY in item["loc"]:
        known = re.findall(r"'([^']+)'", message)
        return f"{place} is none of {', '.join(known)}{_suggestion(str(last), known)}"
    if owner and message.split(" ", 1)[0] in owner.model_fields:  # it names the field itself
        return ".".join(map(str, [*folders, message]))
    return f"{place}: {message}" if place else message


def _hint(name: str, owner: type[Spec] | None) -> str:
    if owner is Datastore and name in _SECRETS:
        return "; credentials come from the environment, or from the Prefect block that 'block' names"
    if owner is Datastore and name in DataReference.model_fields:
        return f"; it is one beside the datastore: {{datastore: {{url: ...}}, {name}: ...}}"
    return _suggestion(name, owner.model_fields if owner else ())


def _suggestion(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = get_close_matches(name, list(known), n=2, cutoff=0.65)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _spec_at(spec: type[Spec], location: Sequence[int | str], given: object) -> type[Spec] | None:
    """The spec that a place in a document is made into; None where there is none."""
    annotation: object = spec
    for part in location:
        annotation, given = _member(annotation, part), _value(given, part)
    specs = [kind for kind in _alternatives(annotation) if isinstance(kind, type) and issubclass(kind, Spec)]
    if Datastore in specs and isinstance(given, Mapping):
        return kind_of_data(given)
    return specs[0] if len(specs) == 1 else None


def _member(annotation: object, part: int | str) -> object:
    for kind in _alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, Spec) and part in kind.model_fields:
            return kind.model_fields[str(part)].annotation
        if get_origin(kind) in (dict, tuple, list):
            return get_args(kind)[-1 if get_origin(kind) is dict else 0]
    return None


def _alternatives(annotation: object) -> Iterator[object]:
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for kind in get_args(annotation):
            yield from _alternatives(kind)
    else:
        yield annotation


def _value(given: object, part: int | str) -> object:
    if isinstance(given, Mapping):
        return given.get(part)
    return given[part] if isinstance(given, Sequence) and isinstance(part, int) and part < len(given) else None
