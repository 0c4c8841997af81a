"""The pipeline as part of a flow of somebody's own, and called where an event loop runs."""

import asyncio
import os
import subprocess
import sys

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId

from trainyard import PipelineResult, training_pipeline

# Reads the result of a run of which it knows the id.
READ = """
import asyncio, sys
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    state = client.read_flow_run(sys.argv[1]).state
print(asyncio.run(state.aresult()).model_dump_json())
"""


def flow_that_called(run_id):
    """The name of the flow that a run is a subflow of; None where it is of none."""
    with get_client(sync_client=True) as client:
        task_id = client.read_flow_run(run_id).parent_task_run_id
        if task_id is None:
            return None
        parents = client.read_flow_runs(task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=[task_id])))
        (parent,) = parents
        return client.read_flow(parent.flow_id).name


def test_it_is_a_subflow_of_a_users_flow_and_of_an_async_one(run_pipeline):
    @flow
    def theirs():
        return run_pipeline(export=None)

    @flow
    async def theirs_async():
        return run_pipeline(export=None)

    result = theirs()
    assert isinstance(result, PipelineResult)
    assert result.metrics["accuracy"] > 0.9
    assert flow_that_called(result.run_id) == "theirs"
    of_async = asyncio.run(theirs_async())
    assert of_async.metrics == result.metrics
    assert flow_that_called(of_async.run_id) == "theirs-async"


def test_its_result_survives_the_process(prefect_server, run_pipeline):
    """Another process that only knows the run reads the result again from Prefect's result storage."""
    result = run_pipeline(export=None)
    assert flow_that_called(result.run_id) is None
    env = {**os.environ, "PREFECT_API_URL": prefect_server}
    command = [sys.executable, "-c", READ, result.run_id]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert PipelineResult.model_validate_json(done.stdout.splitlines()[-1]) == result


def test_an_unknown_parameter_is_refused(prefect_server):
    with pytest.raises(TypeError):
        training_pipeline(estimator=None, modelname="x")
