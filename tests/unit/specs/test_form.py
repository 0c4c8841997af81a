"""What Prefect's form sends is the same job as what a person writes in Python."""

import pytest
from pydantic import ValidationError

from trainyard import Datastore, PyTorch

PROJECT = {"source_directory": "x", "entry_script": "train.py"}


def test_entries_of_a_form_become_the_dictionaries():
    filled = PyTorch.model_validate(
        {
            **PROJECT,
            "script_params": [
                {"name": "--data-dir", "data": "s3://bucket/x", "value": ""},
                {"name": "--epochs", "value": "3"},
                {"name": "--amsgrad"},
            ],
            "inputs": [{"name": "EXTRA", "data": "file:///x"}],
            "environment_variables": [{"name": "MODE", "value": "fast"}],
        }
    )
    written = PyTorch(
        **PROJECT,
        script_params={"--data-dir": Datastore(url="s3://bucket/x"), "--epochs": "3", "--amsgrad": ""},
        inputs={"EXTRA": Datastore(url="file:///x")},
        environment_variables={"MODE": "fast"},
    )
    assert filled == written
    assert PyTorch.model_validate_json(filled.model_dump_json()) == written


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"name": "--a", "value": "1"}, {"name": "--a", "value": "2"}], "'--a': named twice"),
        ([{"name": "--a", "value": "1", "data": "s3://x"}], "give one of them"),
    ],
)
def test_entries_that_contradict_each_other_are_refused(entries, words):
    with pytest.raises(ValidationError, match=words):
        PyTorch.model_validate({**PROJECT, "script_params": entries})


def test_data_stays_a_choice_of_tabs_in_the_form():
    """A discriminated union, or one of its JSON schema's words, would make it a JSON editor."""
    properties = PyTorch.model_json_schema()["properties"]
    assert [choice.get("$ref", choice.get("type")) for choice in properties["resume_from"]["anyOf"]] == [
        "#/$defs/DataReference",
        "#/$defs/Datastore",
        "null",
    ]
    assert [choice.get("$ref", choice.get("type")) for choice in properties["compute_target"]["anyOf"]] == [
        "string",
        "#/$defs/Hosts",
    ]
    assert not {"oneOf", "discriminator"} & set(str(PyTorch.model_json_schema()).replace("'", " ").split())


def test_the_forms_schema_offers_a_form_before_json():
    field = PyTorch.model_json_schema()["properties"]["script_params"]
    assert [choice["type"] for choice in field["anyOf"]] == ["array", "object"]
    assert list(field["anyOf"][0]["items"]["properties"]) == ["name", "value", "data"]
    assert field["title"] == "Script parameters"
