from pathlib import Path

import pytest

from trainyard.tasks.training.run_directory import RunDirectory
from trainyard.tasks.training.stall import StallWatch, stalled_error


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def run(tmp_path):
    run = RunDirectory("id", tmp_path / "run", tmp_path / "work", tmp_path / "checkpoints")
    for folder in (run.ranks, run.records, run.checkpoints, run.workspace / "outputs"):
        folder.mkdir(parents=True)
    return run


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write("more\n")


@pytest.mark.parametrize(
    "place",
    [
        *("run/ranks/rank-00001.log", "run/records/rank-00000.jsonl", "run/launcher.log"),
        *("checkpoints/a/b.pt", "work/upper/lower/source/outputs/deep/model.pt", "work/upper/lower/source/logs/events"),
    ],
)
def test_whatever_the_run_writes_is_progress(run, tmp_path, place):
    clock = Clock()
    watch = StallWatch(run, 10.0, clock)
    for _ in range(5):
        clock.now += 6
        write(tmp_path / place)
        assert not watch.stalled()
    clock.now += 6
    assert not watch.stalled()
    clock.now += 6
    assert watch.stalled()


def test_what_the_script_writes_elsewhere_is_none(run, tmp_path):
    clock = Clock()
    watch = StallWatch(run, 10.0, clock)
    assert not watch.stalled()
    clock.now += 6
    assert not watch.stalled()
    write(tmp_path / "work" / "cache" / "x")
    clock.now += 11
    assert watch.stalled()


def test_without_a_limit_nothing_stalls(run):
    clock = Clock()
    watch = StallWatch(run, None, clock)
    clock.now += 1e9
    assert not watch.stalled()


def test_a_rank_that_did_not_answer_is_said_so():
    message = str(stalled_error(30.0, 2, {0: ['File "train.py", line 3 in step']}, Path("/run/ranks")))
    assert 'rank 0: File "train.py", line 3 in step' in message
    assert "rank 1: no answer" in message
    assert "30 seconds" in message
