import inspect

import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from trainyard import errors
from trainyard.flows.pipeline_run import policies_in_force
from trainyard.flows.pool_training import retried_when_lost
from trainyard.tasks.export.task import export_model
from trainyard.tasks.metrics.task import collect
from trainyard.tasks.registry.task import register
from trainyard.tasks.retries import retry_if_transient, with_policy
from trainyard.tasks.specs.policy import StagePolicy
from trainyard.tasks.staging.task import stage
from trainyard.tasks.training.task import train
from trainyard.tasks.validation.task import validate

TASKS = {task.name: task for task in (stage, train, collect, export_model, validate, register)}
POLICY = StagePolicy(retries=4, retry_delay_s=3, backoff=2, max_retry_delay_s=10, jitter=0.25, timeout_s=60)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_policy_reaches_prefect_whole(task):
    """Delays with backoff up to the longest one, jitter, and the time limit; on every stage's task."""
    ruled = with_policy(task, POLICY)
    assert ruled.retries == 4
    assert ruled.retry_delay_seconds == [3, 6, 10, 10]
    assert ruled.retry_jitter_factor == 0.25
    assert ruled.timeout_seconds == 60
    assert ruled.retry_condition_fn is retry_if_transient
    assert inspect.isfunction(ruled.retry_condition_fn), "Prefect retries nothing for any other callable"


def test_a_stage_that_owns_its_deadline_is_not_interrupted_by_prefect():
    assert with_policy(train, POLICY, owns_deadline=True).timeout_seconds is None


@pytest.mark.parametrize("error", [value for value in vars(errors).values() if inspect.isclass(value)])
def test_transient_errors_are_tried_again_and_no_others(error):
    state = Failed(data=error("why"))
    run = TaskRun.model_construct()
    assert retry_if_transient(collect, run, state) is issubclass(error, errors.TransientError)


def test_a_defect_is_not_tried_again():
    assert retry_if_transient(collect, TaskRun.model_construct(), Failed(data=ValueError("a defect"))) is False


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
