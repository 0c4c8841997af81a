import logging

import pytest

from trainyard import Datastore, PyTorch
from trainyard.flows.preflight import check_inputs, text_warnings
from trainyard.tasks.export.preflight import export_problems
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.preflight import validation_problems


@pytest.fixture
def source(tmp_path):
    (tmp_path / "nets").mkdir()
    for name in ("model.py", "nets/__init__.py", "nets/small.py"):
        (tmp_path / name).write_text("")
    return str(tmp_path)


@pytest.mark.parametrize("module", ["model:build", "nets:build", "nets.small:build", "small:build"])
def test_a_factory_that_may_be_there(source, module):
    assert export_problems(OnnxExport(module=module), source) == []
    assert export_problems(OnnxExport(), source) == []


def test_a_factory_that_cannot_be_there(source):
    (problem,) = export_problems(OnnxExport(module="nets.large:build"), source)
    assert "has no module 'nets.large'" in problem


def test_a_provider_that_is_not_there():
    assert validation_problems(OrtValidation()) == []
    (problem,) = validation_problems(OrtValidation(providers=("NoSuchExecutionProvider",)))
    assert "NoSuchExecutionProvider is not in onnxruntime" in problem and "CPUExecutionProvider" in problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"module": "model.build"}, "is not 'package.module:factory'"),
        ({"module_params": {"hidden": 3}}, "module names none"),
        ({"fallbacks": ["strict", "strict"]}, "names one twice"),
        ({"fallbacks": ["guess"]}, "strict"),
        ({"inputs": [{"name": "x", "shape": [0]}]}, "greater than or equal to 1"),
        ({"inputs": [{"name": "x", "shape": [1], "minimum": 2}]}, "is above maximum"),
        ({"dynamic_axes": {"x": {-1: "n"}}}, "greater than or equal to 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OnnxExport.model_validate(settings)


def test_data_that_reaches_the_script_as_text_is_warned_of_before_launch(source, tmp_path, caplog):
    job = PyTorch(
        source_directory=source,
        entry_script="model.py",
        script_params={
            "--data-dir": "s3://training-data/digits",
            "--more": "gs://b/x",
            "--tracker": "http://mlflow:5000",
            "--rendezvous": "file:///tmp/meet",
            "--epochs": 3,
        },
    )
    with caplog.at_level(logging.WARNING, "trainyard"):
        check_inputs(job, "digits", str(tmp_path / "store"))
    first, second = caplog.messages
    assert "--data-dir as the text 's3://training-data/digits'" in first
    assert "--data-dir: {url: ...}" in first and "Datastore(url=...)" in first
    assert "--more" in second


def test_staged_data_is_not_warned_of(source):
    data = Datastore(url="s3://training-data/digits")
    params = {"--a": data, "--b": data.path("x"), "--c": "s3", "--d": "see s3://x"}
    assert text_warnings(PyTorch(source_directory=source, entry_script="model.py", script_params=params)) == []


def test_settings_survive_json():
    settings = OnnxExport(
        module="model:build",
        module_params={"hidden": [1, {"a": None}]},
        inputs=[{"name": "x", "shape": ["batch", 3]}],
        dynamic_axes={"x": {1: "n"}},
    )
    assert OnnxExport.model_validate_json(settings.model_dump_json()) == settings
