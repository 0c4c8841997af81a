"""What is shown of the ranks' logs while they run."""

import json
import logging

import pytest

from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.training.follow import MOST_LINES_AT_ONCE, Follower
from trainyard.tasks.training.run_directory import RunDirectory
from trainyard.tasks.training.stall import StallWatch


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path, StageKey("train", {}))


@pytest.mark.parametrize("extra", [0, 1234])
def test_a_script_that_prints_very_much_is_shown_its_newest_lines(run, caplog, extra):
    num_lines = MOST_LINES_AT_ONCE + extra
    (run.ranks / "rank-00000.log").write_text("".join(f"line {n}\n" for n in range(num_lines)))
    with caplog.at_level(logging.INFO, logger="trainyard"):
        Follower(run, lambda tail: None, StallWatch(run, None)).finish()
    told = ["(1,234 lines are not shown here; the ranks' logs have them all)"] if extra else []
    assert caplog.messages == told + [f"[rank 0] line {n}" for n in range(extra, num_lines)]


class StandingJob:
    """A job that only notes whether it was ended."""

    terminated = False

    def terminate(self):
        self.terminated = True


def log_metric(run):
    record = {"kind": "scalar", "name": "loss", "value": 0.5, "time": 1.0}
    with (run.records / "rank-00000.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def broken(tail):
    raise OverflowError("int too large to convert to float")


def test_what_goes_wrong_with_showing_is_told_once_and_does_not_end_training(run, caplog):
    follower, job = Follower(run, broken, StallWatch(run, None)), StandingJob()
    for _ in range(3):
        log_metric(run)
        follower.tick(job)
    assert len([message for message in caplog.messages if "Training goes on" in message]) == 1
    assert "OverflowError: int too large" in caplog.text
    assert not job.terminated


def test_a_stall_is_noticed_although_showing_fails(run, monkeypatch):
    watch = StallWatch(run, 10.0)
    monkeypatch.setattr(watch, "stalled", lambda: True)
    follower, job = Follower(run, broken, watch), StandingJob()
    log_metric(run)
    follower.tick(job)
    assert job.terminated and follower.stalled_error(1) is not None


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_a_signal_that_comes_while_something_is_shown_ends_the_wait(run, signal):
    def interrupted(tail):
        raise signal

    log_metric(run)
    with pytest.raises(signal):
        Follower(run, interrupted, StallWatch(run, None)).tick(StandingJob())


def test_metrics_that_came_after_the_last_look_are_handed_on_in_the_end(run):
    log_metric(run)
    seen = []
    Follower(run, lambda tail: seen.append(tail.latest.of_first_rank("loss").value), StallWatch(run, None)).finish()
    assert seen == [0.5]
