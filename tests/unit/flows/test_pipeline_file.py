import pytest

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
    assert "source_directory: Value error, '~nosuchuser/x': this machine knows no such user" in message


def test_a_store_of_a_user_that_there_is_not_is_refused(file):
    with pytest.raises(InvalidInputError, match="store: '~nosuchuser/store': this machine knows no such user"):
        load_pipeline_file(file, ["store=~nosuchuser/store"])


def test_a_home_directory_is_found(file, monkeypatch):
    monkeypatch.setenv("HOME", str(file.parent))
    pipeline = load_pipeline_file(file, ["estimator.source_directory=~/project", "store=~/store"])
    assert pipeline.estimator.source_directory == str(file.parent / "project")
    assert pipeline.store == f"file://{file.parent}/store"


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
