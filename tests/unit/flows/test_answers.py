"""What runs leave in the store for whoever waits for them."""

import json
from uuid import uuid4

import pytest

from trainyard import PipelineResult, PipelineRun, __version__, errors
from trainyard.flows.answers import read_answer, read_kept
from trainyard.tasks.artifacts.products import CollectedMetrics
from trainyard.tasks.artifacts.store import ArtifactStore

RESULT = {"run_id": "1", "metrics": {"accuracy": 0.5}, "stages": {}}
OTHER_VERSION = rf"another version of trainyard than this one \({__version__}\).*"


@pytest.fixture
def left(tmp_path):
    """Writes a file of a run's; gives the store and the run's id."""

    def write(name, content):
        store, run_id = ArtifactStore(f"file://{tmp_path}/store"), uuid4()
        (store.root / f"answers/{run_id}/{name}.json").write_bytes(json.dumps(content).encode())
        return store, run_id

    return write


def test_a_result_is_read_as_it_was(left):
    assert read_answer(*left("answer", {"value": RESULT}), PipelineResult) == PipelineResult(**RESULT)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ({"value": {**RESULT, "carbon": 1}}, "carbon"),
        ({"value": {"metrics": {}}}, "run_id"),
        ({"value": None}, "all of it"),
        ({"value": RESULT, "signed_by": "x"}, "signed_by"),
        ({"failure": {"type": "KeyError", "message": "x", "traceback": ""}}, "failure.traceback"),
    ],
)
def test_a_result_of_another_version_is_said_to_be_one(left, answer, place):
    with pytest.raises(errors.InvalidInputError, match=OTHER_VERSION + rf"\({place}: "):
        read_answer(*left("answer", answer), PipelineResult)


def test_metrics_and_files_of_another_version_are_said_to_be(left):
    with pytest.raises(errors.InvalidInputError, match=OTHER_VERSION):
        read_kept(*left("metrics", {"finals": {}}), "metrics", CollectedMetrics)
    store, run_id = left("train", {"run_id": "1", "weights": "x"})
    with pytest.raises(errors.InvalidInputError, match=OTHER_VERSION):
        PipelineRun(run_id, store=store.url).get_file_names()


def test_a_failure_is_raised_again(left):
    failure = {"type": "TrainingFailedError", "message": "rank 1 died", "details": {"rank": 1}}
    with pytest.raises(errors.TrainingFailedError, match="rank 1 died") as raised:
        read_answer(*left("answer", {"failure": failure}), PipelineResult)
    assert raised.value.rank == 1
