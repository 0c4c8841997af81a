"""What is shown of the ranks' logs while they run."""

import json
import logging
import time

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
        Follower(run, lambda latest: None, StallWatch(run, None)).finish()
    told = ["(1,234 lines are not shown here; the ranks' logs have them all)"] if extra else []
    assert caplog.messages == told + [f"[rank 0] line {n}" for n in range(extra, num_lines)]


class StandingJob:
    """A job that only notes whether it was ended."""

    terminated = False

    def terminate(self):
        self.terminated = True


def log_metric(run, value=0.5):
    record = {"kind": "scalar", "name": "loss", "value": value, "time": 1.0}
    with (run.records / "rank-00000.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def broken(latest):
    raise OverflowError("int too large to convert to float")


def test_what_goes_wrong_with_showing_is_told_once_and_does_not_end_training(run, caplog):
    follower, job = Follower(run, broken, StallWatch(run, None)), StandingJob()
    log_metric(run)
    follower.tick(job)
    for _ in range(2):
        log_metric(run)
        follower.finish()
    assert len([message for message in caplog.messages if "Not all of the training is shown" in message]) == 1
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
    def interrupted(latest):
        raise signal

    log_metric(run)
    with pytest.raises(signal):
        Follower(run, interrupted, StallWatch(run, None)).tick(StandingJob())


@pytest.mark.parametrize("interval_s", ["0.1", "3600"])
def test_metrics_are_handed_on_once_an_interval_and_the_last_ones_in_the_end(run, monkeypatch, interval_s):
    monkeypatch.setenv("TRAINYARD_PROGRESS_INTERVAL_S", interval_s)
    seen = []
    follower = Follower(run, lambda latest: seen.append(latest.of_first_rank("loss").value), StallWatch(run, None))
    for value in (3.0, 2.0):
        log_metric(run, value)
        time.sleep(0.2)
        follower.tick(StandingJob())
    assert seen == ([3.0, 2.0] if interval_s == "0.1" else [3.0])
    follower.finish()
    follower.finish()
    assert seen == [3.0, 2.0]


def test_metrics_that_waited_for_the_interval_need_no_newer_ones_to_be_handed_on(run, monkeypatch):
    monkeypatch.setenv("TRAINYARD_PROGRESS_INTERVAL_S", "0.1")
    seen = []
    follower = Follower(run, lambda latest: seen.append(latest.of_first_rank("loss").value), StallWatch(run, None))
    monkeypatch.setattr(follower, "_shown_at", time.monotonic() + 0.5)  # as if something had been shown just now
    log_metric(run)
    follower.tick(StandingJob())
    assert seen == []
    time.sleep(0.7)
    follower.tick(StandingJob())
    assert seen == [0.5]
