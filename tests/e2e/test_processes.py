"""What the orchestrating process loads, and how it runs without a server."""

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.conftest import small_estimator

CALLER = """
import json, sys
from trainyard import training_pipeline, PyTorch
result = training_pipeline(PyTorch.model_validate_json(sys.argv[1]))
loaded = sorted({"torch", "onnx", "onnxruntime", "horovod", "mpi4py"} & set(sys.modules))
print(json.dumps({"loaded": loaded, "stages": {n: s.status for n, s in result.stages.items()}}))
"""


def call(estimator, env):
    command = [sys.executable, "-c", CALLER, estimator.model_dump_json()]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_without_a_server_it_runs_on_the_embedded_one_and_a_cached_run_loads_no_torch(
    home, linear_project, points, tmp_path
):
    estimator = small_estimator(linear_project, points)
    env = {"TRAINYARD_HOME": str(home), "PREFECT_HOME": str(tmp_path / "prefect")}
    first, second = call(estimator, env), call(estimator, env)
    assert set(first["stages"].values()) == {"ran"}
    assert set(second["stages"].values()) == {"cached"}
    assert second["loaded"] == []


@pytest.fixture
def runs_of_server(prefect_server):
    from prefect.client.orchestration import get_client

    def read():
        with get_client(sync_client=True) as client:
            return {run.id: run for run in client.read_flow_runs()}

    return read


def test_a_running_server_sees_the_run_its_tasks_and_its_artifacts(run_pipeline, runs_of_server):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        FlowRunFilter,
        FlowRunFilterId,
    )

    before = set(runs_of_server())
    result = run_pipeline()
    (new,) = [run for run_id, run in runs_of_server().items() if run_id not in before]
    assert str(new.id) == result.run_id
    assert new.name == "linear 1x1 single process"
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[new.id])))
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[new.id]))
        )
    assert {task.name.split("-")[0] for task in tasks} == set(result.stages)
    assert {"training-progress", "training-metrics"} <= {artifact.key for artifact in artifacts}
    assert {artifact.type for artifact in artifacts} >= {"progress", "markdown", "table"}
    [staging] = [artifact for artifact in artifacts if artifact.key == "staging-progress"]
    assert (staging.type, staging.data) == ("progress", 100.0)
    assert staging.description.startswith("2 of 2 objects, 0 of them unchanged")
