"""When a pipeline that is started again and again gives up: after crashes, not after somebody's retries."""

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry, Crashed, Failed, Running

from trainyard import PyTorch, errors
from trainyard.flows.pipeline_run import MAX_CRASHES, PipelineRunner


@pytest.fixture
def start_after(prefect_server, home, linear_project):
    """Starts a run that has ended in some ways before; gives its end."""

    @flow(name="started-again")
    def pipeline():
        PipelineRunner.prepare(PyTorch(source_directory=str(linear_project), entry_script="train.py"), None, None, None)

    def start(*ends):
        with get_client(sync_client=True) as client:
            run = client.create_flow_run(pipeline)
            for end in ends:
                client.set_flow_run_state(run.id, Running(), force=True)
                client.set_flow_run_state(run.id, end(message="before"), force=True)
                client.set_flow_run_state(run.id, AwaitingRetry(), force=True)
            run = client.read_flow_run(run.id)
        assert run.run_count == len(ends)
        return run_flow(pipeline, flow_run=run, return_type="state")

    return start


def test_a_run_that_crashed_too_often_is_not_started_again(start_after):
    assert start_after(*[Crashed] * (MAX_CRASHES - 1)).is_completed()
    with pytest.raises(errors.RunCancelledError, match=f"has crashed {MAX_CRASHES} times and is not started again"):
        start_after(*[Crashed] * MAX_CRASHES).result()


def test_starts_that_somebody_asked_for_are_no_crashes(start_after):
    assert start_after(*[Failed] * (MAX_CRASHES + 2)).is_completed()
    assert start_after(Crashed, Failed, Crashed, Crashed, Failed, Crashed).is_completed()
    assert start_after(*[Crashed] * MAX_CRASHES, Failed).is_completed(), "which it was told by giving up"
