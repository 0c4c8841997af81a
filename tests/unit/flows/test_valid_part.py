import pytest

from trainyard.flows.pipeline_file import PipelineFile, load_pipeline_file
from trainyard.flows.preflight import problems_before_a_run
from trainyard.flows.valid_part import STAND_IN, valid_part
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.specs.estimator import PyTorch


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").touch()
    return {"source_directory": str(tmp_path / "project"), "entry_script": "train.py"}


def test_what_is_right_is_left_as_it_is(project):
    content = {"estimator": {**project, "script_params": {"--a": {"url": "/x"}, "--b": 3}}, "model_name": "m"}
    assert valid_part(PipelineFile, content) == PipelineFile.model_validate(content)


@pytest.mark.parametrize(
    ("wrong", "left"),
    [
        ({"use_gpu": "maybe"}, {"use_gpu": False}),
        ({"node_cuont": 2}, {"node_count": 1}),
        ({"process_count_per_node": 2}, {"process_count_per_node": 1}),
        ({"process_count_per_node": 2, "distributed_backend": "mip"}, {"process_count_per_node": 1}),
        ({"entry_script": "../train.py"}, {"entry_script": STAND_IN}),
        ({"compute_target": {"hosts": []}}, {"compute_target": STAND_IN}),
        ({"inputs": {"A": "/a", "B": {"ulr": "/b"}}}, {"inputs": {"A": Datastore(url="/a")}}),
        ({"script_params": {"--a": {"url": "/a"}, "--b": None}}, {"script_params": {"--a": Datastore(url="/a")}}),
        ({"script_params": {"--a": 1, "--b": {"ulr": ""}}}, {"script_params": {"--a": 1}}),
        ({"environment_variables": {"A": 1, "B": "b"}}, {"environment_variables": {"B": "b"}}),
    ],
)
def test_a_value_that_is_refused_is_left_out_and_no_other(project, wrong, left):
    content = {"estimator": {**project, **wrong}, "validation": {"atol": -1, "max_samples": 7}, "no_such": {}}
    part = valid_part(PipelineFile, content)
    assert {name: getattr(part.estimator, name) for name in left} == left
    assert part.estimator.source_directory == project["source_directory"]
    assert (part.validation.atol, part.validation.max_samples) == (None, 7)
    assert content["estimator"] == {**project, **wrong}, "what the person wrote stays"


def test_of_a_pipeline_without_a_source_the_rest_is_left():
    part = valid_part(PipelineFile, {"estimator": {"inputs": {"A": "/a"}, "source_directory": 3}})
    assert (part.estimator.source_directory, part.estimator.entry_script) == (STAND_IN, STAND_IN)
    assert part.estimator.inputs == {"A": Datastore(url="/a")}


@pytest.mark.parametrize("content", [{}, {"estimator": "train.py"}, {"estimator": None}])
def test_of_what_is_no_pipeline_nothing_is_left(content):
    assert valid_part(PipelineFile, content) is None


def test_a_check_looks_at_what_is_left_and_says_what_is_new(project, tmp_path):
    import json

    (tmp_path / "p.json").write_text(json.dumps({"estimator": {**project, "use_gpu": 7, "shm_size": "8g"}}))
    seen = []

    def check(pipeline):
        seen.append(pipeline)
        return ["use_gpu: Input should be a valid boolean, unable to interpret input", "something else"]

    with pytest.raises(InvalidInputError) as raised:
        load_pipeline_file(tmp_path / "p.json", check=check)
    assert [pipeline.estimator.shm_size for pipeline in seen] == ["8g"]
    assert [problem.split(":")[0] for problem in raised.value.problems] == ["estimator.use_gpu", "something else"]


def found(estimator, home):
    from trainyard import OnnxExport, OrtValidation

    return problems_before_a_run(estimator, "m", str(home / "store"), OnnxExport(), OrtValidation(), has_server=False)


def test_without_a_server_none_is_started_to_ask_it(project, home):
    block = Datastore(url="s3://x/y", block="no-such-block")
    asks = {"script_params": {"--a": block}, "inputs": {"B": block.path("z")}, "resume_from": block}
    for target in ("hosts/no-such-block", "no-such-pool"):
        assert found(PyTorch(**project, **asks, compute_target=target), home) == []


def test_what_stands_in_for_a_value_is_no_problem_of_the_users(home):
    estimator = PyTorch(source_directory=STAND_IN, entry_script=STAND_IN, compute_target=STAND_IN, shm_size="8g")
    assert found(estimator, home) == []
    (problem,) = found(estimator.model_copy(update={"inputs": {"A": Datastore(url="/no/such/place")}}), home)
    assert "/no/such/place" in problem
