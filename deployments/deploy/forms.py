"""The schema that Prefect's UI builds a deployment's form from."""

from typing import Any

from prefect import Flow
from prefect.utilities.callables import parameter_schema

from trainyard.deployments.deploy.resource import Facts


def form_schema(flow: "Flow[..., Any]") -> Facts:
    """A flow's parameters, without what keeps fields from being forms.

    A parameter whose default is an object shows the object's values. An empty dictionary among them makes the UI choose
    the JSON editor for a field that could be a list of entries; without it, the field shows the entries.
    """
    schema: Facts = parameter_schema(flow).model_dump_for_openapi()
    for parameter in schema["properties"].values():
        if isinstance(parameter.get("default"), dict):
            entries = _fields_with_entries(parameter, schema["definitions"])
            kept = {name: value for name, value in parameter["default"].items() if value != {} or name not in entries}
            parameter["default"] = kept
    return schema


def _fields_with_entries(parameter: Facts, definitions: Facts) -> set[str]:
    references = [parameter, *parameter.get("anyOf", [])]
    models = [definitions[item["$ref"].rpartition("/")[2]] for item in references if "$ref" in item]
    fields = {name: field for model in models for name, field in model["properties"].items()}
    return {name for name, field in fields.items() if any(c.get("type") == "array" for c in field.get("anyOf", []))}
