"""The whole pipeline on two ranks of torch.distributed."""

import pytest

from tests.e2e.conftest import statuses
from trainyard import errors

TWO_RANKS = {"process_count_per_node": 2, "distributed_backend": "gloo"}


def test_two_ranks_train_and_export_and_a_second_run_is_cached(run_pipeline, home):
    first = run_pipeline(estimator=TWO_RANKS)
    assert set(statuses(first).values()) == {"ran"}
    assert first.validation.passed
    assert first.metrics["accuracy"] > 0.9
    (run,) = (home / "runs").iterdir()
    assert [path.name for path in sorted((run / "ranks").glob("*.log"))] == ["rank-00000.log", "rank-00001.log"]
    second = run_pipeline(estimator=TWO_RANKS)
    assert set(statuses(second).values()) == {"cached"}
    assert second.model_uri == first.model_uri


def test_ranks_that_never_join_each_other_are_not_a_trained_model(run_pipeline, linear_project):
    script = linear_project / "train.py"
    script.write_text(script.read_text().replace('torch.distributed.init_process_group("gloo")', "pass"))
    script.write_text(script.read_text().replace("run.assert_in_sync(model)\n", ""))
    with pytest.raises(errors.NeverJoinedError, match=r"init_process_group\(\) of torch\.distributed"):
        run_pipeline(estimator=TWO_RANKS)
