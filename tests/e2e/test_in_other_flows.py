"""The pipeline as part of a flow of somebody's own, and called where an event loop runs."""

import asyncio

import pytest
from prefect import flow

from trainyard import PipelineResult, training_pipeline


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
    assert asyncio.run(theirs_async()).metrics == result.metrics


def test_its_result_survives_the_process(run_pipeline):
    """A caller that only knows the run reads the result again from Prefect's result storage."""
    from prefect.client.orchestration import get_client

    result = run_pipeline(export=None)
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(result.run_id).state
    again = asyncio.run(state.aresult()) if hasattr(state, "aresult") else state.result()
    assert training_pipeline.name == "training-pipeline"
    assert again == result


def test_an_unknown_parameter_is_refused(prefect_server):
    with pytest.raises(TypeError):
        training_pipeline(estimator=None, modelname="x")
