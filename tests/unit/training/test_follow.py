"""What is shown of the ranks' logs while they run."""

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
