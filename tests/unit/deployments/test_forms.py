"""What the UI makes forms from."""

from trainyard.deployments.deploy.forms import form_schema
from trainyard.flows.training_pipeline import training_pipeline


def test_a_default_never_chooses_json_for_a_field_that_has_entries():
    schema = form_schema(training_pipeline)
    assert schema["definitions"]["OrtValidation"]["properties"]["min_metrics"]["anyOf"][0]["type"] == "array"
    shown = schema["properties"]["validation"]["default"]
    assert "min_metrics" not in shown
    assert shown["max_samples"] == 4096
    assert shown["batch_sizes"] is None
