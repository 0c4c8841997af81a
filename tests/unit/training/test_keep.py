"""What is said of a run that was ended from outside."""

import logging

from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.training.keep import keep_interrupted_run
from trainyard.tasks.training.run_directory import RunDirectory


def test_who_ends_a_training_is_told_once_where_it_is_and_that_the_next_goes_on(context, caplog):
    run = RunDirectory.create(context.home, StageKey("train", {}))
    for folder in ("outputs", "logs"):
        (run.workspace / folder).mkdir(parents=True)
    run.launcher_log.touch()
    (run.checkpoints / "epoch-1.pt").touch()
    with caplog.at_level(logging.INFO, logger="trainyard"):
        keep_interrupted_run(run, [], context)
    where, stored = caplog.messages
    assert where.endswith(f"what it left is in {run.path}; the next run of it goes on from its last checkpoint")
    assert stored.startswith("The store has its logs, too") and str(run.path) not in stored
