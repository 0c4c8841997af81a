"""Dictionaries that a person can fill in a form: as a list of entries, each with fields of its own.

Prefect's UI shows a dictionary as a JSON editor, and a list of objects as a form. A field with one of these annotations
takes both; its value is the dictionary.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from trainyard.tasks.specs.urls import NO_PASSWORD

NAME = {"type": "string", "title": "Name", "minLength": 1}
TEXT = {"type": "string", "title": "Value", "default": ""}
URL = {
    "type": "string",
    "title": "Data",
    "default": "",
    "description": "Any fsspec URL, or a path; no passwords.",
    "pattern": NO_PASSWORD,
}


@dataclass(frozen=True, slots=True)
class FormEntries:
    """Annotates a dictionary.

    Args:
        title: What one entry is called.
        fields: JSON schema of each of its fields, in their order; one is ``name``, the key.
        value_of: The dictionary's value for an entry.
        required: The fields that an entry must have.
    """

    title: str
    fields: dict[str, dict[str, Any]]
    value_of: Callable[[dict[str, Any]], Any]
    required: tuple[str, ...] = ("name",)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Entries become the dictionary before it is validated."""
        return core_schema.no_info_before_validator_function(self._to_dictionary, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A form of entries, or the dictionary itself as JSON, or nothing where that is allowed."""
        fields = {name: {**field, "position": place} for place, (name, field) in enumerate(self.fields.items())}
        entry = {"type": "object", "title": self.title, "properties": fields, "required": list(self.required)}
        form = {"type": "array", "title": "Form", "items": {**entry, "additionalProperties": False}}
        nothing = [choice for choice in handler(schema).get("anyOf", []) if choice == {"type": "null"}]
        return {"anyOf": [form, {"type": "object", "title": "JSON"}, *nothing]}

    def _to_dictionary(self, value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(entry, dict) and "name" in entry for entry in value):
            return value
        names = [entry["name"] for entry in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(map(repr, twice))}: named twice")
        return {entry["name"]: self.value_of(entry) for entry in value}


def fields_of(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The JSON schema of a model's fields for a form that leaves out what it does not set: without defaults."""
    properties: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return {name: _without_default(field) for name, field in properties.items()}


def _without_default(field: dict[str, Any]) -> dict[str, Any]:
    values = [choice for choice in field.get("anyOf", []) if choice != {"type": "null"}]
    kept = {key: value for key, value in field.items() if key not in ("default", "anyOf")}
    return {**kept, **(values[0] if len(values) == 1 else {"anyOf": values} if values else {})}


def what_was_set(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without its name and its empty fields."""
    return {name: value for name, value in entry.items() if name != "name" and value is not None}


def _argument(entry: dict[str, Any]) -> Any:
    if entry.get("data") and entry.get("value"):
        raise ValueError(f"{entry['name']!r} has a value and data: give one of them")
    return {"url": entry["data"]} if entry.get("data") else entry.get("value") or ""


ARGUMENTS = FormEntries("Argument", {"name": NAME, "value": TEXT, "data": URL}, _argument)
"""Arguments of a script, by name; one without value and data is a bare flag."""

DATA = FormEntries("Input", {"name": NAME, "data": URL}, lambda entry: {"url": entry.get("data") or ""})
"""Data, by the name of a variable."""

VARIABLES = FormEntries("Variable", {"name": NAME, "value": TEXT}, lambda entry: entry.get("value") or "")
"""Texts, by the name of a variable."""


def _json_or_text(entry: dict[str, Any]) -> Any:
    text = entry.get("value") or ""
    try:
        return json.loads(text)
    except ValueError:
        return text


JSON_OR_TEXT = {**TEXT, "description": 'A number, true, false, a list or other JSON; all else is text ("3" is a text).'}

PARAMETERS = FormEntries("Parameter", {"name": NAME, "value": JSON_OR_TEXT}, _json_or_text)
"""Keyword arguments, by name."""


def _named_axes(entry: dict[str, Any]) -> Any:
    axes = entry.get("axes") or []
    if not isinstance(axes, list) or not all(isinstance(item, dict) and {"axis", "name"} == {*item} for item in axes):
        return axes
    if len({item["axis"] for item in axes}) < len(axes):
        raise ValueError(f"{entry['name']!r}: an axis is named twice")
    return {item["axis"]: item["name"] for item in axes}


_AXIS = {
    "type": "object",
    "title": "Axis",
    "properties": {
        "axis": {"type": "integer", "title": "Axis", "minimum": 0, "position": 0},
        "name": {**NAME, "position": 1},
    },
    "required": ["axis", "name"],
    "additionalProperties": False,
}

AXES = FormEntries(
    "Input",
    {"name": NAME, "axes": {"type": "array", "title": "Axes of any size", "items": _AXIS}},
    _named_axes,
    required=("name", "axes"),
)
"""Names of axes by their number, by input."""
