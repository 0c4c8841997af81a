import pytest
from pydantic import ValidationError

from trainyard import Datastore, PyTorch


@pytest.fixture
def project(tmp_path):
    (tmp_path / "train.py").write_text("print('hello')")
    return tmp_path


def test_arguments_keep_their_order_and_an_empty_string_is_a_bare_flag(project):
    data = Datastore(url="s3://bucket/digits")
    estimator = PyTorch(
        source_directory=str(project),
        entry_script="train.py",
        script_params={
            "--data-dir": data,
            "--epochs": 3,
            "--amsgrad": "",
            "--lr": 0.5,
            "--pretrained": True,
            "--labels": data.path("labels.npy"),
        },
    )
    argv = estimator.arguments(lambda reference: f"<{reference.uri}>")
    assert argv == (
        "--data-dir",
        "<s3://bucket/digits>",
        "--epochs",
        "3",
        "--amsgrad",
        "--lr",
        "0.5",
        "--pretrained",
        "True",
        "--labels",
        "<s3://bucket/digits/labels.npy>",
    )


def test_references_are_named_once(project):
    data = Datastore(url="s3://bucket/digits")
    estimator = PyTorch(
        source_directory=str(project),
        entry_script="train.py",
        script_params={"--a": data, "--b": data.path("x")},
        inputs={"DATA": data, "MORE": data.path("y")},
    )
    assert [reference.uri for reference in estimator.references] == [
        "s3://bucket/digits",
        "s3://bucket/digits/x",
        "s3://bucket/digits/y",
    ]


def test_an_estimator_survives_json(project):
    estimator = PyTorch(
        source_directory=str(project),
        entry_script="train.py",
        script_params={
            "--data": Datastore(url="s3://b").path("k"),
            "--n": 1,
            "--x": 1.0,
            "--f": "",
            "--yes": True,
        },
        process_count_per_node=2,
        distributed_backend="mpi",
    )
    again = PyTorch.model_validate_json(estimator.model_dump_json())
    assert again == estimator
    assert [type(value) for value in again.script_params.values()] == [
        type(value) for value in estimator.script_params.values()
    ]


def test_every_problem_is_named_at_once():
    with pytest.raises(ValidationError) as raised:
        PyTorch(source_directory="/no/such/folder", entry_script="train.py", process_count_per_node=0, epochs=3)
    message = str(raised.value)
    for part in ("process_count_per_node", "epochs", "/no/such/folder"):
        assert part in message


def test_a_backend_is_needed_for_more_than_one_process_and_said_beside_other_problems(project):
    with pytest.raises(ValidationError) as raised:
        PyTorch(source_directory=str(project), entry_script="missing.py", process_count_per_node=2)
    message = str(raised.value)
    assert 'distributed_backend="mpi"' in message
    assert "missing.py" in message
    assert "train.py" in message  # what is there instead


@pytest.mark.parametrize("script", ["../train.py", "/etc/passwd", "a/../../train.py"])
def test_an_entry_script_outside_the_source_directory_is_refused(project, script):
    with pytest.raises(ValidationError, match="lies outside the source directory"):
        PyTorch(source_directory=str(project), entry_script=script)


def test_null_is_no_value(project):
    with pytest.raises(ValidationError, match="bare flag"):
        PyTorch(source_directory=str(project), entry_script="train.py", script_params={"--x": None})


@pytest.mark.parametrize(
    "changes",
    [{"script_params": {"--x": "a\0b"}}, {"script_params": {"a\0": 1}}, {"environment_variables": {"X": "\0"}}],
)
def test_what_no_program_can_be_given_is_refused(project, changes):
    with pytest.raises(ValidationError, match="NUL"):
        PyTorch(source_directory=str(project), entry_script="train.py", **changes)


def test_a_password_in_a_url_is_refused_and_not_shown(project):
    url = "ftp://me:hunter2@host/data"
    with pytest.raises(ValidationError, match="keep credentials out of URLs") as raised:
        Datastore(url=url)
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ValidationError, match="keep credentials out of URLs") as raised:
        PyTorch(source_directory=str(project), entry_script="train.py", script_params={"--d": {"url": url}})
    assert "hunter2" not in str(raised.value)


def test_a_password_in_an_endpoint_is_refused_and_not_shown():
    with pytest.raises(ValidationError) as raised:
        Datastore(url="s3://bucket", endpoint_url="https://user:hunter2@minio:9000")
    assert "holds a password" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_source_directory_of_nobody_is_refused():
    with pytest.raises(ValidationError, match="knows no such user"):
        PyTorch(source_directory="~no-such-user/project", entry_script="train.py")


@pytest.mark.parametrize(
    ("given", "kept"), [("../data/", "../data"), ("./a/../b", "b"), (".", "."), ("../../d", "../../d")]
)
def test_data_may_be_put_where_a_script_looks_for_it(given, kept):
    reference = Datastore(url="/data").as_download(path_on_compute=given)
    assert (reference.path_on_compute, reference.mode) == (kept, "download")
    assert reference.as_mount().path_on_compute is None


@pytest.mark.parametrize("path", ["/data", "../../../data", "a/../../../../data", "", "a\0b"])
def test_data_stays_with_its_run(path):
    with pytest.raises(ValidationError):
        Datastore(url="/data").as_mount(path)


@pytest.mark.parametrize("field", ["script_params", "environment_variables"])
def test_a_text_with_credentials_of_a_storage_is_refused_without_showing_them(field):
    with pytest.raises(ValidationError, match="'A': a URL with credentials") as caught:
        PyTorch(source_directory=".", entry_script="t.py", **{field: {"A": " s3://KEY:SECRET@b/x", "B": "s3://b/x"}})
    assert "SECRET" not in str(caught.value)
