import pytest
from prefect.states import Failed

from trainyard.flows.pipeline_run import policies_in_force
from trainyard.flows.pool_training import retried_when_lost
from trainyard.tasks import errors
from trainyard.tasks.export.task import export_model
from trainyard.tasks.retries import with_policy
from trainyard.tasks.specs.policy import StagePolicy


def test_the_most_retries_a_policy_allows_are_allowed_by_prefect():
    most = next(limit.le for limit in StagePolicy.model_fields["retries"].metadata if hasattr(limit, "le"))
    assert with_policy(export_model, StagePolicy(retries=most)).retries == most


@pytest.mark.parametrize(
    ("set_by_user", "retries", "again"),
    [
        ({}, 1, ["WorkerLostError"]),
        ({"retries": 0}, 0, None),
        ({"retries": 2}, 2, ["WorkerLostError", "TrainingFailedError"]),
    ],
)
def test_a_lost_worker_is_retried_once_unless_the_policy_says_otherwise(set_by_user, retries, again):
    policy = policies_in_force({"train": StagePolicy(timeout_s=60, **set_by_user)})["train"]
    task, policy = retried_when_lost(policy)
    assert with_policy(task, policy).retries == retries
    if again is not None:
        kinds = [errors.WorkerLostError, errors.TrainingFailedError, errors.ScriptDefectError]
        states = {kind.__name__: Failed(data=kind("x")) for kind in kinds}
        assert [name for name, state in states.items() if task.retry_condition_fn(task, None, state)] == again
