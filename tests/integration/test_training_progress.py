"""What a Prefect server shows of a training, however fast it was."""

import json
import logging

from prefect import flow
from prefect.artifacts import Artifact

from trainyard.tasks.runtime.live import MetricsTail
from trainyard.tasks.training.task import _ProgressReporter


def write(directory, **values):
    records = [{"kind": "scalar", "name": name, "value": value, "time": 1.0} for name, value in values.items()]
    with (directory / "rank-00000.jsonl").open("a") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)


@flow
def training_that_logs(directory, *steps):
    """A training that is looked at after each of its steps, all within one interval, and then ends."""
    tail, reporter = MetricsTail(directory), _ProgressReporter()
    for values in steps:
        write(directory, **values)
        tail.poll()
        reporter(tail)
    reporter.finish()


def test_what_came_after_the_last_look_is_shown_in_the_end(prefect_server, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="trainyard"):
        training_that_logs(tmp_path, {"loss": 3.0}, {"loss": 0.5, "progress": 1.0})
    assert [record.message for record in caplog.records if record.name.startswith("trainyard")] == [
        "loss 3",
        "loss 0.500",
    ]
    bar, curve = Artifact.get("training-progress"), Artifact.get("training-curve")
    assert (bar.data, bar.description) == (100.0, "finished")
    assert "loss: 0.500" in curve.data


def test_a_script_that_tells_no_progress_gets_no_bar(prefect_server, tmp_path):
    before = Artifact.get("training-progress")
    training_that_logs(tmp_path, {"loss": 3.0})
    assert Artifact.get("training-progress") == before
