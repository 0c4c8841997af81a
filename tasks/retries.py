"""Retries: transient errors only, with backoff and jitter, as the stage's policy says."""

from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from trainyard.tasks.errors import TransientError, WorkerLostError
from trainyard.tasks.specs.policy import StagePolicy

P = ParamSpec("P")
R = TypeVar("R")


def retry_if_transient(task: "Task[Any, Any]", task_run: TaskRun, state: "State[Any]") -> bool:
    """Whether to try again; a plain function, because Prefect disables retries for any other callable."""
    return _ended_with(state, TransientError)


def retry_if_worker_lost(task: "Task[Any, Any]", task_run: TaskRun, state: "State[Any]") -> bool:
    """Likewise, for a training whose policy leaves its retries open: only what the machines did is tried again."""
    return _ended_with(state, WorkerLostError)


def _ended_with(state: "State[Any]", kind: type[Exception]) -> bool:
    try:
        state.result()
    except kind:
        return True
    except BaseException:
        return False
    return False


def with_policy(task: "Task[P, R]", policy: StagePolicy, *, owns_deadline: bool = False) -> "Task[P, R]":
    """The task, retried and bounded in time as the policy says.

    Args:
        task: A stage's task.
        policy: Its policy.
        owns_deadline: The stage ends itself in time, and knows better what to say and keep when it does.
    """
    return task.with_options(
        retries=policy.retries,
        retry_delay_seconds=policy.retry_delays_s() or 0,
        retry_jitter_factor=policy.jitter,
        timeout_seconds=None if owns_deadline else policy.timeout_s,
    )
