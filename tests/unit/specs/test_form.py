"""What Prefect's form sends is the same job as what a person writes in Python."""

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from prefect.utilities.schema_tools.validation import ValidationError as PrefectValidationError
from pydantic import TypeAdapter, ValidationError

from trainyard import Datastore, OnnxExport, OrtValidation, PyTorch, StagePolicy
from trainyard.flows.pipeline_run import policies_in_force
from trainyard.flows.training_pipeline import training_pipeline
from trainyard.tasks.specs.policy import DEFAULT_POLICIES, Policies

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


def test_policies_from_a_form_leave_what_they_do_not_set_to_the_stages_default():
    entries = [{"name": "train", "retries": 2, "timeout_s": None}, {"name": "export", "cache": "off"}]
    filled = TypeAdapter(Policies).validate_python(entries)
    assert filled == {"train": StagePolicy(retries=2), "export": StagePolicy(cache="off")}
    assert policies_in_force(filled)["export"].timeout_s == DEFAULT_POLICIES["export"].timeout_s


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"name": "train"}, {"name": "train"}], "'train': named twice"),
        ([{"name": "trian"}], "'stage', 'train'"),
        ([{"name": "train", "retries": 51}], "less than or equal to 50"),
        ([{"name": "train", "retry": 1}], "not permitted"),
    ],
)
def test_wrong_policies_from_a_form_are_refused(entries, words):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Policies).validate_python(entries)


def test_least_metrics_from_a_form():
    filled = OrtValidation.model_validate({"min_metrics": [{"name": "accuracy", "minimum": 0.95}]})
    assert filled == OrtValidation(min_metrics={"accuracy": 0.95})
    with pytest.raises(ValidationError, match="valid number"):
        OrtValidation.model_validate({"min_metrics": [{"name": "accuracy"}]})


def test_factory_parameters_and_axes_from_a_form():
    written = {"width": 32, "bias": True, "sizes": [3, 5], "activation": "relu", "version": "3", "empty": ""}
    texts = {"width": "32", "bias": "true", "sizes": "[3, 5]", "activation": "relu", "version": '"3"', "empty": ""}
    filled = OnnxExport.model_validate(
        {
            "module": "model:build",
            "module_params": [{"name": name, "value": text} for name, text in texts.items()],
            "dynamic_axes": [{"name": "tokens", "axes": [{"axis": 1, "name": "sequence"}]}],
        }
    )
    assert filled == OnnxExport(module="model:build", module_params=written, dynamic_axes={"tokens": {1: "sequence"}})
    assert OnnxExport.model_validate_json(filled.model_dump_json()) == filled


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ([{"axis": 1, "name": "a"}, {"axis": 1, "name": "b"}], "'tokens': an axis is named twice"),
        ([{"axis": -1, "name": "a"}], "greater than or equal to 0"),
        ([{"axis": 1}], "valid dictionary"),
        ("1: sequence", "valid dictionary"),
    ],
)
def test_axes_that_cannot_be_are_refused(axes, words):
    with pytest.raises(ValidationError, match=words):
        OnnxExport.model_validate({"dynamic_axes": [{"name": "tokens", "axes": axes}]})


def choices_of(schema):
    return [choice["type"] for choice in schema["anyOf"]]


def test_the_pipelines_form_has_entries_for_policies_and_least_metrics():
    schema = parameter_schema(training_pipeline).model_dump_for_openapi()
    policies = schema["properties"]["policies"]
    assert choices_of(policies) == ["array", "object", "null"]
    fields = policies["anyOf"][0]["items"]["properties"]
    assert list(fields) == ["name", *StagePolicy.model_fields]
    assert fields["retries"]["maximum"] == 50
    assert not [name for name, field in fields.items() if "default" in field], "a default would be set, unasked"
    least = schema["definitions"]["OrtValidation"]["properties"]["min_metrics"]
    assert choices_of(least) == ["array", "object"]
    assert least["anyOf"][0]["items"]["properties"]["name"]["enum"][0] == "accuracy"
    greatest = schema["definitions"]["OrtValidation"]["properties"]["max_metrics"]
    assert greatest["anyOf"][0]["items"]["properties"]["name"]["enum"] == ["log_loss", "mae", "mse", "rmse"]
    export = schema["definitions"]["OnnxExport"]["properties"]
    assert [choices_of(export[name]) for name in ("module_params", "dynamic_axes")] == [["array", "object"]] * 2


@pytest.mark.parametrize("policies", [[{"name": "train", "retries": 2}], {"train": {"retries": 2}}, None])
def test_the_server_takes_a_form_as_well_as_what_python_sends(policies):
    schema = parameter_schema(training_pipeline).model_dump_for_openapi()
    validate({"estimator": PROJECT, "policies": policies}, schema, raise_on_error=True)


def test_the_server_refuses_a_form_that_is_wrong():
    schema = parameter_schema(training_pipeline).model_dump_for_openapi()
    wrong = {"estimator": PROJECT, "policies": [{"name": "trian"}]}
    with pytest.raises(PrefectValidationError):
        validate(wrong, schema, raise_on_error=True)


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("s3://training-data/digits", False),
        ("s3://bucket/dir@v1/a:b", False),
        ("http://127.0.0.1:9000/bucket/x@y", False),
        ("sftp://me@host/data", False),
        ("zip://train::s3://bucket/data.zip", False),
        ("/data/digits", False),
        ("https://me:hush@host/data", True),
        ("s3://KEY:hush@bucket/data", True),
    ],
)
def test_a_password_in_a_url_is_refused_before_there_is_a_run(url, refused):
    """The parameters of a run show it."""
    schema = parameter_schema(training_pipeline).model_dump_for_openapi()
    for data in (
        {"script_params": [{"name": "--data", "data": url}]},
        {"inputs": [{"name": "DATA", "data": url}]},
        {"resume_from": {"url": url}},
    ):
        if refused:
            with pytest.raises(PrefectValidationError):
                validate({"estimator": {**PROJECT, **data}}, schema, raise_on_error=True)
        else:
            validate({"estimator": {**PROJECT, **data}}, schema, raise_on_error=True)
