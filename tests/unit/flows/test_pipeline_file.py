from pathlib import Path

import pytest
from pydantic import ValidationError

from trainyard import PyTorch
from trainyard.flows.experiment import _pipeline
from trainyard.flows.pipeline_file import load_pipeline_file
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.staging.probe import probe_reference

PIPELINE = """
estimator:
  source_directory: project
  entry_script: train.py
  script_params:
    --data-dir: {datastore: {url: data}, key: images}
    --other: {url: "s3://bucket/x"}
    --epochs: 3
    --flag: ""
validation: {min_metrics: {accuracy: 0.9}}
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").touch()
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    return tmp_path / "pipeline.yaml"


def test_relative_paths_are_relative_to_the_file(file):
    estimator = load_pipeline_file(file).estimator
    assert estimator.source_directory == str(file.parent / "project")
    assert [reference.uri for reference in estimator.references] == [
        f"file://{file.parent}/data/images",
        "s3://bucket/x",
    ]


def test_every_way_to_write_a_path_is_anchored_in_a_folder_of_any_name(tmp_path):
    folder = tmp_path / "with space & ünïcode #1"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "x.npy").touch()
    (folder / "train.py").touch()
    (folder / "p.yaml").write_text(
        "estimator:\n  source_directory: .\n  entry_script: train.py\n"
        "  script_params: {--a: {url: data}, --b: {datastore: data}, --c: data}\n"
        "  inputs: {D: data, E: {datastore: {url: data}, key: x.npy}}\n"
        "store: ./store\n"
    )
    pipeline = load_pipeline_file(folder / "p.yaml")
    assert len(pipeline.estimator.references) == 2  # the directory, and one object in it
    for reference in pipeline.estimator.references:
        probe_reference(reference)
    assert pipeline.estimator.script_params["--c"] == "data"  # a text is a text
    assert pipeline.store == f"file://{folder}/store"


def test_overrides_replace_values_and_may_add_them(file):
    pipeline = load_pipeline_file(
        file,
        [
            "estimator.script_params.--epochs=5",
            "estimator.script_params.--flag=",
            "policies.train.retries=2",
            "export=null",
        ],
    )
    assert pipeline.estimator.script_params["--epochs"] == 5
    assert pipeline.estimator.script_params["--flag"] == ""
    assert pipeline.policies["train"].retries == 2
    assert pipeline.export is None


@pytest.mark.parametrize("override", ["no-equals-sign", "=3", "model_name.x=1", "estimator.entry_script.x=1", "a=[1"])
def test_an_override_that_makes_no_sense_is_refused(file, override):
    text = file.read_text() + "model_name: digits\n"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match="--set"):
        load_pipeline_file(file, [override])


def test_every_problem_is_named_with_its_place_and_a_suggestion(file):
    text = file.read_text().replace("entry_script: train.py", "entry_script: train.py\n  node_cuont: 2")
    file.write_text(text.replace("validation:", "validaton: {}\nvalidation:"))
    with pytest.raises(InvalidInputError) as raised:
        load_pipeline_file(file, ["validation.atol=-1"])
    message = str(raised.value)
    assert "3 problems; nothing was launched" in message
    assert "estimator.node_cuont is not a setting; did you mean 'node_count'?" in message
    assert "validaton is not a setting; did you mean 'validation'?" in message
    assert "validation.atol: Input should be greater than or equal to 0" in message


def test_two_settings_may_be_meant(file):
    file.write_text(file.read_text().replace("entry_script: train.py", "entry_script: train.py\n  proces_count: 2"))
    with pytest.raises(InvalidInputError, match="did you mean 'node_count' or 'process_count_per_node'"):
        load_pipeline_file(file)


def test_paths_of_users_that_there_are_not_are_named_all_at_once(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "estimator:\n  source_directory: ~nosuchuser/x\n  entry_script: train.py\n"
        "  script_params: {--a: {url: ~nosuchuser/a}, --b: {datastore: ~nosuchuser/b}, --c: ~nosuchuser/c}\n"
        "  inputs: {D: ~nosuchuser/d}\nstore: ~nosuchuser/store\n"
    )
    with pytest.raises(InvalidInputError) as raised:
        load_pipeline_file(tmp_path / "p.yaml")
    message = str(raised.value)
    for place, path in [("store", "store"), ("--a", "a"), ("--b", "b"), ("D", "d")]:
        assert f"{place}: '~nosuchuser/{path}': this machine knows no such user" in message
    assert "source_directory: '~nosuchuser/x': this machine knows no such user" in message


def test_a_store_of_a_user_that_there_is_not_is_refused(file):
    with pytest.raises(InvalidInputError, match="store: '~nosuchuser/store': this machine knows no such user"):
        load_pipeline_file(file, ["store=~nosuchuser/store"])


def test_a_home_directory_is_found(file, monkeypatch):
    monkeypatch.setenv("HOME", str(file.parent))
    pipeline = load_pipeline_file(file, ["estimator.source_directory=~/project", "store=~/store"])
    assert pipeline.estimator.source_directory == str(file.parent / "project")
    assert pipeline.store == f"file://{file.parent}/store"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "--other: {url",
            "--other: {endpoint: 'http://x', url",
            "estimator.script_params.--other.endpoint is not a setting; did you mean 'endpoint_url'?",
        ),
        (
            "--other: {url",
            "--other: {secret: x, url",
            "estimator.script_params.--other.secret is not a setting; credentials come from the environment, or from "
            "the Prefect block that 'block' names",
        ),
        (
            "--other: {url",
            "--other: {key: x, url",
            "estimator.script_params.--other.key is not a setting; it is one beside the datastore: "
            "{datastore: {url: ...}, key: ...}",
        ),
        (
            "--other: {url: ",
            "--other: {block: training-data, region: ",
            "estimator.script_params.--other: names the block 'training-data' without a url, by which the data is "
            "known; write both, for example {url: s3://training-data/digits, block: training-data}",
        ),
        (
            "{datastore: {url: data}, key: images}",
            "{block: training-data, key: images}",
            "estimator.script_params.--data-dir: names the block 'training-data' without a url, by which the data is "
            "known; write both, for example {url: s3://training-data/digits, block: training-data}",
        ),
        (
            "{datastore: {url: data}, key: images}",
            "{datastore: {urll: data}, key: images}",
            "estimator.script_params.--data-dir.datastore.url: Field required\n"
            "  - estimator.script_params.--data-dir.datastore.urll is not a setting; did you mean 'url'?",
        ),
        (
            "key: images",
            "modus: download",
            "estimator.script_params.--data-dir.modus is not a setting; did you mean 'mode'?",
        ),
        (
            "--epochs: 3",
            "--epochs: [3]",
            "estimator.script_params.--epochs: must be a text, a number, true or false, or data: {url: ...} or "
            "{datastore: {url: ...}, key: ...}",
        ),
        (
            "script_params:",
            "inputs: {X: 5}\n  script_params:",
            "estimator.inputs.X: must be data: a URL, {url: ...} or {datastore: {url: ...}, key: ...}",
        ),
        (
            "script_params:",
            "resume_from: {url: x, anonymos: y}\n  script_params:",
            "estimator.resume_from.anonymos is not a setting; did you mean 'anonymous'?",
        ),
        (
            "script_params:",
            "compute_target: {hosts: [a], usr: me}\n  script_params:",
            "estimator.compute_target.usr is not a setting; did you mean 'user'?",
        ),
        (
            "source_directory: project",
            "source_directory: nowhere\n  nodes: 1",
            "estimator.nodes is not a setting\n  - estimator.source_directory '{folder}/nowhere' does not exist "
            "(looked in {here})",
        ),
        (
            "entry_script: train.py",
            "entry_script: ../x.py",
            "estimator.entry_script: '../x.py' lies outside the source directory; give a path relative to it",
        ),
        (
            "validation:",
            "policies: {trian: {}}\nvalidation:",
            "policies.trian is none of stage, train, metrics, export, validate, register; did you mean 'train'?",
        ),
    ],
)
def test_a_faulty_setting_is_one_problem_said_in_our_words(file, old, new, expected):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidInputError) as raised:
        load_pipeline_file(file)
    expected = expected.replace("{folder}", str(file.parent)).replace("{here}", str(Path.cwd()))
    assert "\n  - ".join(raised.value.problems) == expected


def test_a_faulty_datastore_is_one_problem_in_python_too():
    with pytest.raises(ValidationError) as raised:
        PyTorch(source_directory=".", entry_script="x.py", script_params={"--d": {"url": "points", "endpoint": "x"}})
    places = [line["loc"] for line in raised.value.errors() if line["type"] == "extra_forbidden"]
    assert places == [("script_params", "--d", "endpoint")]


def test_what_is_submitted_is_refused_in_the_same_words(file):
    with pytest.raises(InvalidInputError, match=r"policies.trian is none of .*did you mean 'train'") as raised:
        _pipeline(load_pipeline_file(file).estimator, {"policies": {"trian": {}}, "validation": {"atol": -1}})
    assert len(raised.value.problems) == 2


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just text"])
def test_a_file_without_keys_is_refused(tmp_path, content):
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(InvalidInputError, match="must hold keys"):
        load_pipeline_file(tmp_path / "p.yaml")


def test_what_is_not_yaml_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_text("a: [1,")
    with pytest.raises(InvalidInputError, match="is not YAML"):
        load_pipeline_file(tmp_path / "p.yaml")


def test_what_is_not_text_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"a: caf\xe9\n")
    with pytest.raises(InvalidInputError, match="is not UTF-8"):
        load_pipeline_file(tmp_path / "p.yaml")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_pipeline_file(tmp_path / "p.yaml")
