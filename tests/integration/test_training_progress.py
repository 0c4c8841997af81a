"""What a Prefect server shows of a training, however fast it was."""

import json
import logging

import pytest
from prefect import flow
from prefect.artifacts import Artifact

from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.training.follow import Follower
from trainyard.tasks.training.run_directory import RunDirectory
from trainyard.tasks.training.stall import StallWatch
from trainyard.tasks.training.task import _ProgressReporter


@pytest.fixture(autouse=True)
def seldom(monkeypatch):
    """Nothing is shown between the first look and the end."""
    monkeypatch.setenv("TRAINYARD_PROGRESS_INTERVAL_S", "3600")


@flow
def training_that_logs(directory, *steps):
    """A training that is looked at after each of its steps, and then ends well."""
    run, reporter = RunDirectory.create(directory, StageKey("train", {})), _ProgressReporter()
    follower = Follower(run, reporter, StallWatch(run, None))
    for values in steps:
        records = [{"kind": "scalar", "name": name, "value": value, "time": 1.0} for name, value in values.items()]
        with (run.records / "rank-00000.jsonl").open("a") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records)
        follower.tick(job=None)
    follower.finish()
    reporter.finish()


@pytest.mark.parametrize("told", [0.25, 1.0, 7.0])
def test_what_came_after_the_last_look_is_shown_in_the_end(prefect_server, tmp_path, caplog, told):
    with caplog.at_level(logging.INFO, logger="trainyard"):
        training_that_logs(tmp_path, {"loss": 3.0}, {"loss": 1.0}, {"loss": 0.5, "progress": told})
    lines = dict.fromkeys(record.message for record in caplog.records if record.name.startswith("trainyard"))
    assert list(lines) == ["loss 3", "loss 0.500"]
    bar, curve = Artifact.get("training-progress"), Artifact.get("training-curve")
    assert (bar.data, bar.description) == (100.0, "finished")
    assert "loss: 0.500" in curve.data


def test_the_curve_is_captioned_with_the_metric_that_it_shows(prefect_server, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINYARD_PROGRESS_INTERVAL_S", "0.1")
    training_that_logs(tmp_path, {"samples_per_second": 100.0}, {"samples_per_second": 110.0, "loss": 0.5})
    curve = Artifact.get("training-curve")
    assert curve.data.startswith("### loss")
    assert curve.description == "loss while training runs"


@pytest.mark.parametrize("values", [{}, {"progress": float("nan")}], ids=["none", "not a number"])
def test_a_script_that_tells_no_progress_gets_no_bar(prefect_server, tmp_path, caplog, values):
    before = Artifact.get("training-progress")
    training_that_logs(tmp_path, {"loss": 3.0, **values})
    assert Artifact.get("training-progress") == before
    assert "Not all of the training is shown" not in caplog.text


def test_a_bar_whose_last_value_is_not_a_number_is_filled(prefect_server, tmp_path):
    training_that_logs(tmp_path, {"progress": 0.5}, {"progress": float("nan")})
    assert Artifact.get("training-progress").data == 100.0
